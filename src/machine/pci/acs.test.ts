/** The ACS predicate and requester-ID aliases, kind by kind; facts from drivers/pci of Linux 7.3. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { readMachineFile } from '../file/read.ts';
import { acsVerdict } from './acs.ts';
import { aliasWalk, areAliases } from './alias.ts';
import { ConfigSpace } from './config-space.ts';
import type { PciDevice } from './device.ts';

function devices(text: string): Map<string, PciDevice> {
  const { machine } = readMachineFile(text, 'test');
  return new Map([...machine.devices].map((device) => [device.name.slice('0000:'.length), device]));
}

function only(properties: string, head = ''): PciDevice {
  const device = devices(`${head}devices:\n  - { address: "00:01.0", ${properties} }\n`).get(
    '00:01.0',
  );
  assert.ok(device);
  return device;
}

const MULTI = 'multifunction: true';

const VERDICTS: readonly (readonly [
  what: string,
  properties: string,
  isolated: boolean,
  cause: string,
])[] = [
  ['a root port with everything on', 'type: root-port, secondary: "01", acs: on', true, 'control'],
  [
    'a root port without ACS',
    'type: root-port, secondary: "01", acs: none',
    false,
    'no-capability',
  ],
  [
    'a port whose offered bits Linux turns on',
    'type: root-port, secondary: "01", acs: { offers: [SV, RR, CR, UF, EC], on: [SV] }',
    true,
    'control',
  ],
  ['a single endpoint', 'type: endpoint', true, 'single-function'],
  ['a function of several without ACS', `type: endpoint, ${MULTI}`, false, 'no-capability'],
  [
    'a function of several that offers only SV',
    `type: endpoint, ${MULTI}, acs: { offers: [SV], on: [SV] }`,
    true,
    'control',
  ],
  ['a conventional device', 'type: pci', false, 'conventional'],
  ['a PCIe-to-PCI bridge', 'type: pcie-pci-bridge, secondary: "01"', false, 'excluded-type'],
  ['a PCI-to-PCIe bridge', 'type: pci-pcie-bridge, secondary: "01"', false, 'excluded-type'],
  ['an event collector', 'type: rc-event-collector', false, 'excluded-type'],
  [
    'an Intel 82576 of several functions',
    `type: endpoint, ${MULTI}, ids: "8086:10c9"`,
    true,
    'quirk',
  ],
  ['an Intel integrated endpoint', `type: rc-endpoint, ${MULTI}, ids: "8086:9999"`, true, 'quirk'],
  [
    'a Qualcomm root port',
    'type: root-port, secondary: "01", acs: none, ids: "17cb:0400"',
    true,
    'quirk',
  ],
  [
    'a ThunderX root port',
    'type: root-port, secondary: "01", acs: none, ids: "177d:a123"',
    true,
    'quirk',
  ],
  [
    'an Ampere root port',
    'type: root-port, secondary: "01", acs: none, ids: "1def:e008"',
    true,
    'quirk',
  ],
  [
    'a Zhaoxin port in the list',
    'type: root-port, secondary: "01", acs: none, ids: "1d17:0715"',
    true,
    'quirk',
  ],
  [
    'a Zhaoxin port outside the list',
    'type: root-port, secondary: "01", acs: on, ids: "1d17:0720"',
    false,
    'quirk',
  ],
  [
    'a Wangxun card outside the list',
    `type: endpoint, ${MULTI}, acs: on, ids: "8088:9999"`,
    false,
    'quirk',
  ],
  [
    'an Annapurna root port',
    'type: root-port, secondary: "01", acs: none, ids: "1c36:0031"',
    true,
    'quirk',
  ],
  [
    'the ids of an Annapurna root port on an endpoint',
    'type: endpoint, ids: "1c36:0031"',
    true,
    'single-function',
  ],
  [
    'an Intel PCH root port without its chipset',
    'type: root-port, secondary: "01", acs: none, ids: "8086:8c10"',
    false,
    'quirk',
  ],
];

for (const [what, properties, isolated, cause] of VERDICTS) {
  test(`acsVerdict: ${what} is ${isolated ? '' : 'not '}isolated (${cause})`, () => {
    const head = 'boot: { acs: enable }\n';
    const verdict = acsVerdict(only(properties, head));
    assert.equal(verdict.isolated, isolated);
    assert.equal(verdict.cause.kind, cause);
  });
}

test('acsVerdict: a demanded bit that is off is named, egress control is not demanded', () => {
  const port = only(
    'type: root-port, secondary: "01", acs: { offers: [SV, RR, CR, UF, EC], on: [SV, CR, UF] }',
    'boot: { acs: as-is }\n',
  );
  assert.deepEqual(acsVerdict(port), {
    isolated: false,
    cause: { kind: 'control', missing: 0x04 },
  });
});

test('acsVerdict: the source validation of a broken IDT switch does not count', () => {
  const ids =
    'type: root-port, secondary: "01", acs: { offers: [SV, RR, CR, UF], on: [RR, CR, UF] }';
  const head = 'boot: { acs: as-is }\n';
  assert.equal(acsVerdict(only(`${ids}, ids: "111d:80b5"`, head)).isolated, true);
  assert.equal(acsVerdict(only(`${ids}, ids: "111d:80b6"`, head)).isolated, false);
});

test('acsVerdict: AMD south bridges are isolated only where firmware describes an AMD IOMMU', () => {
  const bridge = `type: pci, ${MULTI}, ids: "1002:4385"`;
  assert.equal(acsVerdict(only(bridge, 'iommu: { kind: amd }\n')).isolated, true);
  assert.equal(acsVerdict(only(bridge, 'iommu: { kind: intel }\n')).isolated, false);
});

test('acsVerdict: PCH root ports are isolated where the chipset registers can be reached', () => {
  const lpc = (rcba: string): string => `8086${'00'.repeat(238)}${rcba}${'00'.repeat(12)}`;
  const file = (rcba: string): string => `devices:
  - { address: "00:1c.0", type: root-port, secondary: "01", acs: none, ids: "8086:8c10" }
  - { address: "00:1f.0", config: "${lpc(rcba)}" }
`;
  const verdict = (rcba: string): boolean => {
    const port = devices(file(rcba)).get('00:1c.0');
    assert.ok(port);
    return acsVerdict(port).isolated;
  };
  assert.equal(verdict('01c0d1fe'), true);
  assert.equal(verdict('00c0d1fe'), false);
});

test('acsVerdict: Intel 100 series root ports keep ACS in dwords', () => {
  const port = only(
    'type: root-port, secondary: "01", acs: { offers: [SV, RR, CR, UF] }, ids: "8086:a110"',
  );
  assert.deepEqual(acsVerdict(port).cause.kind, 'quirk');
  assert.equal(acsVerdict(port).isolated, true);
  port.config.setU32(port.acsOffset + 8, 0);
  assert.equal(acsVerdict(port).isolated, false);
});

test('PciDevice.portType: a port that its parent makes impossible is taken for the other direction', () => {
  const found = devices(`devices:
  - { address: "00:01.0", type: root-port, secondary: "01" }
  - { address: "01:00.0", type: downstream-port, secondary: "02" }
  - { address: "02:00.0", type: upstream-port, secondary: "03" }
`);
  assert.equal(found.get('01:00.0')?.portType, 5);
  assert.equal(found.get('02:00.0')?.portType, 6);
});

test('PciDevice.multifunction: every function but the first, whatever its header says', () => {
  const found = devices(`devices:
  - { address: "00:01.0", multifunction: false }
  - { address: "00:01.1", multifunction: false }
`);
  assert.equal(found.get('00:01.0')?.multifunction, false);
  assert.equal(found.get('00:01.1')?.multifunction, true);
});

function ridsOf(text: string, name: string): string[] {
  const device = devices(text).get(name);
  assert.ok(device);
  return [...aliasWalk(device)].map(
    ({ rid, kind }) => `${rid.toString(16).padStart(4, '0')} ${kind}`,
  );
}

test('aliasWalk: bridges put an ID of their own in place', () => {
  const text = `devices:
  - { address: "00:01.0", type: root-port, secondary: "01" }
  - { address: "01:00.0", type: pcie-pci-bridge, secondary: "02" }
  - { address: "02:01.0", type: pci-bridge, secondary: "03" }
  - { address: "03:02.0", type: pci }
`;
  assert.deepEqual(ridsOf(text, '03:02.0'), [
    '0310 own',
    '0208 conventional-bridge',
    '0200 express-bridge',
  ]);
});

test('aliasWalk: a bridge that passes IDs, and one where the IOMMU sits', () => {
  const text = (flags: string): string => `devices:
  - { address: "00:01.0", type: pcie-pci-bridge, secondary: "01", ${flags} }
  - { address: "01:00.0", type: pci }
`;
  assert.deepEqual(ridsOf(text('revision: 0'), '01:00.0'), ['0100 own', '0100 express-bridge']);
  assert.deepEqual(ridsOf(text('no-alias: true'), '01:00.0'), ['0100 own']);
  assert.deepEqual(ridsOf(text('ids: "1a03:1150"'), '01:00.0'), ['0100 own']);
  assert.deepEqual(ridsOf(text('translation-root: true'), '01:00.0'), ['0100 own']);
});

test('aliasWalk: bridges that hide their PCI Express capability', () => {
  const text = `devices:
  - { address: "00:01.0", type: root-port, secondary: "01" }
  - { address: "01:00.0", type: pci-bridge, secondary: "02", ids: "1b21:1080" }
  - { address: "02:01.0", type: pci }
`;
  assert.deepEqual(ridsOf(text, '02:01.0'), ['0208 own', '0200 express-bridge']);
});

test('aliasWalk: quirks add functions, fixed devfns, or all of them', () => {
  const one = (ids: string): string =>
    `devices:\n  - { address: "00:02.2", ids: "${ids}", subsystem: "9005:02bb" }\n`;
  assert.deepEqual(ridsOf(one('1180:e832'), '00:02.2'), ['0012 own', '0010 quirk']);
  assert.deepEqual(ridsOf(one('1b4b:9230'), '00:02.2'), ['0012 own', '0011 quirk']);
  assert.deepEqual(ridsOf(one('9005:0285'), '00:02.2'), ['0012 own', '0008 quirk']);
  assert.equal(ridsOf(one('10b5:87b0'), '00:02.2').length, 257);
  assert.equal(ridsOf(one('8086:2954'), '00:02.2').length, 161);
});

test('areAliases: in either direction', () => {
  const found = devices(`devices:
  - { address: "00:01.0" }
  - { address: "00:01.1", aliases: ["01.0"] }
  - { address: "00:01.2" }
`);
  const [a, b, c] = ['00:01.0', '00:01.1', '00:01.2'].map((name) => found.get(name));
  assert.ok(a && b && c);
  assert.ok(areAliases(a, b) && areAliases(b, a));
  assert.ok(!areAliases(a, c) && !areAliases(b, c));
});

test('ConfigSpace: short and looping lists end', () => {
  const config = new ConfigSpace(new Uint8Array(256).fill(0x50));
  assert.ok([...config.capabilities()].length <= 48);
  assert.equal(new ConfigSpace(new Uint8Array(64)).complete, false);
  assert.equal(new ConfigSpace(new Uint8Array(64)).u32(0x100), 0xffff_ffff);
});
