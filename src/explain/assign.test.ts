/** Advice: what is to be done, in which order, and what is never printed. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { loadMachine } from '../iommu/load-machine.ts';
import type { Machine } from '../machine/machine.ts';
import { assess, commandsFor, type Assignability } from './assign.ts';

const PORT = 'type: root-port, driver: pcieport';

function machine(devices: string, head = ''): Machine {
  return loadMachine(`${head}devices:\n${devices}`, 'test');
}

function assessed(devices: string, name: string, head = ''): Assignability {
  return assess(machine(devices, head), `0000:${name}`);
}

const refusedCodes = ({ obstacles }: Assignability): (string | undefined)[] =>
  obstacles.map(({ code }) => code);

test('a device without driver is not yet assignable: no file exists, and vfio-pci is what it takes', () => {
  const found = assessed('  - { address: "00:02.0", type: pci }\n', '00:02.0');
  assert.equal(found.answer, 'not-yet');
  assert.deepEqual(refusedCodes(found), ['ENOENT']);
  assert.deepEqual(commandsFor(found), [
    'echo vfio-pci > /sys/bus/pci/devices/0000:00:02.0/driver_override',
    'echo 0000:00:02.0 > /sys/bus/pci/drivers_probe',
  ]);
});

test('virtual functions go before the driver of their physical function does', () => {
  const found = assessed(
    `  - { address: "00:01.0", ${PORT}, secondary: "01" }
  - { address: "01:00.0", driver: igb, sriov: { total: 2, enabled: 2, offset: 8 } }
`,
    '01:00.0',
  );
  assert.equal(found.answer, 'not-yet');
  assert.equal(
    commandsFor(found)[0],
    'echo 0 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs',
    'sriov_numvfs cannot be written once the driver is gone',
  );
});

test('a virtual function is not freed at the price of its own physical function', () => {
  const found = assessed(
    `  - { address: "00:01.0", ${PORT}, acs: none, secondary: "01" }
  - { address: "01:00.0", driver: ice, sriov: { total: 2, enabled: 2, offset: 1 } }
`,
    '01:00.1',
  );
  assert.equal(found.answer, 'no');
  assert.deepEqual(
    found.obstacles.map(({ rule }) => rule),
    ['refused', 'harm'],
  );
  assert.deepEqual(commandsFor(found), []);
});

test('a virtual function whose physical function is on vfio-pci takes a token; the physical function does not', () => {
  const devices = `  - { address: "00:01.0", ${PORT}, secondary: "01" }
  - { address: "01:00.0", driver: vfio-pci, sriov: { total: 2, offset: 8 } }
  - { address: "01:01.0", driver: vfio-pci, physfn: "01:00.0" }
`;
  const vf = assessed(devices, '01:01.0');
  assert.deepEqual([vf.answer, refusedCodes(vf)], ['not-yet', ['EACCES']]);
  assert.match(vf.obstacles[0]?.step ?? '', /VF token that the user of 0000:01:00\.0 sets/);
  assert.equal(assessed(devices, '01:00.0').answer, 'yes');
});

test('without interrupt remapping nothing is assigned, unless the module overrides it', () => {
  const devices = '  - { address: "00:02.0", type: pci, driver: vfio-pci }\n';
  const iommu = 'iommu: { interrupt-remapping: false }\n';
  const refused = assessed(devices, '00:02.0', iommu);
  assert.deepEqual([refused.answer, refusedCodes(refused)], ['no', ['EPERM']]);
  const boot = 'boot: { unsafe-interrupts: [iommufd] }\n';
  const allowed = assessed(devices, '00:02.0', boot + iommu);
  assert.equal(allowed.answer, 'yes');
  assert.deepEqual(
    allowed.trials.map(({ refusal }) => refusal?.call),
    [undefined, 'VFIO_SET_IOMMU'],
  );
});

test('a companion that holds something vital leaves no commands, and the machine is as it was', () => {
  const shared = machine(`  - { address: "00:1f.0", type: pci, driver: nvme }
  - { address: "00:1f.3", type: pci, driver: vfio-pci }
`);
  const guards = (touched: readonly string[]) =>
    touched.includes('0000:00:1f.0')
      ? [{ rule: 'vital' as const, sentence: 'it is mounted', step: undefined }]
      : [];
  const found = assess(shared, '0000:00:1f.3', { guards });
  assert.equal(found.answer, 'not-yet');
  assert.equal(found.obstacles[0]?.rule, 'vital', 'the worst comes first');
  assert.deepEqual(commandsFor(found), []);
  assert.equal(shared.get('0000:00:1f.0')?.facts.driver, 'nvme');
});

test('profile singleton: a shared group is assigned through the group API alone', () => {
  const shared = machine(`  - { address: "00:1f.0", type: pci }
  - { address: "00:1f.3", type: pci, driver: vfio-pci }
`);
  const { answer, trials } = assess(shared, '0000:00:1f.3', { profile: 'singleton' });
  assert.equal(answer, 'yes');
  assert.deepEqual(
    trials.map(({ refusal }) => refusal?.code),
    ['ENOENT', undefined],
  );
});

test('no-iommu mode is a no, bound or not: nothing confines the device', () => {
  const head = 'iommu: none\nboot: { noiommu: true }\n';
  for (const driver of ['vfio-pci', 'nvme']) {
    const devices = `  - { address: "00:02.0", type: pci, driver: ${driver} }\n`;
    const found = assessed(devices, '00:02.0', head);
    assert.equal(found.answer, 'no');
    assert.deepEqual(
      found.obstacles.map(({ rule }) => rule),
      ['no-iommu'],
    );
    assert.deepEqual(commandsFor(found), []);
  }
});
