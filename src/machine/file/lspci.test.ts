/** What lspci prints as a machine: bytes where they were dumped, words otherwise, and damage. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { InputError } from '../../base/input-error.ts';
import { acsRegisters } from '../pci/acs.ts';
import { PORT_TYPES } from '../pci/capabilities.ts';
import type { Machine } from '../machine.ts';
import type { ConfigSpace } from '../pci/config-space.ts';
import { isLspci, lspciAsFile } from './lspci.ts';
import { readMachineFile } from './read.ts';

function machineOf(text: string): Machine {
  assert.ok(isLspci(text));
  const { machine, problems } = readMachineFile(lspciAsFile(text, 'lspci'), 'lspci');
  problems.throwIfAny();
  return machine;
}

const VERBOSE = `00:00.0 Host bridge [0600]: Intel Corporation Device [8086:3ec2] (rev 07)
	Control: I/O- Mem+
	Capabilities: [e0] Vendor Specific Information: Len=10 <?>

00:1c.0 PCI bridge [0604]: Intel Corporation Root Port [8086:a338] (rev f0) (prog-if 00 [Normal decode])
	Bus: primary=00, secondary=01, subordinate=02, sec-latency=0
	Capabilities: [40] Express (v2) Root Port (Slot+), MSI 00
	Capabilities: [140 v1] Access Control Services
		ACSCap:	SrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
		ACSCtl:	SrcValid+ TransBlk- ReqRedir- CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-
	Kernel driver in use: pcieport

01:00.0 Ethernet controller [0200]: Intel Corporation I350 [8086:1521] (rev 01)
	IOMMU group: 12
	Capabilities: [a0] Express (v2) Endpoint, MSI 00
	Capabilities: [160 v1] Single Root I/O Virtualization (SR-IOV)
		Initial VFs: 8, Total VFs: 8, Number of VFs: 0, Function Dependency Link: 00
		VF offset: 384, stride: 4, Device ID: 1520
	Kernel driver in use: igb
`;

test('lspci -vvv: types, buses, ACS, SR-IOV, drivers and groups are those of its words', () => {
  const machine = machineOf(VERBOSE);
  const [host, port, card] = [...machine.devices];
  assert.ok(host && port && card);
  assert.equal(host.portType, undefined);
  assert.equal(port.portType, PORT_TYPES['root-port']);
  assert.equal(card.bus.self, port);
  const { offered, control } = acsRegisters(port) ?? {};
  assert.deepEqual([offered, control], [0x1f, 0x19]);
  assert.equal(acsRegisters(host), undefined);
  assert.deepEqual([card.facts.driver, card.facts.recordedGroup], ['igb', 12]);
  assert.notEqual(card.sriovOffset, 0);
  assert.equal(machine.source, 'capture', 'its groups are those of a kernel');
  assert.equal(machine.iommuOf(port), undefined, 'it has no group');
});

const HEADER =
  '00: 86 80 38 a3 07 04 10 00 f0 00 04 06 10 00 81 00\n10: 00 00 00 00 00 00 00 00 00 01 02 00 00 00 00 00';

test('lspci -x: bytes count, missing ones are zero, and of two bridges that claim a bus the first has it', () => {
  const machine = machineOf(
    `00:1c.0 PCI bridge: X\n${HEADER}\n\n00:1d.0 PCI bridge: X\n${HEADER}\n\n01:00.0 Class 0200: X\n00: 34 12\n`,
  );
  const [first, second, card] = [...machine.devices];
  assert.ok(first && second && card);
  assert.equal(card.bus.self, first);
  assert.equal(second.subordinate, undefined);
  assert.deepEqual([card.vendor, card.config.bytes.length], [0x1234, 64]);
});

test('lspci -nn does not say which bus is behind a bridge, and that is said', () => {
  const text = '00:1c.0 PCI bridge [0604]: X [8086:a338]\n01:00.0 Network [0200]: X [8086:1521]\n';
  assert.throws(
    () => lspciAsFile(text, 'list.txt'),
    (error) =>
      error instanceof InputError &&
      /list\.txt: .* bridge 0000:00:1c\.0; expected .* -vvv/.test(error.message),
  );
});

test('isLspci: not a machine file, a recording or a log', () => {
  for (const text of [
    'devices:\n  - { address: "00:02.0" }\n',
    'dev 0000:00:02.0 path=x',
    '',
    '[0.1] pci 0000:00:00.0: x',
  ]) {
    assert.equal(isLspci(text), false, text);
  }
});

/** Lines as `lspci -xxxx` prints them. */
function dump(config: ConfigSpace): string {
  const lines: string[] = [];
  for (let at = 0; at < config.bytes.length; at += 16) {
    const digits = [...config.bytes.subarray(at, at + 16)].map((byte) =>
      byte.toString(16).padStart(2, '0'),
    );
    lines.push(`${at.toString(16).padStart(2, '0')}: ${digits.join(' ')}`);
  }
  return lines.join('\n');
}

test('lspci -xxxx: virtual functions belong to the physical one whose registers place them', () => {
  const text =
    'devices:\n  - { address: "00:02.0", ids: "8086:10c9", sriov: { total: 2, enabled: 2, offset: 8 } }\n';
  const { machine } = readMachineFile(text, 'm');
  const blocks = [...machine.devices].map(
    ({ name, config }) => `${name.slice(5)} Class: X\n${dump(config)}\n`,
  );
  const again = machineOf(blocks.join('\n'));
  assert.deepEqual(
    [...again.devices].map(({ name, physfn }) => [name, physfn?.name]),
    [
      ['0000:00:02.0', undefined],
      ['0000:00:03.0', '0000:00:02.0'],
      ['0000:00:03.1', '0000:00:02.0'],
    ],
  );
});
