/** A host's sysfs, as a tree of files made for the test: what is read, captured, and who holds a device. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import test, { type TestContext } from 'node:test';
import { GroupView } from '../iommu/group-view.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import { iommuStatus } from '../machine/iommu-status.ts';
import type { Machine } from '../machine/machine.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { EXT_SERIAL_NUMBER } from '../machine/pci/capabilities.ts';
import { captureText } from './capture.ts';
import type { HostRoots } from './files.ts';
import { HolderIndex, bootFramebuffer } from './holders.ts';
import { readHost } from './read-host.ts';

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

  const index = new HolderIndex(host.roots);
  assert.deepEqual(
    index.holdersOf('0000:01:00.0', 0).holders.map(({ sentence, vital }) => [sentence, vital]),
    [
      ['/dev/nvme0n1 is part of /dev/dm-0', true],
      ['/dev/dm-0 is mounted at /data x', true],
    ],
  );
  const user = index.holdersOf('0000:02:00.0', 1);
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
