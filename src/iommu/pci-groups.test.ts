/**
 * The test vectors of the specification (semantics S1.5), by their numbers. "ok" is a device that passes the ACS predicate,
 * "no" one that does not.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import { formGroups } from './group-builder.ts';
import { loadMachine } from './load-machine.ts';

const RP_OK = 'type: root-port, acs: on';
const RP_NO = 'type: root-port, acs: none';
const DOWN_OK = 'type: downstream-port, acs: on';
const DOWN_NO = 'type: downstream-port, acs: none';
const UP = 'type: upstream-port';
const EP_OK = 'type: endpoint, acs: on';
const EP_NO = 'type: endpoint, acs: none';
const MULTI = 'multifunction: true';

/** Short names of vectors, each with address and properties. */
type Devices = Readonly<Record<string, readonly [address: string, properties: string]>>;

/** The groups, each as sorted names in braces, in the order of their numbers. */
function groupsOf(devices: Devices, profile: 'linux' | 'strict-acs' = 'linux'): string {
  const lines = Object.values(devices).map(
    ([address, properties]) => `  - { address: "${address}", ${properties} }`,
  );
  const machine = loadMachine(`devices:\n${lines.join('\n')}\n`, 'vector');
  const names = new Map(Object.entries(devices).map(([name, [at]]) => [`0000:${at}`, name]));
  return formGroups(machine, { strictAcs: profile === 'strict-acs' })
    .groups.map(({ members }) => `{${members.map((member) => names.get(member.name)).join(' ')}}`)
    .join(' ');
}

type Vector = {
  readonly number: number;
  readonly what: string;
  readonly devices: Devices;
  readonly groups: string;
};

const SWITCH_OK: Devices = {
  rp: ['00:01.0', `${RP_OK}, secondary: "01"`],
  up: ['01:00.0', `${UP}, secondary: "02"`],
  A: ['02:00.0', `${DOWN_OK}, secondary: "03"`],
  B: ['02:01.0', `${DOWN_OK}, secondary: "04"`],
  epA: ['03:00.0', EP_NO],
  epB: ['04:00.0', EP_NO],
};
const SWITCH_NO: Devices = {
  ...SWITCH_OK,
  A: ['02:00.0', `${DOWN_NO}, secondary: "03"`],
  B: ['02:01.0', `${DOWN_NO}, secondary: "04"`],
};

const VECTORS: readonly Vector[] = [
  {
    number: 1,
    what: 'two single-function endpoints of the root complex',
    devices: { a: ['00:01.0', 'type: rc-endpoint'], b: ['00:02.0', 'type: rc-endpoint'] },
    groups: '{a} {b}',
  },
  {
    number: 2,
    what: 'slot of the root complex with functions 0 no, 2 no, 3 ok',
    devices: {
      f0: ['00:01.0', `type: rc-endpoint, ${MULTI}`],
      f2: ['00:01.2', `type: rc-endpoint, ${MULTI}`],
      f3: ['00:01.3', `type: rc-endpoint, ${MULTI}, acs: on`],
    },
    groups: '{f0 f2} {f3}',
  },
  {
    number: 3,
    what: 'root port ok, single-function endpoint below',
    devices: { rp: ['00:01.0', `${RP_OK}, secondary: "01"`], ep: ['01:00.0', EP_NO] },
    groups: '{rp} {ep}',
  },
  {
    number: 4,
    what: 'root port no, endpoint below',
    devices: { rp: ['00:01.0', `${RP_NO}, secondary: "01"`], ep: ['01:00.0', EP_NO] },
    groups: '{rp ep}',
  },
  {
    number: 5,
    what: 'root ports A, B of one slot, both no, one endpoint each',
    devices: {
      A: ['00:01.0', `${RP_NO}, secondary: "01"`],
      B: ['00:01.1', `${RP_NO}, secondary: "02"`],
      epA: ['01:00.0', EP_NO],
      epB: ['02:00.0', EP_NO],
    },
    groups: '{A B epA epB}',
  },
  {
    number: 6,
    what: 'as 5, A ok',
    devices: {
      A: ['00:01.0', `${RP_OK}, secondary: "01"`],
      B: ['00:01.1', `${RP_NO}, secondary: "02"`],
      epA: ['01:00.0', EP_NO],
      epB: ['02:00.0', EP_NO],
    },
    groups: '{A} {B epB} {epA}',
  },
  {
    number: 7,
    what: 'switch: root port ok, downstream ports of different slots ok',
    devices: SWITCH_OK,
    groups: '{rp} {up} {A} {B} {epA} {epB}',
  },
  {
    number: 8,
    what: 'as 7, downstream ports no: Linux leaves them apart',
    devices: SWITCH_NO,
    groups: '{rp} {up} {A epA} {B epB}',
  },
  {
    number: 9,
    what: 'as 7, root port no, downstream ports ok',
    devices: { ...SWITCH_OK, rp: ['00:01.0', `${RP_NO}, secondary: "01"`] },
    groups: '{rp up A B epA epB}',
  },
  {
    number: 9,
    what: 'as 7, root port no, downstream ports no',
    devices: { ...SWITCH_NO, rp: ['00:01.0', `${RP_NO}, secondary: "01"`] },
    groups: '{rp up A B epA epB}',
  },
  {
    number: 10,
    what: 'as 8, the downstream ports are functions of one slot',
    devices: { ...SWITCH_NO, B: ['02:00.1', `${DOWN_NO}, secondary: "04"`] },
    groups: '{rp} {up} {A B epA epB}',
  },
  {
    number: 11,
    what: 'as 7, upstream port multifunction and no',
    devices: { ...SWITCH_OK, up: ['01:00.0', `${UP}, ${MULTI}, secondary: "02"`] },
    groups: '{rp} {up A B epA epB}',
  },
  {
    number: 12,
    what: 'root port ok, endpoint functions 0 no, 1 ok, 2 no',
    devices: {
      rp: ['00:01.0', `${RP_OK}, secondary: "01"`],
      f0: ['01:00.0', EP_NO],
      f1: ['01:00.1', EP_OK],
      f2: ['01:00.2', EP_NO],
    },
    groups: '{rp} {f0 f2} {f1}',
  },
  {
    number: 13,
    what: 'root port ok, PCIe-to-PCI bridge, two PCI devices behind',
    devices: {
      rp: ['00:01.0', `${RP_OK}, secondary: "01"`],
      bridge: ['01:00.0', 'type: pcie-pci-bridge, secondary: "02"'],
      a: ['02:01.0', 'type: pci'],
      b: ['02:02.0', 'type: pci'],
    },
    groups: '{rp} {bridge a b}',
  },
  {
    number: 14,
    what: 'as 13, function 1 of the bridge’s slot is an endpoint, no',
    devices: {
      rp: ['00:01.0', `${RP_OK}, secondary: "01"`],
      bridge: ['01:00.0', `type: pcie-pci-bridge, ${MULTI}, secondary: "02"`],
      x: ['01:00.1', EP_NO],
      a: ['02:01.0', 'type: pci'],
    },
    groups: '{rp} {bridge x a}',
  },
  {
    number: 15,
    what: 'two ok functions, function 1 aliases to function 0',
    devices: {
      rp: ['00:01.0', `${RP_OK}, secondary: "01"`],
      f0: ['01:00.0', EP_OK],
      f1: ['01:00.1', `${EP_OK}, aliases: ["00.0"]`],
    },
    groups: '{rp} {f0 f1}',
  },
  {
    number: 16,
    what: 'as 15, function 1 aliases a devfn that does not exist',
    devices: {
      rp: ['00:01.0', `${RP_OK}, secondary: "01"`],
      f1: ['01:00.0', `${EP_OK}, ${MULTI}, aliases: ["00.1"]`],
    },
    groups: '{rp} {f1}',
  },
  {
    number: 17,
    what: 'conventional bridge on the root bus, two devices behind',
    devices: {
      bridge: ['00:01.0', 'type: pci-bridge, secondary: "01"'],
      a: ['01:01.0', 'type: pci'],
      b: ['01:02.0', 'type: pci'],
    },
    groups: '{bridge a b}',
  },
  {
    number: 18,
    what: 'two conventional devices on the root bus',
    devices: { a: ['00:01.0', 'type: pci'], b: ['00:02.0', 'type: pci'] },
    groups: '{a} {b}',
  },
];

for (const { number, what, devices, groups } of VECTORS) {
  test(`groups S1.5 vector ${number}: ${what}`, () => {
    assert.equal(groupsOf(devices), groups);
  });
}

test('groups strict-acs: vector 8 is merged, ports that pass stay apart', () => {
  assert.equal(groupsOf(SWITCH_NO, 'strict-acs'), '{rp} {up} {A B epA epB}');
  assert.equal(groupsOf(SWITCH_OK, 'strict-acs'), groupsOf(SWITCH_OK));
});

test('groups: everything on a root bus of a controller is with the controller (VMD)', () => {
  const machine = loadMachine(
    `root-buses: ["0000:00", { bus: "10000:e0", dma-device: 00:0e.0 }]
devices:
  - { address: "10000:e1:00.0", class: "010802" }
  - { address: "10000:e0:06.0", type: root-port, secondary: "10000:e1" }
  - { address: "00:0e.0", type: rc-endpoint, ids: "8086:9a0b" }
`,
    'vmd',
  );
  const { groups } = formGroups(machine);
  assert.deepEqual(
    groups.map(({ members }) => members.map(({ name }) => name)),
    [['0000:00:0e.0', '10000:e0:06.0', '10000:e1:00.0']],
  );
});

test('groups: virtual functions on a bus of their own take part by their own isolation', () => {
  const devices = (acs: string): string => `devices:
  - { address: "00:01.0", type: root-port, acs: ${acs}, secondary: "01" }
  - { address: "01:00.0", ari: true, sriov: { total: 2, enabled: 2, offset: 256, stride: 1 } }
`;
  const apart = loadMachine(devices('on'), 'vf');
  assert.equal(apart.bus('0000:02')?.isVirtual, true);
  assert.equal(formGroups(apart).groups.length, 4);
  assert.equal(formGroups(loadMachine(devices('none'), 'vf')).groups.length, 1);
});
