/**
 * Devices that share a group: bound, attached and replaced together, with the IOVAs that they cannot use. After
 * iommufd_device_bind, iommufd_hw_pagetable_attach and iommufd_device_do_replace of drivers/iommu/iommufd/device.c.
 */
import assert from 'node:assert/strict';
import {
  Domain,
  IommuDevice,
  type DomainKind,
  type IommuDeviceOptions,
  type IommuOps,
  type ReservedRegion,
} from '../iommu/domain.ts';
import { probeDevice, releaseDevice, type IommuGroup } from '../iommu/group.ts';
import { ExtentTable } from '../iommu/page-table.ts';
import { PagingDomain } from '../iommu/paging-domain.ts';
import { PAGE, engineTest, refuses, type Lab, type Session } from '../testing/lab.ts';
import { IommufdDevice, NO_PASID } from './device.ts';
import { Ioas } from './ioas.ts';

class Blocking extends Domain {
  override kind: DomainKind = 'blocked';
  override readonly name = 'blocking';
  override attachDevice(): void {
    // nothing to program
  }
}

class Table extends PagingDomain {
  override readonly name = 'table';
  override readonly table = new ExtentTable([4096]);
  override readonly geometry = { first: 0n, last: 2n ** 48n - 1n };
  override readonly pageSizes = PAGE;
  override attachDevice(): void {
    // nothing to program
  }
  override setDirtyTracking(): void {
    // it tracks nothing
  }
}

function makeOps(coherent = true): IommuOps {
  const blocking = new Blocking();
  const ops: IommuOps = {
    name: 'test IOMMU',
    defaultDomain: blocking,
    blockedDomain: blocking,
    capable: (_device, capability) => capability === 'cache-coherency' && coherent,
    allocPaging: () => new Table(ops, false),
  };
  return ops;
}

type Made = { readonly group: IommuGroup; readonly devices: IommuDevice[] };

/** Devices in one group. */
function makeGroup(lab: Lab, options: readonly Partial<IommuDeviceOptions>[]): Made {
  const group = lab.iommufd.environment.groups.alloc();
  const ops = makeOps();
  const devices = options.map((each, i) => new IommuDevice({ name: `dev${i}`, ops, ...each }));
  devices.forEach((device, i) => {
    probeDevice(device, () => (i === 0 ? group : group.ref()));
  });
  return { group, devices };
}

function deviceTest(
  name: string,
  options: readonly Partial<IommuDeviceOptions>[],
  body: (parts: { s: Session; lab: Lab; devices: IommuDevice[]; group: IommuGroup }) => void,
): void {
  engineTest(name, (s, lab) => {
    const made = makeGroup(lab, options);
    body({ s, lab, ...made });
    for (const device of made.devices) releaseDevice(device);
  });
}

function bind({ context }: Session, devices: readonly IommuDevice[]): IommufdDevice[] {
  return devices.map((device) => IommufdDevice.bindDevice(context, device));
}

function unbind(...devices: readonly IommufdDevice[]): void {
  for (const device of devices) {
    device.detachAll();
    device.unbind();
  }
}

const region = (type: ReservedRegion['type'], page: bigint): ReservedRegion => ({
  start: page * PAGE,
  last: (page + 1n) * PAGE - 1n,
  type,
});

deviceTest(
  'bind: DMA that is not coherent with the caches is EINVAL',
  [{ ops: makeOps(false) }],
  ({ s, devices }) => {
    refuses('EINVAL', () => bind(s, devices));
    assert.deepEqual(s.context.objects.live(), []);
  },
);

deviceTest(
  'bind: interrupts that are not isolated are EPERM, of whichever member',
  [{}, { isolatedMsi: false }],
  ({ s, devices }) => {
    refuses('EPERM', () => bind(s, devices.slice(0, 1)));
    assert.equal(s.context.groups.size, 0);
  },
);

deviceTest('bind: a group belongs to one file', [{}, {}], ({ s, lab, devices, group }) => {
  const other = lab.open();
  const [first, second] = devices;
  assert.ok(first && second);
  const bound = bind(s, [first]);
  refuses('EPERM', () => bind(other, [second]));
  assert.equal(group.owner, s.context);
  unbind(...bound);
  unbind(...bind(other, [second]));
});

deviceTest(
  'a bound device keeps the objects alive when the file is closed',
  [{}],
  ({ s, lab, devices }) => {
    const bound = bind(s, devices);
    s.close();
    assert.equal(lab.iommufd.contexts.length, 1);
    lab.check();
    unbind(...bound);
    assert.equal(lab.iommufd.contexts.length, 0);
  },
);

deviceTest(
  'attach: members follow the first to the same page table',
  [{}, {}],
  ({ s, lab, devices }) => {
    const [ioas, other] = [s.ioas(), s.ioas()];
    const [first, second] = bind(s, devices);
    assert.ok(first && second);
    refuses('ENOENT', () => first.attach(NO_PASID, 99));
    const hwpt = first.attach(NO_PASID, ioas);
    refuses('EBUSY', () => first.attach(NO_PASID, hwpt));
    refuses('EINVAL', () => second.replace(NO_PASID, ioas));
    // A new automatic page table is tried, and does not fit the group (S23.10).
    refuses('EINVAL', () => second.attach(NO_PASID, other));
    assert.equal(s.context.objects.get(Ioas, other).hwpts.length, 0);
    assert.equal(second.attach(NO_PASID, ioas), hwpt);
    lab.check();
    // All move together, and the automatic page table goes with the last hold.
    const moved = first.replace(NO_PASID, other);
    refuses('ENOENT', () => s.context.objects.any(hwpt));
    assert.equal(second.replace(NO_PASID, moved), moved);
    lab.check();
    first.detach(NO_PASID);
    first.detach(NO_PASID);
    refuses('EBUSY', () => {
      s.destroy(moved);
    });
    unbind(first, second);
  },
);

deviceTest(
  'attach: what a device cannot use as memory is reserved, and given back',
  [
    { reservedRegions: [region('reserved', 16n), region('direct-relaxable', 17n)] },
    { reservedRegions: [region('msi', 32n)] },
  ],
  ({ s, devices }) => {
    const ioas = s.ioas();
    const buffer = s.client.allocate(1);
    const [first, second] = bind(s, devices);
    assert.ok(first && second);
    const taken = (page: bigint): boolean => {
      try {
        s.unmap(ioas, s.map(ioas, buffer, PAGE, { iova: page * PAGE }), PAGE);
        return false;
      } catch {
        return true;
      }
    };
    s.map(ioas, buffer, PAGE, { iova: 16n * PAGE });
    refuses('EADDRINUSE', () => first.attach(NO_PASID, ioas));
    s.unmap(ioas, 16n * PAGE, PAGE);
    first.attach(NO_PASID, ioas);
    second.attach(NO_PASID, ioas);
    assert.deepEqual([16n, 17n, 32n].map(taken), [true, false, true]);
    // A replacement needs the regions of all members in the new IOAS, or changes nothing.
    const other = s.ioas();
    s.map(other, buffer, PAGE, { iova: 32n * PAGE });
    refuses('EADDRINUSE', () => first.replace(NO_PASID, other));
    s.map(other, buffer, PAGE, { iova: 16n * PAGE });
    s.unmap(other, 32n * PAGE, PAGE);
    refuses('EADDRINUSE', () => second.replace(NO_PASID, other));
    s.unmap(other, 16n * PAGE, PAGE);
    second.replace(NO_PASID, other);
    assert.deepEqual([16n, 17n, 32n].map(taken), [false, false, false]);
    unbind(first, second);
  },
);

for (const regions of [
  [region('sw-msi', 1n), region('msi', 2n)],
  [region('sw-msi', 1n), region('sw-msi', 2n)],
]) {
  deviceTest(
    `attach: two ways to place the MSI window (${regions.map(({ type }) => type).join(', ')}) are EINVAL`,
    [{ reservedRegions: regions }],
    ({ s, devices }) => {
      const ioas = s.ioas();
      const [device] = bind(s, devices);
      assert.ok(device);
      refuses('EINVAL', () => device.attach(NO_PASID, ioas));
      assert.deepEqual(s.context.objects.get(Ioas, ioas).iopt.reserved.all, []);
      unbind(device);
    },
  );
}

deviceTest(
  'HWPT_ALLOC and GET_HW_INFO of an IOMMU that offers neither flags nor details',
  [{}],
  ({ s, devices }) => {
    const ioas = s.ioas();
    const [device] = bind(s, devices);
    assert.ok(device);
    refuses('EOPNOTSUPP', () => s.hwpt(device.id, ioas, { flags: 1 }));
    refuses('EOPNOTSUPP', () => s.hwpt(device.id, ioas, s.data({})));
    const hwpt = s.hwpt(device.id, ioas);
    refuses('EOPNOTSUPP', () => s.nested(device.id, hwpt));
    refuses('EOPNOTSUPP', () => s.viommu(device.id, hwpt));
    const info = s.ioctl('IOMMU_GET_HW_INFO', { dev_id: device.id });
    assert.deepEqual([info.data_len, info.data_type.read('out_data_type')], [0, 0]);
    unbind(device);
  },
);
