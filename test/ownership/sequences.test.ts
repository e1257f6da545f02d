/**
 * The worked sequences of ownership, one test each, on the real doors: two devices A and B in one group, K a driver that does
 * kernel DMA, V vfio-pci, X and Y two opens of /dev/iommu. Numbers: the rows of the table "Worked sequences", top to bottom.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { claimDevice } from '../../src/iommu/ownership.ts';
import { DriverCore } from '../../src/kernel/driver-core.ts';
import { newBusDevice } from '../../src/kernel/driver-state.ts';
import { setIommu } from '../../src/vfio/container.ts';
import { vfioView } from '../../src/vfio/iommufd.ts';
import { newContainer } from '../../src/vfio/state.ts';
import { OwnershipLab, type LabUser } from '../../src/testing/ownership-lab.ts';
import { VFIO_TYPE1v2_IOMMU } from '../../src/uapi/vfio.ts';

const ok = (outcome: string): void => {
  assert.equal(outcome, 'ok');
};

/** B has vfio-pci and is bound to X. */
function bTaken(lab: OwnershipLab, x: LabUser): ReturnType<OwnershipLab['take']> {
  ok(lab.bind('B', 'vfio-pci'));
  const taken = lab.take('B', x);
  ok(taken.outcome);
  return taken;
}

test('S5.1/1: A has K, B has V: binding B to X is EPERM and names A and K', () => {
  const lab = new OwnershipLab();
  const x = lab.user();
  ok(lab.bind('A', 'K'));
  ok(lab.bind('B', 'vfio-pci'));
  assert.equal(lab.take('B', x).outcome, 'EPERM');
  assert.match(lab.reason, /0000:02:00\.0 is bound to K, which does kernel DMA/);
  assert.deepEqual([lab.group.ownerCount, lab.group.owner], [1, undefined]);
});

test('S5.1/2: A without driver, B bound to X: K on A is EBUSY, its probe is not called, DMA is blocked', () => {
  const lab = new OwnershipLab();
  bTaken(lab, lab.user());
  assert.equal(lab.group.ownerCount, 1);
  assert.equal(lab.iommu('A').attached, lab.group.blockingDomain);
  assert.equal(lab.bind('A', 'K'), 'EBUSY');
  assert.match(lab.reason, /group \d+ is owned by iommufd 1 of process 1/);
  assert.equal(lab.driver('A'), '-');
});

test('S5.1/3: then A has V and is bound to X: count 2; to Y: EPERM', () => {
  const lab = new OwnershipLab();
  const [x, y] = [lab.user(), lab.user()];
  bTaken(lab, x);
  ok(lab.bind('A', 'vfio-pci'));
  const file = lab.openNode('A');
  assert.equal(lab.bindNode(file, y), 'EPERM');
  assert.match(lab.reason, /iommufd 1 of process 1 already owns it/);
  ok(lab.bindNode(file, x));
  assert.equal(lab.group.ownerCount, 2);
});

test('S5.1/4: B attaches: A reaches the same memory although it never attached', () => {
  const lab = new OwnershipLab();
  const x = lab.user();
  const { file } = bTaken(lab, x);
  ok(lab.attach(file, x.ioas));
  assert.equal(lab.iommu('A').attached, lab.iommu('B').attached);
  assert.equal(lab.iommu('A').attached?.kind, 'unmanaged');
});

test('S5.1/5: A attaches to the same IOAS: the same HWPT; to another one: EINVAL', () => {
  const lab = new OwnershipLab();
  const x = lab.user();
  const b = bTaken(lab, x).file;
  const hwpt = b.attach(x.ioas);
  ok(lab.bind('A', 'vfio-pci'));
  const a = lab.take('A', x).file;
  assert.equal(lab.attach(a, x.allocIoas()), 'EINVAL');
  assert.equal(a.attach(x.ioas), hwpt);
});

test('S5.1/6 and 7: closing B leaves A working, closing A blocks, releases, and lets K in', () => {
  const lab = new OwnershipLab();
  const x = lab.user();
  const b = bTaken(lab, x).file;
  ok(lab.attach(b, x.ioas));
  ok(lab.bind('A', 'vfio-pci'));
  const a = lab.take('A', x).file;
  ok(lab.attach(a, x.ioas));
  const domain = lab.iommu('A').attached;
  b.release();
  assert.equal(lab.group.ownerCount, 1);
  assert.equal(lab.iommu('A').attached, domain);
  ok(lab.unbind('B'));
  assert.equal(lab.bind('B', 'K'), 'EBUSY');
  a.release();
  assert.deepEqual([lab.group.ownerCount, lab.group.owner], [0, undefined]);
  assert.equal(lab.iommu('A').attached, lab.group.defaultDomain);
  ok(lab.bind('B', 'K'));
});

test('S5.1/8: pcieport in the group is not counted', () => {
  const lab = new OwnershipLab({ portInGroup: true });
  const port = lab.system.core.device(lab.port);
  assert.equal(port?.driver?.name, 'pcieport');
  assert.equal(port.iommu.group, lab.group);
  bTaken(lab, lab.user());
});

test('S5.1/9: the group is in a container: binding the node of a member is EBUSY before ownership is asked', () => {
  const lab = new OwnershipLab();
  ok(lab.bind('A', 'vfio-pci'));
  const group = lab.openGroup('A');
  group.setContainer(newContainer());
  assert.equal(lab.take('A', lab.user()).outcome, 'EBUSY');
  assert.match(lab.reason, /the group file \/dev\/vfio\/\d+ is open/);
});

test('S5.1/10: a second group with K does not join the container, the first is unaffected', () => {
  const lab = new OwnershipLab();
  const container = newContainer();
  ok(lab.bind('A', 'vfio-pci'));
  lab.openGroup('A').setContainer(container);
  setIommu(container, VFIO_TYPE1v2_IOMMU);
  const before = lab.iommu('A').attached;
  // The other card is alone in its group; a second function with K is what B is to A, so put K first and V next to it.
  const other = new OwnershipLab();
  ok(other.bind('A', 'K'));
  ok(other.bind('B', 'vfio-pci'));
  const second = other.openGroup('B');
  assert.equal(
    other.try(() => {
      second.setContainer(container);
    }),
    'EPERM',
  );
  assert.match(
    other.reason,
    /the container of group \d+ cannot own group \d+: 0000:02:00\.0 is bound to K/,
  );
  assert.equal(container.groups.length, 1);
  assert.equal(lab.iommu('A').attached, before);
});

/** A driver whose probe lets somebody else act first: the race that a lock decides. */
function racing(lab: OwnershipLab, during: () => void): DriverCore {
  const core = new DriverCore();
  core.register({
    name: 'racing',
    managedDma: false,
    ids: [],
    probe: during,
    remove: (_device, done) => {
      done();
    },
  });
  const device = newBusDevice(
    lab.name('A'),
    { vendor: 0, device: 0, subvendor: 0, subdevice: 0, class: 0 },
    lab.iommu('A'),
  );
  device.override = 'racing';
  core.add(device);
  return core;
}

function bindRacing(core: DriverCore, lab: OwnershipLab): string {
  let outcome = 'waits';
  core.bind('racing', lab.name('A'), (error) => {
    outcome = error?.code ?? 'ok';
  });
  return outcome;
}

test('S5.1/11: K is first: a claim that comes while K is being probed is EPERM', () => {
  const lab = new OwnershipLab();
  const x = lab.user();
  ok(lab.bind('B', 'vfio-pci'));
  const file = lab.openNode('B');
  let claim = '';
  const core = racing(lab, () => {
    claim = lab.bindNode(file, x);
  });
  assert.equal(bindRacing(core, lab), 'ok');
  assert.equal(claim, 'EPERM');
  assert.equal(lab.group.owner, undefined);
});

test('S5.1/11: the claim is first: a probe that comes while the owner is being set up is EBUSY', () => {
  const lab = new OwnershipLab();
  let probed = false;
  const core = racing(lab, () => {
    probed = true;
  });
  claimDevice(lab.iommu('B'), vfioView(lab.user().file.context));
  assert.equal(bindRacing(core, lab), 'EBUSY');
  assert.equal(probed, false);
});

test("S5.1/12: K's probe fails after DMA was granted: the claim in between was EPERM, afterwards it succeeds", () => {
  const lab = new OwnershipLab({ failProbe: true });
  const x = lab.user();
  assert.equal(lab.bind('A', 'K'), 'EIO');
  assert.deepEqual([lab.driver('A'), lab.group.ownerCount], ['-', 0]);
  ok(lab.bind('B', 'vfio-pci'));
  ok(lab.take('B', x).outcome);
});

test('S5.1/13: C is plugged into a group that X owns: it joins the domain and stays without driver', () => {
  const lab = new OwnershipLab();
  const x = lab.user();
  const { file } = bTaken(lab, x);
  ok(lab.attach(file, x.ioas));
  lab.plug();
  assert.equal(lab.iommu('C').group, lab.group);
  assert.equal(lab.iommu('C').attached, lab.iommu('B').attached);
  assert.equal(lab.driver('C'), '-');
  assert.equal(lab.bind('C', 'K'), 'EBUSY');
});

test('drivers_probe of a refused driver is EINVAL, and its reason names the owner', () => {
  const lab = new OwnershipLab();
  bTaken(lab, lab.user());
  let outcome = '';
  lab.system.core.driversProbe(lab.name('A'), (error) => {
    outcome = `${error?.code ?? 'ok'}: ${error?.message ?? ''}`;
  });
  assert.match(outcome, /^EINVAL: K would do kernel DMA .* owned by iommufd 1/);
});

test('unbinding vfio-pci waits for the last file of the device, and no new file is given out', () => {
  const lab = new OwnershipLab();
  const x = lab.user();
  const { file } = bTaken(lab, x);
  let done = false;
  lab.system.core.unbind('vfio-pci', lab.name('B'), () => {
    done = true;
  });
  assert.equal(done, false);
  assert.equal(
    lab.try(() => lab.system.vfio.openDevice(file.device)),
    'ENODEV',
  );
  assert.deepEqual(
    lab.system.vfio.nodes().filter((name) => name.startsWith('devices/')),
    [],
  );
  file.release();
  assert.equal(done, true);
  assert.equal(lab.group.ownerCount, 0);
});

test('a driver that is told to do DMA shows whether it had the right: K has, one that says it leaves DMA alone has not', () => {
  const lab = new OwnershipLab();
  const kernelDomain = lab.group.defaultDomain?.name;
  ok(lab.bind('A', 'K'));
  ok(lab.unbind('A'));
  bTaken(lab, lab.user());
  ok(lab.bind('A', 'liar'));
  assert.deepEqual(lab.system.dma, [
    { driver: 'K', device: lab.name('A'), granted: true, through: kernelDomain },
    { driver: 'liar', device: lab.name('A'), granted: false, through: 'the blocking domain' },
  ]);
});
