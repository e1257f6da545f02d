/** What can happen to a machine: plugging, unplugging, removal and rescan, virtual functions; and who hears of it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import { InputError } from '../base/input-error.ts';
import { readMachineFile } from './file/read.ts';
import type { Machine } from './machine.ts';
import { parseAddress } from './pci/address.ts';
import { EXT_SRIOV, SRIOV } from './pci/capabilities.ts';
import { buildConfig } from './pci/config-builder.ts';

const SWITCH = `devices:
  - { address: "00:01.0", type: root-port, secondary: "01" }
  - { address: "01:00.0", type: upstream-port, secondary: "02" }
  - { address: "02:00.0", type: downstream-port, secondary: "03" }
  - { address: "02:01.0", type: downstream-port, secondary: "04" }
  - { address: "03:00.0", ids: "8086:10c9", sriov: { total: 4, offset: 128, stride: 2, device: "10ca" } }
`;

function machineOf(text: string): Machine {
  return readMachineFile(text, 'test').machine;
}

function namesOf(machine: Machine): string[] {
  return [...machine.devices].map(({ name }) => name.slice('0000:'.length));
}

function card(address: string, parent: string): Parameters<Machine['add']>[0] {
  const place = parseAddress(address);
  assert.ok(place);
  return {
    address: place,
    parent: parseAddress(parent),
    config: buildConfig({ vendor: 0x1af4, device: 0x1041, classCode: 0x020000, portType: 0 }),
  };
}

function heard(machine: Machine): string[] {
  const events: string[] = [];
  machine.subscribe({
    added: ({ name }) => events.push(`+${name.slice('0000:'.length)}`),
    removed: ({ name }) => events.push(`-${name.slice('0000:'.length)}`),
  });
  return events;
}

test('Machine.add refuses a second device at an address, and one behind nothing', () => {
  const machine = machineOf(SWITCH);
  assert.throws(() => machine.add(card('01:00.0', '00:01.0')), InputError);
  assert.throws(() => machine.add(card('09:00.0', '08:00.0')), InputError);
});

test('Machine.plug: a card appears on the empty bus of a port, and listeners hear of it', () => {
  const machine = machineOf(SWITCH);
  const events = heard(machine);
  machine.plug([card('04:00.0', '02:01.0')]);
  assert.equal(machine.get('0000:04:00.0')?.bus.self?.name, '0000:02:01.0');
  assert.deepEqual(events, ['+04:00.0']);
});

test('Machine.unplug: everything behind goes first, and rescan finds nothing', () => {
  const machine = machineOf(SWITCH);
  machine.setVirtualFunctions('0000:03:00.0', 1);
  const events = heard(machine);
  machine.unplug('0000:01:00.0');
  assert.deepEqual(events, ['-02:01.0', '-03:10.0', '-03:00.0', '-02:00.0', '-01:00.0']);
  assert.deepEqual(namesOf(machine), ['00:01.0']);
  assert.deepEqual(machine.rescan(), []);
  assert.throws(
    () => {
      machine.unplug('0000:01:00.0');
    },
    { code: 'ENODEV' },
  );
});

test('Machine.remove and rescan: what is still in its slot comes back, virtual functions do not', () => {
  const machine = machineOf(SWITCH);
  const before = namesOf(machine);
  machine.setVirtualFunctions('0000:03:00.0', 2);
  machine.remove('0000:01:00.0');
  assert.deepEqual(namesOf(machine), ['00:01.0']);
  assert.equal(machine.rescan().length, 4);
  assert.deepEqual(namesOf(machine), ['00:01.0', '01:00.0', '02:00.0', '02:01.0', '03:00.0']);
  assert.deepEqual([...namesOf(machine)].sort(), [...before].sort());
});

test('Machine.setVirtualFunctions: addresses by offset and stride, ids by the physical function', () => {
  const machine = machineOf(SWITCH);
  const found = machine.setVirtualFunctions('0000:03:00.0', 3);
  assert.deepEqual(
    found.map(({ name }) => name),
    ['0000:03:10.0', '0000:03:10.2', '0000:03:10.4'],
  );
  const [first] = found;
  assert.ok(first);
  assert.equal(first.vendor, 0x8086);
  assert.equal(first.device, 0x10ca);
  assert.equal(first.multifunction, false);
  assert.equal(first.physfn?.name, '0000:03:00.0');
  const physfn = machine.get('0000:03:00.0');
  assert.ok(physfn);
  assert.equal(
    physfn.config.u16(physfn.config.findExtendedCapability(EXT_SRIOV) + SRIOV.NUM_VFS),
    3,
  );
});

test('Machine.setVirtualFunctions refuses what Linux refuses', () => {
  const machine = machineOf(SWITCH);
  const code = (expected: string) => (error: unknown) =>
    error instanceof Errno && error.code === expected;
  assert.throws(() => machine.setVirtualFunctions('0000:00:01.0', 1), code('ENOENT'));
  assert.throws(() => machine.setVirtualFunctions('0000:03:00.0', 5), code('ERANGE'));
  machine.setVirtualFunctions('0000:03:00.0', 1);
  assert.throws(() => machine.setVirtualFunctions('0000:03:00.0', 2), code('EBUSY'));
  machine.setVirtualFunctions('0000:03:00.0', 0);
  assert.equal(machine.setVirtualFunctions('0000:03:00.0', 2).length, 2);
});

test('Machine: ACS that is offered is on once Linux found the device; as-is leaves it', () => {
  const control = (text: string): number => {
    const device = machineOf(text).get('0000:00:01.0');
    assert.ok(device);
    return device.config.u16(device.acsOffset + 6);
  };
  const port =
    'devices:\n  - { address: "00:01.0", type: root-port, secondary: "01", acs: offered }\n';
  assert.equal(control(port), 0x1d);
  assert.equal(control(`boot: { acs: as-is }\n${port}`), 0);
  assert.equal(control(`iommu: none\n${port}`), 0);
});

test('Machine: boot options change the ACS of the devices that they name', () => {
  const control = (boot: string): number => {
    const machine = machineOf(
      `boot: { ${boot} }\ndevices:\n  - { address: "00:01.0", type: root-port, secondary: "01", acs: on }\n`,
    );
    const device = machine.get('0000:00:01.0');
    assert.ok(device);
    return device.config.u16(device.acsOffset + 6);
  };
  // RR, CR and EC are cleared in what firmware had set (0x1d).
  assert.equal(control('disable-acs-redir: 00:01.0'), 0x11);
  assert.equal(control('disable-acs-redir: "pci:1b36:000c"'), 0x11);
  assert.equal(control('disable-acs-redir: "pci:0:0"'), 0x11);
  assert.equal(control('disable-acs-redir: 00:02.0'), 0x1d);
  assert.equal(control('config-acs: x0xxx10@00:01.0'), 0x1e);
});
