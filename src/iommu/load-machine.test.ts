/** Machine files that are wrong: each kind of mistake with its place, what was expected, and the nearest right word. */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { InputError } from '../base/input-error.ts';
import { BUILTIN_MACHINES } from '../machine/builtin.ts';
import { formatMachine } from '../machine/file/write.ts';
import { PORT_TYPES } from '../machine/pci/capabilities.ts';
import { formGroups } from './group-builder.ts';
import { loadMachine } from './load-machine.ts';

/** The message of the refusal. */
function refusal(text: string): string {
  let message = '';
  assert.throws(
    () => loadMachine(text, 'm.yaml'),
    (error: unknown) => {
      assert.ok(error instanceof InputError, String(error));
      ({ message } = error);
      return true;
    },
  );
  return message;
}

type Mistake = { readonly what: string; readonly text: string; readonly lines: readonly RegExp[] };

const HEX_64 = `f41a0510${'00'.repeat(60)}`;
// A capability list whose one entry, at 0x40, is its own successor.
const LOOPING = `f41a0510000010000000${'00'.repeat(42)}40${'00'.repeat(11)}0940${'00'.repeat(190)}`;

const MISTAKES: readonly Mistake[] = [
  {
    what: 'not YAML',
    text: 'devices: [',
    lines: [/^m\.yaml:1:\d+: not YAML: /],
  },
  {
    what: 'empty',
    text: '',
    lines: [/^m\.yaml:1:1: empty; expected a map with kind, name, /],
  },
  {
    what: 'an unknown key with a near miss',
    text: 'devices:\n  - address: 00:01.0\n    drivr: nvme\n',
    lines: [/^m\.yaml:3:5: unknown key "drivr"; did you mean "driver"\? \(known: address, /],
  },
  {
    what: 'an unknown key at the top',
    text: 'kind: pc\ndevcies: []\n',
    lines: [/^m\.yaml:2:1: unknown key "devcies"; did you mean "devices"\?/],
  },
  {
    what: 'an unknown word with a near miss',
    text: 'devices:\n  - address: 00:01.0\n    type: rootport\n',
    lines: [/^m\.yaml:3:11: "rootport" is not one of endpoint, .*; did you mean root-port\?$/],
  },
  {
    what: 'a key that is missing',
    text: 'devices:\n  - driver: nvme\n',
    lines: [/^m\.yaml:2:5: "address" is missing; expected a device address like 01:00\.0/],
  },
  {
    what: 'a key that is there twice',
    text: 'kind: pc\nkind: pc\n',
    lines: [/^m\.yaml:2:1: this key is here twice; expected it once$/],
  },
  {
    what: 'an address that is none',
    text: 'devices:\n  - address: 00:20.9\n',
    lines: [/^m\.yaml:2:14: "00:20\.9" is not a device address like 01:00\.0/],
  },
  {
    what: 'a list where a map belongs',
    text: 'boot:\n  - acs: as-is\n',
    lines: [/^m\.yaml:2:3: this is a list; expected a map with acs, /],
  },
  {
    what: 'a number out of range',
    text: 'devices:\n  - { address: "00:01.0", revision: 300 }\n',
    lines: [/^m\.yaml:2:37: "300" is not a whole number from 0 to 255$/],
  },
  {
    what: 'two devices at one address',
    text: 'devices:\n  - address: 00:01.0\n  - address: 0000:00:01.0\n',
    lines: [
      /^m\.yaml:3:14: two devices at 0000:00:01\.0, the other one is in line 2; expected another address, 0000:00:01\.1 is free$/,
    ],
  },
  {
    what: 'a bus that does not exist',
    text: 'devices:\n  - { address: "00:01.0", type: root-port, secondary: "01" }\n  - address: 02:00.0\n',
    lines: [
      /^m\.yaml:3:14: there is no bus 0000:02: no bridge .*; expected one of 0000:00, 0000:01, the nearest is 0000:0[01]$/,
    ],
  },
  {
    what: 'bridges that lead in a circle',
    text: `devices:
  - { address: "01:00.0", type: pci-bridge, secondary: "02" }
  - { address: "02:00.0", type: pci-bridge, secondary: "01" }
`,
    lines: [
      /^m\.yaml:2:56: a circle: 0000:01:00\.0 behind 0000:02:00\.0 behind 0000:01:00\.0; expected every bridge to lead away/,
      /^m\.yaml:3:56: a circle: /,
    ],
  },
  {
    what: 'a bridge that leads to its own bus',
    text: 'devices:\n  - { address: "01:00.0", type: pci-bridge, secondary: "01" }\n',
    lines: [/^m\.yaml:2:56: a circle: 0000:01:00\.0 behind 0000:01:00\.0/],
  },
  {
    what: 'two bridges to one bus',
    text: `devices:
  - { address: "00:01.0", type: root-port, secondary: "01" }
  - { address: "00:02.0", type: root-port, secondary: "01" }
`,
    lines: [
      /^m\.yaml:3:55: bus 0000:01 is behind 0000:00:01\.0 already \(line 2\); expected a bus of its own$/,
    ],
  },
  {
    what: 'a bus behind something that is no bridge',
    text: 'devices:\n  - { address: "00:01.0", type: endpoint, secondary: "01" }\n',
    lines: [
      /^m\.yaml:2:54: this leads to a bus, but type endpoint has no bus behind it; expected a type of root-port, /,
    ],
  },
  {
    what: 'a bridge that leads nowhere',
    text: 'devices:\n  - { address: "00:01.0", type: root-port }\n',
    lines: [/^m\.yaml:2:5: type root-port leads to a bus; expected "secondary" with its number$/],
  },
  {
    what: 'a physical function that does not exist',
    text: 'devices:\n  - address: 00:01.0\n  - { address: "00:01.1", physfn: "00:01.4" }\n',
    lines: [
      /^m\.yaml:3:35: there is no device 0000:00:01\.4; .*, did you mean 0000:00:01\.[01]\?$/,
    ],
  },
  {
    what: 'configuration space of the wrong length',
    text: 'devices:\n  - address: 00:01.0\n    config: f41a0510\n',
    lines: [
      /^m\.yaml:3:13: configuration space has 4 bytes; expected 64 \(header\), 256 \(conventional\) or 4096 \(PCI Express\), the nearest is 64$/,
    ],
  },
  {
    what: 'configuration space that is not hexadecimal',
    text: 'devices:\n  - address: 00:01.0\n    config: hello\n',
    lines: [
      /^m\.yaml:3:13: this is not configuration space; expected pairs of hexadecimal digits$/,
    ],
  },
  {
    what: 'configuration space with lines out of order',
    text: 'devices:\n  - address: 00:01.0\n    config: |\n      010: 00\n      000: 00\n',
    lines: [/^m\.yaml:3:13: offset 0 comes again; expected rising offsets$/],
  },
  {
    what: 'raw and described at once',
    text: `devices:\n  - address: 00:01.0\n    config: ${HEX_64}\n    acs: none\n`,
    lines: [/^m\.yaml:4:5: "acs" says what "config" says already; expected one of the two$/],
  },
  {
    what: 'a group that contradicts the topology',
    text: `devices:
  - { address: "00:01.0", type: root-port, acs: none, secondary: "01", group: 0 }
  - { address: "01:00.0", group: 1 }
`,
    lines: [
      /^m\.yaml:3:34: 0000:01:00\.0 cannot be in group 1: 0000:01:00\.0 shares its group with 0000:00:01\.0, because root port 0000:00:01\.0 has no ACS; expected group 0$/,
    ],
  },
  {
    what: 'a group without an IOMMU',
    text: 'iommu: none\ndevices:\n  - { address: "00:01.0", group: 0 }\n',
    lines: [
      /^m\.yaml:3:34: 0000:00:01\.0 has no group, because no IOMMU translates for it; expected no "group"$/,
    ],
  },
  {
    what: 'an IOMMU that does not exist',
    text: 'iommu: { name: dmar0 }\ndevices:\n  - { address: "00:01.0", iommu: dmar1 }\n',
    lines: [
      /^m\.yaml:3:34: there is no IOMMU "dmar1"; expected none or one of dmar0, did you mean dmar0\?$/,
    ],
  },
  {
    what: 'a region that ends before it starts',
    text: 'iommu: { reserved: [{ start: 0x2000, last: 0x1000 }] }\n',
    lines: [
      /^m\.yaml:1:21: the region 0x2000\.\.0x1000 is none; expected start <= last below 2\^64$/,
    ],
  },
  {
    what: 'a BAR whose size is no power of two',
    text: 'devices:\n  - { address: "00:01.0", bars: [{ index: 0, size: 3K }] }\n',
    lines: [/^m\.yaml:2:52: 3072 is not the size of a BAR; expected a power of two, at least 16$/],
  },
  {
    what: 'boot options that Linux could not parse',
    text: 'boot: { config-acs: 2@00:01.0, disable-acs-redir: nonsense }\n',
    lines: [
      /^m\.yaml:1:21: Linux could not parse "2@00:01\.0"; expected BITS@DEVICE/,
      /^m\.yaml:1:51: Linux could not parse "nonsense"; expected \[DOMAIN:\]BUS:SLOT\.FN/,
    ],
  },
  {
    what: 'more virtual functions than there are',
    text: 'devices:\n  - { address: "00:01.0", sriov: { total: 2, enabled: 3 } }\n',
    lines: [/^m\.yaml:2:55: 3 virtual functions are more than there are; expected at most 2$/],
  },
  {
    what: 'an anchor that leads back to itself',
    text: 'devices: &a\n  - *a\n',
    lines: [
      /^m\.yaml:\d+:\d+: (?:nested deeper than \d+ levels|this is a list|there is no anchor)/,
    ],
  },
];

for (const { what, text, lines } of MISTAKES) {
  test(`loadMachine refuses ${what}`, () => {
    const message = refusal(text).split('\n');
    assert.equal(message.length, lines.length, message.join('\n'));
    for (const [index, line] of lines.entries()) assert.match(message[index] ?? '', line);
  });
}

test('loadMachine tells all mistakes of a file at once, in the order of the text', () => {
  const message = refusal(
    'knd: pc\nname: x\nboot: { asc: as-is }\ndevices: [{ adress: "00:01.0" }]\n',
  );
  const places = message.split('\n').map((line) => line.split(':').slice(0, 3).join(':'));
  assert.deepEqual(places, ['m.yaml:1:1', 'm.yaml:3:9', 'm.yaml:4:11', 'm.yaml:4:13']);
});

test('loadMachine throws nothing but InputError, whatever the text', () => {
  const words = [
    'devices',
    'address',
    'secondary',
    'type',
    'config',
    'root-port',
    '"01"',
    '00:01.0',
    'acs',
    'on',
    'sriov',
    'total',
    'group',
  ];
  const marks = [
    ': ',
    '\n  - ',
    '\n    ',
    '{ ',
    ' }',
    '[',
    ']',
    ', ',
    '|',
    '&a',
    '*a',
    '"',
    '#',
    '\n',
  ];
  const piece = fc.constantFrom(...words, ...marks);
  const text = fc.oneof(
    fc.string({ unit: 'grapheme' }),
    fc.array(piece, { maxLength: 40 }).map((parts) => parts.join('')),
  );
  fc.assert(
    fc.property(text, (written) => {
      try {
        loadMachine(written, 'random');
      } catch (error) {
        assert.ok(error instanceof InputError, String(error));
      }
    }),
    { numRuns: 2000 },
  );
});

test('loadMachine: a mutated file is loaded or refused, never anything else', () => {
  const source = formatMachine(loadMachine(BUILTIN_MACHINES['pc'] ?? '', 'pc'));
  const cut = fc.tuple(fc.nat(source.length), fc.nat(8), fc.string({ maxLength: 4 }));
  fc.assert(
    fc.property(fc.array(cut, { minLength: 1, maxLength: 3 }), (cuts) => {
      let text = source;
      for (const [at, length, insert] of cuts)
        text = text.slice(0, at) + insert + text.slice(at + length);
      try {
        formGroups(loadMachine(text, 'mutated'));
      } catch (error) {
        assert.ok(error instanceof InputError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});

for (const [name, text] of Object.entries(BUILTIN_MACHINES)) {
  test(`loadMachine: the built-in machine ${name} loads and comes back from its own text`, () => {
    const machine = loadMachine(text, name);
    const written = formatMachine(machine);
    assert.equal(formatMachine(loadMachine(written, name)), written);
    assert.equal(machine.kind, name);
  });
}

test('loadMachine: in a capture the groups of its kernel stand, also where the rules say otherwise', () => {
  const machine = loadMachine(
    `capture: { kernel: "6.1", read-as: root }
devices:
  - { address: "00:01.0", type: root-port, acs: none, secondary: "01", group: 0 }
  - { address: "01:00.0", group: 7 }
`,
    'capture',
  );
  assert.equal(machine.get('0000:01:00.0')?.facts.recordedGroup, 7);
});

test('a capability list that loops is what Linux makes of it: found once, and the walk gives up', () => {
  const machine = loadMachine(`devices:\n  - address: 00:01.0\n    config: ${LOOPING}\n`, 'm.yaml');
  const device = machine.get('0000:00:01.0');
  assert.ok(device);
  assert.equal(device.config.findCapability(0x09), 0x40);
  assert.equal(device.config.findCapability(0x10), 0);
});

test('types that the file leaves out follow place and class; a bridge that could be two things is asked for', () => {
  const text = `devices:
  - { address: "00:1c.0", secondary: "01" }
  - { address: "01:00.0", secondary: "02" }
  - { address: "02:00.0", secondary: "03" }
  - { address: "03:00.0" }
  - { address: "00:1e.0", class: "060401", secondary: "04" }
  - { address: "04:00.0" }
  - { address: "00:1f.0" }
  - { address: "00:02.0", sriov: { total: 1 } }
`;
  const machine = loadMachine(text, 'm.yaml');
  const types = [...machine.devices].map(({ portType }) => portType);
  const { 'root-port': root, 'upstream-port': up, 'downstream-port': down } = PORT_TYPES;
  const { endpoint, 'rc-endpoint': integrated } = PORT_TYPES;
  assert.deepEqual(types, [root, up, down, endpoint, undefined, undefined, undefined, integrated]);
  assert.throws(
    () =>
      loadMachine(
        text.replace('secondary: "03"', 'class: "020000"').replace('03:00', '02:01'),
        'm.yaml',
      ),
    /m\.yaml:3:\d+: 0000:01:00\.0 may be a switch or a bridge to conventional PCI, .* expected "type"/,
  );
});
