/** A host's sysfs, as a tree of files made for the test: what is read, captured, and who holds a device. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import test, { type TestContext } from 'node:test';
import { assess } from '../explain/assign.ts';
import { GroupView } from '../iommu/group-view.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import { iommuStatus } from '../machine/iommu-status.ts';
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { EXT_SERIAL_NUMBER } from '../machine/pci/capabilities.ts';
import { captureText } from './capture.ts';
import type { HostRoots } from './files.ts';
import { HolderIndex, bootFramebuffer, type Held } from './holders.ts';
import type { NetworkState } from './network.ts';
import { readHost, remapsInterrupts } from './read-host.ts';

type Options = {
  readonly configBytes?: number;
  readonly groupType?: string;
  readonly iommu?: boolean;
};

/** Writes the sysfs of `machine` into a folder that goes away with the test. */
class FakeHost {
  readonly roots: HostRoots;
  readonly #at: string;

  constructor(t: TestContext) {
    this.#at = mkdtempSync(join(tmpdir(), 'uiommu-host-'));
    t.after(() => {
      rmSync(this.#at, { recursive: true });
    });
    this.roots = {
      sys: join(this.#at, 'sys'),
      proc: join(this.#at, 'proc'),
      dev: join(this.#at, 'dev'),
      modules: join(this.#at, 'modules'),
    };
    this.folder('sys/bus/pci/devices');
    this.write('proc/sys/kernel/hostname', 'fake\n');
  }

  path(name: string): string {
    return join(this.#at, name);
  }

  folder(name: string): void {
    mkdirSync(this.path(name), { recursive: true });
  }

  write(name: string, content: string | Uint8Array): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    writeFileSync(this.path(name), content);
  }

  link(name: string, target: string): void {
    mkdirSync(dirname(this.path(name)), { recursive: true });
    symlinkSync(relative(dirname(this.path(name)), this.path(target)), this.path(name));
  }

  /** Where the device is below sys/devices. */
  pathOf(device: PciDevice): string {
    const { self } = device.bus;
    const above = self === undefined ? `sys/devices/pci${device.bus.root.name}` : this.pathOf(self);
    return `${above}/${device.name}`;
  }

  install(
    machine: Machine,
    { configBytes = 4096, groupType = 'DMA-FQ', iommu = true }: Options = {},
  ): void {
    const view = new GroupView(machine);
    if (iommu) this.folder('sys/class/iommu/dmar0');
    for (const device of machine.devices) {
      const at = this.pathOf(device);
      this.write(`${at}/config`, device.config.bytes.subarray(0, configBytes));
      this.write(`${at}/driver_override`, '(null)\n');
      this.write(`${at}/resource`, '0x00000000fe000000 0x00000000fe0fffff 0x0000000000040200\n');
      this.link(`sys/bus/pci/devices/${device.name}`, at);
      const { driver } = device.facts;
      if (driver !== undefined) {
        this.folder(`sys/bus/pci/drivers/${driver}`);
        this.link(`${at}/driver`, `sys/bus/pci/drivers/${driver}`);
      }
      if (device.physfn !== undefined) this.link(`${at}/physfn`, this.pathOf(device.physfn));
      const id = view.idOf(device);
      if (id === undefined || !iommu) continue;
      this.folder(`sys/kernel/iommu_groups/${id}/devices`);
      this.write(`sys/kernel/iommu_groups/${id}/type`, `${groupType}\n`);
      this.write(
        `sys/kernel/iommu_groups/${id}/reserved_regions`,
        '0x00000000fee00000 0x00000000feefffff msi\n',
      );
      this.link(`${at}/iommu_group`, `sys/kernel/iommu_groups/${id}`);
      this.link(`sys/kernel/iommu_groups/${id}/devices/${device.name}`, at);
      this.link(`${at}/iommu`, 'sys/class/iommu/dmar0');
    }
  }
}

const MACHINE = `devices:
  - { address: "00:01.0", type: root-port, acs: none, secondary: "01", driver: pcieport }
  - { address: "00:02.0", type: root-port, acs: on, secondary: "02", driver: pcieport }
  - { address: "01:00.0", driver: nvme, class: "010802" }
  - { address: "02:00.0", class: "020000", sriov: { total: 2, enabled: 1 } }
`;

function model(): Machine {
  return loadMachine(MACHINE, 'model');
}

function deviceIn(machine: Machine, name: string): PciDevice {
  const device = machine.get(name);
  assert.ok(device);
  return device;
}

function partition(machine: Machine): string[] {
  return new GroupView(machine).groups.map(
    ({ id, members }) => `${id}: ${members.map(({ name }) => name).join(' ')}`,
  );
}

test('readHost: devices, bridges, drivers, virtual functions and groups are those of sysfs', (t) => {
  const host = new FakeHost(t);
  host.install(model());
  const machine = readHost(host.roots);
  assert.equal(machine.name, 'fake');
  assert.deepEqual(partition(machine), partition(model()));
  assert.equal(machine.get('0000:01:00.0')?.facts.driver, 'nvme');
  assert.equal(machine.get('0000:01:00.0')?.bus.self?.name, '0000:00:01.0');
  assert.equal(machine.get('0000:02:00.1')?.physfn?.name, '0000:02:00.0');
  assert.deepEqual(machine.get('0000:02:00.0')?.facts.bars, [
    { index: 0, size: 0x10_0000n, kind: 'memory32', prefetchable: false },
  ]);
  assert.deepEqual(machine.remarks, []);
  assert.deepEqual(new GroupView(machine).disagreements(), []);
});

test('readHost as an ordinary user: groups stand, reasons are missing, and it says so', (t) => {
  const host = new FakeHost(t);
  host.install(model(), { configBytes: 64 });
  const machine = readHost(host.roots);
  const view = new GroupView(machine);
  assert.equal(view.explained, false);
  assert.deepEqual(partition(machine), partition(model()));
  assert.match(
    machine.remarks[0] ?? '',
    /^capabilities of 5 of 5 devices: only root may read past the first 64 bytes/,
  );
});

test('captureText: a capture gives the same groups as the machine, twice over', (t) => {
  for (const configBytes of [64, 4096]) {
    const host = new FakeHost(t);
    host.install(model(), { configBytes });
    const options = { serials: false, kernel: '7.3', root: configBytes > 64 };
    const text = captureText(readHost(host.roots), options);
    const machine = loadMachine(text, 'capture');
    assert.equal(machine.source, 'capture');
    assert.deepEqual(partition(machine), partition(model()));
    assert.equal(captureText(machine, options), text);
  }
});

test('captureText leaves serial numbers out unless asked', (t) => {
  const serial = (keep: boolean): number | undefined => {
    const host = new FakeHost(t);
    const machine = model();
    const config = machine.get('0000:01:00.0')?.config;
    assert.ok(config);
    config.setU32(0x100, EXT_SERIAL_NUMBER | (1 << 16));
    config.setU32(0x104, 0x1234_5678);
    host.install(machine);
    const text = captureText(readHost(host.roots), { serials: keep, kernel: '7.3', root: true });
    assert.equal(text.includes('serial numbers of 1 devices: left out on purpose'), !keep);
    return loadMachine(text, 'capture').get('0000:01:00.0')?.config.u32(0x104);
  };
  assert.equal(serial(false), 0);
  assert.equal(serial(true), 0x1234_5678);
});

test('iommuStatus: judged by what sysfs shows', (t) => {
  const state = (options: Options, prepare?: (host: FakeHost) => void): string => {
    const host = new FakeHost(t);
    host.install(model(), options);
    prepare?.(host);
    return iommuStatus(readHost(host.roots)).state;
  };
  assert.equal(state({}), 'translated');
  assert.equal(state({ groupType: 'identity' }), 'passthrough');
  assert.equal(state({ groupType: '' }), 'unknown');
  assert.equal(
    state({}, (host) => {
      host.write('sys/kernel/iommu_groups/0/type', 'identity\n');
    }),
    'mixed',
  );
  assert.equal(state({ iommu: false }), 'none');
  assert.equal(
    state({ iommu: false }, (host) => {
      host.write('sys/firmware/acpi/tables/DMAR', '');
    }),
    'off',
  );
  // The command line is never looked at.
  assert.equal(
    state({ iommu: false }, (host) => {
      host.write('proc/cmdline', 'intel_iommu=on iommu=pt\n');
    }),
    'none',
  );
});

test('readHost: a group that the kernel formed otherwise is told', (t) => {
  const host = new FakeHost(t);
  const machine = model();
  host.install(machine);
  rmSync(host.path(`${host.pathOf(deviceIn(machine, '0000:01:00.0'))}/iommu_group`));
  host.folder('sys/kernel/iommu_groups/9/devices');
  host.link(
    `${host.pathOf(deviceIn(machine, '0000:01:00.0'))}/iommu_group`,
    'sys/kernel/iommu_groups/9',
  );
  const found = new GroupView(readHost(host.roots)).disagreements();
  assert.deepEqual(
    found.map(({ device }) => device.name),
    ['0000:00:01.0', '0000:01:00.0'],
  );
});

const NOTHING: NetworkState = { addresses: new Map(), defaultRoutes: new Set() };

function alone(name: string, group: number): Held {
  return { name, group, members: [name] };
}

test('HolderIndex: mounted disks, stacked ones too, the default route, and open VFIO files', (t) => {
  const host = new FakeHost(t);
  const machine = model();
  host.install(machine);
  const disk = `${host.pathOf(deviceIn(machine, '0000:01:00.0'))}/nvme/nvme0/nvme0n1`;
  host.write(`${disk}/dev`, '259:0\n');
  host.folder(`${disk}/holders/dm-0`);
  host.link('sys/class/block/nvme0n1', disk);
  host.write('sys/devices/virtual/block/dm-0/dev', '253:0\n');
  host.link('sys/class/block/dm-0', 'sys/devices/virtual/block/dm-0');
  host.write('proc/self/mountinfo', '29 1 253:0 / /data\\040x rw - ext4 /dev/dm-0 rw\n');
  const card = `${host.pathOf(deviceIn(machine, '0000:02:00.0'))}/net/eth0`;
  host.write(`${card}/operstate`, 'up\n');
  host.folder('sys/devices/virtual/net/br0');
  host.link(`${card}/master`, 'sys/devices/virtual/net/br0');
  host.link('sys/class/net/eth0', card);
  host.write(
    'proc/net/route',
    'Iface Destination Gateway Flags RefCnt Use Metric Mask\nbr0 00000000 0100000A 3 0 0 0 00000000\n',
  );
  host.write('proc/42/comm', 'qemu\n');
  host.write('proc/42/cmdline', 'qemu');
  host.write('dev/vfio/1', '');
  host.folder('proc/42/fd');
  symlinkSync(join(host.roots.dev, 'vfio/1'), host.path('proc/42/fd/7'));
  host.write('proc/43/cmdline', 'secret');

  const index = new HolderIndex(host.roots, NOTHING);
  assert.deepEqual(
    index
      .holdersOf(alone('0000:01:00.0', 0))
      .holders.map(({ sentence, vital }) => [sentence, vital]),
    [
      ['/dev/nvme0n1 is part of /dev/dm-0', true],
      ['/dev/dm-0 is mounted at /data x', true],
    ],
  );
  const user = index.holdersOf(alone('0000:02:00.0', 1));
  assert.deepEqual(
    user.holders.map(({ kind }) => kind),
    ['vfio-user', 'default-route'],
  );
  assert.match(user.holders[0]?.sentence ?? '', /vfio\/1 is open in qemu \(42\)$/);
  assert.equal(user.holders[1]?.sentence, 'the default route goes over br0 (eth0 is a port of it)');
  assert.equal(user.hiddenProcesses, 1);
});

test('bootFramebuffer: found by nesting, without addresses', () => {
  const iomem = [
    '00000000-00000000 : PCI Bus 0000:00',
    '  00000000-00000000 : 0000:00:02.0',
    '    00000000-00000000 : BOOTFB',
    '  00000000-00000000 : 0000:00:03.0',
    '00000000-00000000 : BOOTFB',
  ].join('\n');
  assert.equal(bootFramebuffer(iomem, '0000:00:02.0'), 'BOOTFB');
  assert.equal(bootFramebuffer(iomem, '0000:00:03.0'), undefined);
});

function sentencesOf(index: HolderIndex, held: Held): string[] {
  return index
    .holdersOf(held)
    .holders.map(({ sentence, vital }) => `${vital ? '! ' : ''}${sentence}`);
}

test('HolderIndex: a disk that is mounted in another mount name space, through a loop device, or as part of a btrfs', (t) => {
  const host = new FakeHost(t);
  const machine = model();
  host.install(machine);
  const disk = `${host.pathOf(deviceIn(machine, '0000:01:00.0'))}/nvme/nvme0/nvme0n1`;
  host.write(`${disk}/dev`, '259:0\n');
  host.link('sys/class/block/nvme0n1', disk);
  host.write('proc/self/mountinfo', '1 0 8:1 / / rw - ext4 /dev/sda1 rw\n');
  host.write('proc/77/comm', 'containerd\n');
  host.write('proc/77/mountinfo', '29 1 259:0 / /data rw - ext4 /dev/nvme0n1 rw\n');
  const found = (): string[] =>
    sentencesOf(new HolderIndex(host.roots, NOTHING), alone('0000:01:00.0', 0));
  assert.deepEqual(found(), [
    '! /dev/nvme0n1 is mounted at /data in the mount name space of containerd (77)',
  ]);

  host.write('proc/77/mountinfo', '29 1 7:0 / /data rw - ext4 /dev/loop0 rw\n');
  host.write('sys/devices/virtual/block/loop0/dev', '7:0\n');
  host.write('sys/devices/virtual/block/loop0/loop/backing_file', `${host.roots.dev}/nvme0n1\n`);
  host.link('sys/class/block/loop0', 'sys/devices/virtual/block/loop0');
  assert.deepEqual(found(), [
    '! /dev/nvme0n1 is part of /dev/loop0',
    '! /dev/loop0 is mounted at /data in the mount name space of containerd (77)',
  ]);

  host.write('proc/77/mountinfo', '');
  host.write('proc/self/mountinfo', `9 1 0:40 / /pool rw - btrfs ${host.roots.dev}/sdb rw\n`);
  host.folder('sys/fs/btrfs/uuid/devices/sdb');
  host.folder('sys/fs/btrfs/uuid/devices/nvme0n1');
  assert.deepEqual(found(), [
    '! /dev/nvme0n1 is mounted at /pool',
    '/dev/nvme0n1 is part of /dev/loop0',
  ]);
});

test('HolderIndex: what is built on an interface counts, and one that is not here is somewhere else', (t) => {
  const host = new FakeHost(t);
  const machine = model();
  host.install(machine);
  const at = host.pathOf(deviceIn(machine, '0000:02:00.0'));
  host.folder(`${at}/net`);
  const found = (state: Partial<NetworkState> = {}): string[] =>
    sentencesOf(new HolderIndex(host.roots, { ...NOTHING, ...state }), alone('0000:02:00.0', 1));
  assert.match(found()[0] ?? '', /^! .*it is in another network name space$/);

  host.write(`${at}/net/eth0/operstate`, 'up\n');
  host.link('sys/class/net/eth0', `${at}/net/eth0`);
  assert.deepEqual(found(), ['network interface eth0 is up']);
  host.folder('sys/devices/virtual/net/vlan7');
  host.link('sys/class/net/vlan7', 'sys/devices/virtual/net/vlan7');
  host.link(`${at}/net/eth0/upper_vlan7`, 'sys/devices/virtual/net/vlan7');
  assert.deepEqual(found({ addresses: new Map([['vlan7', ['10.0.0.5']]]) }), [
    '! network interface vlan7 has 10.0.0.5 (eth0 is below it: eth0)',
  ]);
  assert.deepEqual(found({ defaultRoutes: new Set(['vlan7']) }), [
    '! the default route goes over vlan7 (eth0 is a port of it)',
  ]);
  host.write(
    'proc/net/route',
    'Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 00000080 0100000A 3 0 0 0 00000080\n',
  );
  assert.deepEqual(found(), ['! the default route goes over eth0'], 'half of everything, twice');
});

test('HolderIndex: a VFIO device that came out of a group is known by its fdinfo, also of a sibling', (t) => {
  const host = new FakeHost(t);
  const machine = model();
  host.install(machine);
  const at = host.pathOf(deviceIn(machine, '0000:01:00.0'));
  host.write('proc/42/comm', 'qemu\n');
  host.folder('proc/42/fd');
  symlinkSync('anon_inode:[vfio-device]', host.path('proc/42/fd/9'));
  host.write('proc/42/fdinfo/9', `pos:\t0\nvfio-device-syspath: /${at}\n`);
  const members = ['0000:00:01.0', '0000:01:00.0'];
  const index = new HolderIndex(host.roots, NOTHING);
  assert.deepEqual(sentencesOf(index, { name: '0000:00:01.0', group: 0, members }), [
    'a VFIO device (0000:01:00.0) is open in qemu (42)',
  ]);
  assert.deepEqual(sentencesOf(index, alone('0000:02:00.0', 1)), []);

  host.write('proc/42/fdinfo/9', 'pos:\t0\n');
  const older = new HolderIndex(host.roots, NOTHING);
  assert.deepEqual(sentencesOf(older, alone('0000:01:00.0', 0)), [], 'it is on nvme');
  rmSync(host.path(`${at}/driver`));
  host.link(`${at}/driver`, 'sys/bus/pci/drivers/vfio-pci');
  assert.deepEqual(sentencesOf(older, alone('0000:01:00.0', 0)), [
    'qemu (42) has a VFIO device open, and this kernel does not say which one',
  ]);
});

test('remapsInterrupts: judged by the chips of PCI interrupts', () => {
  const line = (chip: string): string =>
    ` 24:          2          0  ${chip}   0-edge      nvme0q0\n`;
  assert.equal(remapsInterrupts(line('IR-PCI-MSIX-0000:00:03.0')), true);
  assert.equal(remapsInterrupts(line('IR-PCI-MSI') + line('PCI-MSIX-0000:00:03.0')), false);
  assert.equal(remapsInterrupts(line('PCI-MSI')), false);
  assert.equal(remapsInterrupts(line('ITS-PCI-MSIX-0000:01:00.0')), true);
  assert.equal(remapsInterrupts(line('IO-APIC')), true, 'nothing is known');
  assert.equal(remapsInterrupts(''), true);
});

test('readHost: without remapping nothing is assigned, unless the modules allow it; groups of VFIO itself are none', (t) => {
  const host = new FakeHost(t);
  host.install(model());
  host.write('proc/interrupts', ' 24:   2  PCI-MSIX-0000:01:00.0   0-edge   nvme0q0\n');
  host.write('sys/module/iommufd/parameters/allow_unsafe_interrupts', 'Y\n');
  const machine = readHost(host.roots);
  assert.equal(machine.iommus[0]?.interruptRemapping, false);
  assert.deepEqual(machine.unsafeInterrupts, { type1: false, iommufd: true });

  const made = new FakeHost(t);
  made.install(model(), { groupType: '' });
  for (const { id } of new GroupView(model()).groups) {
    made.write(`sys/kernel/iommu_groups/${id}/name`, 'vfio-noiommu\n');
  }
  for (const { name } of model().devices) {
    rmSync(made.path(`${made.pathOf(deviceIn(model(), name))}/iommu`));
  }
  made.write('sys/module/vfio/parameters/enable_unsafe_noiommu_mode', 'Y\n');
  const noiommu = readHost(made.roots);
  assert.deepEqual(noiommu.iommus, [], 'an instance that no device is linked to does not count');
  assert.equal(new GroupView(noiommu).groups.length, 0);
  const { answer, obstacles } = assess(noiommu, '0000:01:00.0');
  assert.equal(answer, 'no');
  assert.match(obstacles[0]?.step ?? '', /groups are made up by VFIO \(noiommu mode\)/);
});
