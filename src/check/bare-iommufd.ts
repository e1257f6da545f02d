/**
 * IOMMUFD without memory: contexts, IOASes, automatic HWPTs and bound devices, exactly as far as they decide who owns and
 * reaches what. An IOAS is a name; a HWPT is a domain that says to whom it belongs. The checker and the replay of recorded
 * programs use it, so that they test ownership and nothing else.
 *
 * IDs are the lowest that are free, reserved before anything that may fail and given back if it does. One attachment per
 * subgroup (iommu/group.ts) and PASID: the first member attaches, the others must name the same HWPT, the last one detaches.
 *
 * After drivers/iommu/iommufd/device.c.
 */
import { Errno } from '../base/errno.ts';
import {
  attachDevicePasid,
  attachGroupHandle,
  detachDevicePasid,
  detachGroupHandle,
  NO_PASID,
  replaceDevicePasid,
  replaceGroupHandle,
} from '../iommu/attach.ts';
import type { Domain, IommuDevice } from '../iommu/domain.ts';
import type { Subgroup, IommuGroup } from '../iommu/group.ts';
import { claimDevice, releaseDeviceClaim } from '../iommu/ownership.ts';
import type { IommufdBinding, IommufdContext } from '../vfio/iommufd.ts';

/** An I/O address space: what is attached to it reaches what its owner mapped, and nothing else. */
export class BareIoas {
  readonly kind = 'ioas';
  readonly id: number;
  /** automatic ones, oldest first */
  readonly hwpts: BareHwpt[] = [];

  constructor(id: number) {
    this.id = id;
  }
}

export class BareHwpt {
  readonly kind = 'hwpt';
  readonly id: number;
  readonly ioas: BareIoas;
  readonly domain: Domain;
  /** one for each device and PASID */
  users = 0;

  constructor(id: number, ioas: BareIoas, domain: Domain) {
    this.id = id;
    this.ioas = ioas;
    this.domain = domain;
  }
}

class BareDevice implements IommufdBinding {
  readonly kind = 'device';
  readonly id: number;
  readonly context: BareIommufd;
  readonly device: IommuDevice;
  readonly group: IommuGroup;

  constructor(id: number, context: BareIommufd, device: IommuDevice) {
    this.id = id;
    this.context = context;
    this.device = device;
    this.group = device.requireGroup().ref();
  }

  attach(pasid: number, ptId: number): number {
    return this.context.change(this, pasid, { ptId, replace: false });
  }

  replace(pasid: number, ptId: number): number {
    return this.context.change(this, pasid, { ptId, replace: true });
  }

  detach(pasid: number): void {
    this.context.detach(this, pasid);
  }

  unbind(): void {
    this.context.unbind(this);
  }
}

type Attached = { hwpt: BareHwpt; readonly devices: Set<BareDevice> };
type Entry = BareIoas | BareHwpt | BareDevice | 'reserved';

export class BareIommufd implements IommufdContext {
  readonly name: string;
  readonly #unsafeInterrupts: boolean;
  readonly #objects = new Map<number, Entry>();
  readonly #attached = new Map<Subgroup, Map<number, Attached>>();
  #compat: BareIoas | undefined;

  /** @param name for people: "user X" */
  constructor(name: string, options: { readonly unsafeInterrupts?: boolean } = {}) {
    this.name = name;
    this.#unsafeInterrupts = options.unsafeInterrupts ?? false;
  }

  #reserve(): number {
    let id = 1;
    while (this.#objects.has(id)) id++;
    this.#objects.set(id, 'reserved');
    return id;
  }

  allocIoas(): BareIoas {
    const ioas = new BareIoas(this.#reserve());
    this.#objects.set(ioas.id, ioas);
    return ioas;
  }

  createCompatIoas(): void {
    this.#compat ??= this.allocIoas();
  }

  compatIoasId(): number {
    if (this.#compat === undefined) throw new Errno('ENODEV', `${this.name} has no compat IOAS`);
    return this.#compat.id;
  }

  hasGroup(group: IommuGroup): boolean {
    return [...this.#objects.values()].some(
      (each) => each instanceof BareDevice && each.group === group,
    );
  }

  get(): this {
    return this;
  }

  put(): void {
    // Nothing of a bare context has to be given back.
  }

  bind(device: IommuDevice): IommufdBinding {
    const id = this.#reserve();
    try {
      this.#refuseDevice(device);
      claimDevice(device, this);
    } catch (error) {
      this.#objects.delete(id);
      throw error;
    }
    const bound = new BareDevice(id, this, device);
    this.#objects.set(id, bound);
    return bound;
  }

  #refuseDevice(device: IommuDevice): void {
    if (!device.ops.capable(device, 'cache-coherency')) {
      throw new Errno('EINVAL', `DMA of ${device.name} is not coherent with caches`);
    }
    const culprit = device.requireGroup().members.find(({ isolatedMsi }) => !isolatedMsi);
    if (culprit !== undefined && !this.#unsafeInterrupts) {
      throw new Errno('EPERM', `interrupts of ${culprit.name} are not isolated`);
    }
  }

  unbind(bound: BareDevice): void {
    this.#objects.delete(bound.id);
    releaseDeviceClaim(bound.device);
    bound.group.put();
  }

  /** attach or replace by ID. ENOENT for no such ID, EINVAL for one that is no page table; @returns the HWPT's ID */
  change(
    bound: BareDevice,
    pasid: number,
    target: { readonly ptId: number; readonly replace: boolean },
  ): number {
    const entry = this.#objects.get(target.ptId);
    if (entry === undefined || entry === 'reserved') {
      throw new Errno('ENOENT', `${this.name} has no object ${target.ptId}`);
    }
    const move = (hwpt: BareHwpt): BareHwpt | undefined => {
      if (target.replace) return this.#replace(bound, pasid, hwpt);
      this.#attach(bound, pasid, hwpt);
      return undefined;
    };
    if (entry.kind === 'device') {
      throw new Errno('EINVAL', `object ${target.ptId} is a device, not a page table`);
    }
    if (entry.kind === 'hwpt') {
      this.#put(move(entry));
      return entry.id;
    }
    return this.#changeAutomatic(bound, entry, move);
  }

  // An automatic HWPT that cannot be used is passed over; any other refusal is the answer.
  #changeAutomatic(
    bound: BareDevice,
    ioas: BareIoas,
    move: (hwpt: BareHwpt) => BareHwpt | undefined,
  ): number {
    for (const hwpt of ioas.hwpts) {
      try {
        const left = move(hwpt);
        if (left !== hwpt) this.#put(left);
        return hwpt.id;
      } catch (error) {
        if (!(error instanceof Errno) || error.code !== 'EINVAL') throw error;
      }
    }
    const id = this.#reserve();
    const { device } = bound;
    try {
      const domain = device.ops.allocPaging(device, { kind: 'unmanaged', flags: 0 });
      const hwpt = new BareHwpt(id, ioas, domain);
      const left = move(hwpt);
      ioas.hwpts.push(hwpt);
      this.#objects.set(id, hwpt);
      this.#put(left);
      return id;
    } catch (error) {
      this.#objects.delete(id);
      throw error;
    }
  }

  #table(subgroup: Subgroup): Map<number, Attached> {
    const known = this.#attached.get(subgroup);
    if (known !== undefined) return known;
    const table = new Map<number, Attached>();
    this.#attached.set(subgroup, table);
    return table;
  }

  #attach(bound: BareDevice, pasid: number, hwpt: BareHwpt): void {
    const subgroup = bound.group.subgroupOf(bound.device);
    const table = this.#table(subgroup);
    const current = table.get(pasid);
    if (current?.devices.has(bound)) {
      throw new Errno('EBUSY', `${bound.device.name} is attached to HWPT ${current.hwpt.id}`);
    }
    if (current !== undefined && current.hwpt !== hwpt) {
      throw new Errno(
        'EINVAL',
        `group ${bound.group.id} is on HWPT ${current.hwpt.id}, all its devices must use that one`,
      );
    }
    if (current === undefined) {
      const handle = { domain: undefined };
      if (pasid === NO_PASID) attachGroupHandle(subgroup, hwpt.domain, handle);
      else attachDevicePasid(bound.device, pasid, hwpt.domain, handle);
      table.set(pasid, { hwpt, devices: new Set([bound]) });
    } else {
      current.devices.add(bound);
    }
    hwpt.users++;
  }

  /** @returns the HWPT that was left */
  #replace(bound: BareDevice, pasid: number, hwpt: BareHwpt): BareHwpt {
    const subgroup = bound.group.subgroupOf(bound.device);
    const current = this.#table(subgroup).get(pasid);
    if (!current?.devices.has(bound)) {
      throw new Errno('EINVAL', `${bound.device.name} is not attached`);
    }
    const old = current.hwpt;
    if (old === hwpt) return old;
    const handle = { domain: undefined };
    if (pasid === NO_PASID) replaceGroupHandle(subgroup, hwpt.domain, handle);
    else replaceDevicePasid(bound.device, pasid, hwpt.domain, handle);
    current.hwpt = hwpt;
    hwpt.users += current.devices.size;
    old.users -= current.devices.size;
    return old;
  }

  detach(bound: BareDevice, pasid: number): void {
    const subgroup = bound.group.subgroupOf(bound.device);
    const table = this.#table(subgroup);
    const current = table.get(pasid);
    if (!current?.devices.delete(bound)) return;
    if (current.devices.size === 0) {
      if (pasid === NO_PASID) detachGroupHandle(subgroup);
      else detachDevicePasid(bound.device, pasid);
      table.delete(pasid);
      if (table.size === 0) this.#attached.delete(subgroup);
    }
    current.hwpt.users--;
    this.#put(current.hwpt);
  }

  // An automatic HWPT goes with its last user.
  #put(hwpt: BareHwpt | undefined): void {
    if (hwpt === undefined || hwpt.users > 0) return;
    hwpt.ioas.hwpts.splice(hwpt.ioas.hwpts.indexOf(hwpt), 1);
    this.#objects.delete(hwpt.id);
    hwpt.domain.free();
  }
}
