import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import type { Capability } from '../base/task.ts';
import { ClientFile, InProcessClient } from '../client/in-process.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import { pciSystem, type PciSystemParts } from '../kernel/system.ts';
import * as uapi from '../uapi/vfio.ts';

const CARD = '0000:01:00.0';
const OTHER = '0000:02:00.0';

/** Two cards behind root ports; nothing translates for the first one. */
function boot(enabled: boolean): PciSystemParts {
  const text = `kind: pc
name: half
boot: { noiommu: ${enabled} }
devices:
  - { address: 0000:00:01.0, type: root-port, secondary: 0000:01, iommu: none }
  - { address: '${CARD}', ids: '1234:11e8', iommu: none }
  - { address: 0000:00:02.0, type: root-port, secondary: 0000:02 }
  - { address: '${OTHER}', ids: '1234:11e8' }
`;
  const system = pciSystem(loadMachine(text, 'half'));
  for (const name of [CARD, OTHER]) {
    const device = system.pci.core.device(name);
    assert.ok(device);
    system.pci.core.setOverride(device, 'vfio-pci');
  }
  return system;
}

function bind(system: PciSystemParts, name: string): string {
  let outcome = 'waits';
  system.pci.core.bind('vfio-pci', name, (error) => {
    outcome = error?.code ?? 'ok';
  });
  return outcome;
}

function answer(action: () => unknown): string {
  try {
    action();
    return 'ok';
  } catch (error) {
    assert.ok(error instanceof Errno, String(error));
    return error.code;
  }
}

function program(capabilities?: readonly Capability[]): InProcessClient {
  return new InProcessClient(capabilities === undefined ? {} : { capabilities });
}

class NoIommuLab {
  readonly system = boot(true);
  readonly client: InProcessClient;

  constructor(capabilities?: readonly Capability[]) {
    this.client = program(capabilities);
    for (const name of [CARD, OTHER]) assert.equal(bind(this.system, name), 'ok');
  }

  get table(): PciSystemParts['vfio']['table'] {
    return this.system.vfio.table;
  }

  group(noIommu: boolean): ClientFile {
    const group = this.table.groups.find((each) => each.noIommu === noIommu);
    assert.ok(group);
    const file = this.system.vfio.openGroup(group, this.client);
    return new ClientFile(this.client, this.client.install(file));
  }

  container(): ClientFile {
    return new ClientFile(this.client, this.client.install(this.system.vfio.openContainer()));
  }

  exit(): void {
    this.client.exit();
    assert.deepEqual(this.system.iommufd.leaks(), []);
  }
}

const NOIOMMU = BigInt(uapi.VFIO_NOIOMMU_IOMMU);
const V2 = BigInt(uapi.VFIO_TYPE1v2_IOMMU);

test('a device without IOMMU is refused to vfio-pci unless no-iommu mode is on', () => {
  const system = boot(false);
  assert.equal(bind(system, CARD), 'EINVAL');
  system.parameters.set('vfio.enable_unsafe_noiommu_mode', true);
  assert.equal(bind(system, CARD), 'ok');
});

test('it gets a group of its own with its own names, and loses it with its driver', () => {
  const { system, table } = new NoIommuLab();
  const group = table.groups.find(({ noIommu }) => noIommu);
  assert.equal(group?.nodeName, `noiommu-${String(group?.iommuGroup?.id)}`);
  assert.equal(group.iommuGroup?.name, 'vfio-noiommu');
  const cdevs = system.vfio.nodes().filter((name) => name.startsWith('devices/'));
  assert.equal(cdevs.length, 1, 'no node of its own');
  const before = system.groups.list().length;
  system.pci.core.unbind('vfio-pci', CARD, () => undefined);
  assert.equal(system.groups.list().length, before - 1);
  assert.equal(system.pci.core.device(CARD)?.iommu.group, undefined);
});

test('its container takes type 8 alone, maps nothing, and does not mix with real groups', () => {
  const lab = new NoIommuLab();
  const [fake, real, container] = [lab.group(true), lab.group(false), lab.container()];
  const check = (extension: bigint): number =>
    container.ioctl('VFIO_CHECK_EXTENSION', { extension }).result;
  assert.deepEqual([check(NOIOMMU), check(V2)], [1, 1], 'any driver, as long as there is no group');
  fake.ioctl('VFIO_GROUP_SET_CONTAINER', { container: container.fd });
  assert.deepEqual([check(NOIOMMU), check(V2)], [1, 0]);
  const join = (): unknown => real.ioctl('VFIO_GROUP_SET_CONTAINER', { container: container.fd });
  assert.equal(answer(join), 'EPERM');
  const set = (extension: bigint): string =>
    answer(() => container.ioctl('VFIO_SET_IOMMU', { extension }));
  assert.equal(set(V2), 'ENODEV');
  assert.equal(set(NOIOMMU), 'ok');
  assert.equal(
    answer(() => container.ioctl('VFIO_IOMMU_MAP_DMA', {})),
    'ENOTTY',
  );
  const { result } = fake.ioctl('VFIO_GROUP_GET_DEVICE_FD', { name: CARD });
  const device = new ClientFile(lab.client, result);
  assert.notEqual(device.ioctl('VFIO_DEVICE_GET_INFO').flags & uapi.VFIO_DEVICE_FLAGS_PCI, 0);
  lab.exit();
});

test('every way in needs CAP_SYS_RAWIO', () => {
  const lab = new NoIommuLab(['CAP_SYS_ADMIN']);
  assert.equal(
    answer(() => lab.group(true)),
    'EPERM',
  );
  const device = lab.table.devices.find((each) => each?.group.noIommu);
  assert.ok(device);
  assert.equal(
    answer(() => lab.system.vfio.openDevice(device)),
    'ENODEV',
    'there is no node to open',
  );
  const group = device.group;
  const passed = lab.system.vfio.openGroup(group);
  const file = new ClientFile(lab.client, lab.client.install(passed));
  const container = lab.container();
  assert.equal(
    answer(() => file.ioctl('VFIO_GROUP_SET_CONTAINER', { container: container.fd })),
    'EPERM',
  );
  assert.equal(device.users, 1, 'a refused open leaves no user');
  lab.exit();
});

test('an IOMMUFD as container: no IOAS for it, whichever came first', () => {
  const lab = new NoIommuLab();
  const [fake, real] = [lab.group(true), lab.group(false)];
  const iommufd = new ClientFile(
    lab.client,
    lab.client.install(lab.system.iommufd.open(lab.client)),
  );
  fake.ioctl('VFIO_GROUP_SET_CONTAINER', { container: iommufd.fd });
  assert.equal(
    answer(() => real.ioctl('VFIO_GROUP_SET_CONTAINER', { container: iommufd.fd })),
    'EINVAL',
  );
  const check = iommufd.ioctl('VFIO_CHECK_EXTENSION', { extension: V2 });
  assert.equal(check.result, 0);
  assert.equal(iommufd.ioctl('VFIO_SET_IOMMU', { extension: NOIOMMU }).result, 0);
  const { result } = fake.ioctl('VFIO_GROUP_GET_DEVICE_FD', { name: CARD });
  new ClientFile(lab.client, result).close();
  lab.exit();
});
