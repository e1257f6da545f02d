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
