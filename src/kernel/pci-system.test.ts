/** Devices that come and go, with their drivers and groups. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { bareIommu } from '../iommu/hardware/bare.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import type { PciSystem } from './pci-system.ts';
import { pciSystem } from './system.ts';

const PORT = '0000:00:01.0';
const CARD = '0000:01:00.0';

function system(card: string): PciSystem {
  const text = `kind: pc
name: test
devices:
  - address: ${PORT}
    type: root-port
    secondary: 0000:01
    driver: pcieport
  - address: ${CARD}
    ids: 1234:0001
${card}
`;
  return pciSystem(loadMachine(text, 'test'), { ops: bareIommu() }).pci;
}

const nothing = (): void => undefined;

test('a machine boots with the drivers that it names; one that is not described does kernel DMA', () => {
  const pci = system('    driver: snd_hda_intel');
  assert.equal(pci.core.device(PORT)?.driver?.name, 'pcieport');
  assert.equal(pci.core.device(CARD)?.driver?.name, 'snd_hda_intel');
  assert.equal(pci.core.device(CARD)?.iommu.group?.ownerCount, 1);
});

test('remove takes what is behind a bridge first; rescan finds both again, unplug is for good', () => {
  const pci = system('    driver: snd_hda_intel');
  const heard: string[] = [];
  pci.core.listen((event, { name }) => {
    if (event === 'removed') heard.push(name);
  });
  pci.remove(PORT, nothing);
  assert.deepEqual(heard, [CARD, PORT]);
  assert.deepEqual(pci.groups.list(), []);
  pci.rescan();
  assert.equal(pci.core.device(CARD)?.driver?.name, 'snd_hda_intel');
  pci.unplug(CARD, nothing);
  pci.rescan();
  assert.equal(pci.core.device(CARD), undefined);
});

test('virtual functions of a function in user hands are meant for user space, and go when switched off', () => {
  const pci = system(
    '    driver: vfio-pci\n    driver-override: vfio-pci\n    sriov: { total: 2 }',
  );
  pci.setVirtualFunctions(CARD, 2);
  const vfs = pci.core.devices.filter(({ name }) => name !== CARD && name !== PORT);
  assert.equal(vfs.length, 2);
  assert.deepEqual(
    vfs.map(({ override, driver }) => [override, driver?.name]),
    [
      ['vfio-pci', 'vfio-pci'],
      ['vfio-pci', 'vfio-pci'],
    ],
  );
  pci.setVirtualFunctions(CARD, 0);
  assert.equal(pci.core.devices.length, 2);
  assert.equal(pci.groups.list().length, 2);
});

const CAPTURE = `capture: { kernel: '7.3' }
devices:
  - { address: "00:01.0", type: root-port, acs: none, secondary: "01", group: 4 }
  - { address: "01:00.0", driver: vfio-pci, group: 7 }
  - { address: "01:00.1", driver: vfio-pci, group: 9, sriov: { total: 1, offset: 1 } }
groups:
  - { id: 4 }
  - { id: 7, reserved: [{ start: 0x1000, last: 0x1fff, type: direct }] }
  - { id: 9 }
  - { id: 0, others: [PNP0A08] }
`;

test('a capture boots with the groups of its kernel, whatever the rules say; what comes later follows the rules', () => {
  const { pci, groups } = pciSystem(loadMachine(CAPTURE, 'capture'));
  const shown = (): string[] =>
    groups.list().map(({ id, members }) => `${id}: ${members.map(({ name }) => name).join(' ')}`);
  assert.deepEqual(shown(), ['4: 0000:00:01.0', '7: 0000:01:00.0', '9: 0000:01:00.1']);
  pci.setVirtualFunctions('0000:01:00.1', 1);
  assert.deepEqual(shown()[0], '4: 0000:00:01.0 0000:01:00.2', 'no ACS above it');
});

test('a region that a kernel listed for a group counts for its members', () => {
  const { pci } = pciSystem(loadMachine(CAPTURE, 'capture'));
  const regions = (name: string): number | undefined =>
    pci.core.device(name)?.iommu.reservedRegions.filter(({ type }) => type === 'direct').length;
  assert.equal(regions('0000:01:00.0'), 1);
  assert.equal(regions('0000:01:00.1'), 0);
});

test('several IOMMUs: groups are numbered IOMMU by IOMMU, as Linux registers them', () => {
  const text = `iommu: [ { name: dmar0 }, { name: dmar1 } ]
devices:
  - { address: "00:00.0", type: pci, iommu: dmar1 }
  - { address: "00:02.0", type: pci, iommu: dmar0 }
  - { address: "00:03.0", type: pci, iommu: dmar1 }
`;
  const { groups } = pciSystem(loadMachine(text, 'two'));
  assert.deepEqual(
    groups.list().map(({ members }) => members[0]?.name),
    ['0000:00:02.0', '0000:00:00.0', '0000:00:03.0'],
  );
});

test('passed through: every group has the identity domain as its default, and a recorded type counts before it', () => {
  const types = (text: string): (string | undefined)[] =>
    pciSystem(loadMachine(text, 'test'))
      .groups.list()
      .map(({ defaultDomain }) => defaultDomain?.kind);
  const devices =
    'devices:\n  - { address: "00:02.0", type: pci, group: 0 }\n  - { address: "00:03.0", type: pci, group: 1 }\n';
  assert.deepEqual(types(devices), ['dma-fq', 'dma-fq']);
  assert.deepEqual(types(`iommu: { mode: passthrough }\n${devices}`), ['identity', 'identity']);
  const recorded = `capture: { kernel: '7.3' }\n${devices}groups: [{ id: 0, type: identity }, { id: 1, type: DMA }]\n`;
  assert.deepEqual(types(recorded), ['identity', 'dma']);
});

test('vfio-pci does not bind a physical function with virtual functions enabled: EBUSY', () => {
  const { pci } = pciSystem(
    loadMachine(
      'devices:\n  - { address: "00:02.0", type: rc-endpoint, sriov: { total: 1, enabled: 1 } }\n',
      'test',
    ),
  );
  const device = pci.core.device('0000:00:02.0');
  assert.ok(device);
  pci.core.setOverride(device, 'vfio-pci');
  const bind = (): string | undefined => {
    let code: string | undefined;
    pci.core.bind('vfio-pci', device.name, (error) => {
      code = error?.code;
    });
    return code;
  };
  assert.equal(bind(), 'EBUSY');
  pci.setVirtualFunctions(device.name, 0);
  assert.equal(bind(), undefined);
});

test('the kind of an IOMMU decides what it reserves and whether it can enforce coherency', () => {
  const behind = (kind: string): unknown[] => {
    const text = `iommu: { kind: ${kind} }\ndevices:\n  - { address: "00:02.0", type: pci }\n`;
    const device = pciSystem(loadMachine(text, kind)).pci.core.device('0000:00:02.0');
    assert.ok(device);
    const { ops, reservedRegions } = device.iommu;
    const enforces = ops.capable(device.iommu, 'enforce-cache-coherency');
    return [enforces, ...reservedRegions.map(({ start, type }) => `${type} ${start.toString(16)}`)];
  };
  assert.deepEqual(behind('amd'), [true, 'msi fee00000']);
  assert.deepEqual(behind('smmuv3'), [false, 'sw-msi 8000000']);
  assert.deepEqual(behind('other'), [false]);
});
