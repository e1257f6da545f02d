/** Kernel logs as machines; lines as Linux 7.3 and older kernels print them. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { PORT_TYPES } from '../pci/capabilities.ts';
import type { Machine } from '../machine.ts';
import { isKernelLog, kernelLogAsFile } from './kernel-log.ts';
import { readMachineFile } from './read.ts';

function machineOf(text: string): Machine {
  assert.ok(isKernelLog(text));
  const { machine, problems } = readMachineFile(kernelLogAsFile(text, 'log'), 'log');
  problems.throwIfAny();
  return machine;
}

const NEW = `[    0.000000] Linux version 7.3.4-amd64 (debian-kernel@lists.debian.org)
[    0.170000] iommu: Default domain type: Passthrough (set via kernel command line)
[    0.301000] pci 0000:00:00.0: [1022:1480] type 00 class 0x060000 conventional PCI endpoint
[    0.302000] pci 0000:00:01.1: [1022:1483] type 01 class 0x060400 PCIe Root Port
[    0.302100] pci 0000:00:01.1: PCI bridge to [bus 01]
[    0.303000] pci 0000:01:00.0: [144d:a808] type 00 class 0x010802 PCIe Endpoint
[    0.400000] pci 0000:00:00.2: AMD-Vi: IOMMU performance counters supported
[    0.401000] pci 0000:00:01.1: Adding to iommu group 3
[    0.402000] pci 0000:01:00.0: Adding to iommu group 3
[    0.900000] nvme 0000:01:00.0: platform quirk: setting simple suspend
`;

test('a log of a new kernel: types, buses, groups, drivers, and what the IOMMU does', () => {
  const machine = machineOf(NEW);
  const [host, port, disk] = [...machine.devices];
  assert.ok(host && port && disk);
  assert.equal(port.portType, PORT_TYPES['root-port']);
  assert.equal(disk.bus.self, port);
  assert.deepEqual(
    [disk.classCode, disk.facts.driver, disk.facts.recordedGroup],
    [0x010802, 'nvme', 3],
  );
  assert.equal(port.facts.driver, undefined);
  assert.equal(machine.iommuOf(host), undefined, 'no group was formed for it');
  assert.deepEqual(
    machine.iommus.map(({ kind, mode }) => [kind, mode]),
    [['amd', 'passthrough']],
  );
  assert.equal(port.acsOffset, 0, 'it shares its group with what is behind it');
  assert.equal(machine.source, 'capture');
});

test('a log of an old kernel, through syslog: types follow place and class', () => {
  const machine =
    machineOf(`Jan  1 00:00:01 box kernel: [    0.3] pci 0000:00:1c.0: [8086:a338] type 01 class 0x060400
Jan  1 00:00:01 box kernel: [    0.3] pci 0000:00:1c.0: PCI bridge to [bus 02]
Jan  1 00:00:01 box kernel: [    0.3] pci 0000:02:00.0: [8086:1521] type 00 class 0x020000
Jan  1 00:00:02 box kernel: [    0.9] pcieport 0000:00:1c.0: AER: enabled with IRQ 122
`);
  const [port, card] = [...machine.devices];
  assert.ok(port && card);
  assert.deepEqual([port.portType, port.facts.driver], [PORT_TYPES['root-port'], 'pcieport']);
  assert.equal(card.bus.self, port);
  assert.equal(machine.source, 'file');
});
