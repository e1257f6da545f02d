/**
 * Two devices in one group, registered with VFIO, behind an IOMMU without page tables; and contexts that claim and attach as
 * IOMMUFD does, but have no memory.
 */
import assert from 'node:assert/strict';
import { attachGroupHandle, detachGroupHandle, replaceGroupHandle } from '../iommu/attach.ts';
import { IommuDevice, type IommuOps } from '../iommu/domain.ts';
import { GroupTable, probeDevice, type IommuGroup } from '../iommu/group.ts';
import { bareIommu } from '../iommu/hardware/bare.ts';
import { claimDevice, releaseDeviceClaim } from '../iommu/ownership.ts';
import { PROFILES, type OwnershipRule, type ProfileName } from '../iommu/profile.ts';
import type { IommufdBinding, IommufdContext } from '../vfio/iommufd.ts';
import type { VfioDevice, VfioDeviceOps } from '../vfio/state.ts';
import { Vfio } from '../vfio/vfio.ts';

export type PairOptions = {
  readonly profile?: ProfileName;
  readonly rulesOff?: readonly OwnershipRule[];
  readonly vfioOps?: VfioDeviceOps;
  readonly ops?: IommuOps;
};

export class VfioPair {
  readonly vfio = new Vfio();
  readonly group: IommuGroup;
  readonly a: VfioDevice;
  readonly b: VfioDevice;
  readonly ops: IommuOps;

  constructor(options: PairOptions = {}) {
    this.ops = options.ops ?? bareIommu();
    const table = new GroupTable({
      profile: PROFILES[options.profile ?? 'linux'],
      rulesOff: new Set(options.rulesOff),
    });
    this.group = table.alloc();
    const [a, b] = ['a', 'b'].map((name) => {
      const iommu = new IommuDevice({ name, ops: this.ops });
      probeDevice(iommu, () => this.group.ref());
      return this.vfio.register(iommu, options.vfioOps ?? {});
    });
    assert.ok(a && b);
    this.a = a;
    this.b = b;
  }

  /** An open of /dev/iommu; each attach is to a page table of its own. @param uses counts get and put */
  context(name: string, uses: { count: number } = { count: 0 }): IommufdContext {
    const context: IommufdContext = {
      name,
      bind: (device) => {
        claimDevice(device, context);
        return this.#binding(device, context);
      },
      createCompatIoas: () => undefined,
      hasCompatIoas: () => true,
      setNoIommuMode: () => undefined,
      compatIoasId: () => 1,
      hasGroup: (group) => group.owner === context,
      get: () => uses.count++,
      put: () => {
        uses.count--;
      },
    };
    return context;
  }

  #binding(device: IommuDevice, context: IommufdContext): IommufdBinding {
    const subgroup = device.requireGroup().subgroupOf(device);
    const make = (): ReturnType<IommuOps['allocPaging']> =>
      this.ops.allocPaging(device, { kind: 'unmanaged', flags: 0 });
    return {
      id: 7,
      context,
      attach: (_pasid, ptId) => {
        attachGroupHandle(subgroup, make(), { domain: undefined });
        return ptId;
      },
      replace: (_pasid, ptId) => {
        replaceGroupHandle(subgroup, make(), { domain: undefined });
        return ptId;
      },
      detach: () => {
        detachGroupHandle(subgroup);
      },
      unbind: () => {
        releaseDeviceClaim(device);
      },
    };
  }
}
