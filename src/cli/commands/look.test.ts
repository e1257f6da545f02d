/** `uiommu ls`, `why`, `diff` and `capture`, as a person runs them. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadMachine } from '../../iommu/load-machine.ts';
import { formatMachine } from '../../machine/file/write.ts';
import { bigMachine } from '../../testing/big-machine.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..');
const PROGRAM = join(root, 'bin', 'uiommu.js');
const NOBODY = 65534;

type Run = { readonly status: number | null; readonly out: string; readonly err: string };

function uiommu(
  args: readonly string[],
  options: { readonly input?: string; readonly uid?: number } = {},
): Run {
  const { input, uid } = options;
  const result = spawnSync(process.execPath, [PROGRAM, ...args], {
    encoding: 'utf8',
    maxBuffer: 2 ** 24,
    ...(input === undefined ? {} : { input }),
    ...(uid === undefined ? {} : { uid, gid: uid }),
    env: { ...process.env, NO_COLOR: '1' },
  });
  return { status: result.status, out: result.stdout, err: result.stderr };
}

function fileOf(t: TestContext, text: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-look-'));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  const file = join(folder, 'machine.yaml');
  writeFileSync(file, text);
  return file;
}

const SHARED = `devices:
  - { address: "00:1c.0", type: root-port, acs: none, secondary: "01", driver: pcieport }
  - { address: "01:00.0", class: "030000", label: GPU }
  - { address: "01:00.1", class: "040300", driver: snd_hda_intel }
  - { address: "00:1d.0", type: root-port, acs: on, secondary: "02", driver: pcieport }
  - { address: "02:00.0", class: "020000", driver: vfio-pci }
  - { address: "02:00.1", class: "020000", acs: on, driver: e1000e, iommu: none }
`;

test('uiommu ls: tree, groups, drivers, who may own the DMA, and the reason of a shared group', (t) => {
  const { status, out } = uiommu(['ls', '-m', fileOf(t, SHARED)]);
  assert.equal(status, 0);
  assert.match(out, /├─ 0000:00:1c\.0 +0 +kernel +pcieport +1b36:000c +root port/);
  assert.match(out, /│ {2}├─ 0000:01:00\.0 +0 +kernel +- +1234:11e8 +VGA display {2}"GPU"/);
  assert.match(out, /└─ 0000:02:00\.1 +- +- +e1000e/);
  assert.match(out, /0000:02:00\.0 +2 +user +vfio-pci/);
  assert.match(
    out,
    /group 0: 0000:00:1c\.0 0000:01:00\.0 0000:01:00\.1\n {2}root port 0000:00:1c\.0 has no ACS/,
  );
  assert.ok(!out.includes('\u001b['), 'no colour where it is not a terminal');
});

test('uiommu ls --color always paints, --json is whole', (t) => {
  const file = fileOf(t, SHARED);
  assert.ok(uiommu(['ls', '-m', file, '--color', 'always']).out.includes('\u001b['));
  const parsed = JSON.parse(uiommu(['ls', '-m', file, '--json']).out) as {
    groups: {
      id: number;
      members: string[];
      dma: string;
      merges: { because: string; rule: string }[];
    }[];
    devices: unknown[];
    iommu: { state: string };
  };
  assert.equal(parsed.devices.length, 6);
  assert.equal(parsed.iommu.state, 'translated');
  assert.deepEqual(
    parsed.groups.map(({ id, dma }) => [id, dma]),
    [
      [0, 'kernel'],
      [1, 'free'],
      [2, 'user'],
    ],
  );
  assert.equal(parsed.groups[0]?.merges[0]?.because, 'root port 0000:00:1c.0 has no ACS');
});

test('uiommu why: not yet, with rule, culprit, next step and what would part the group', (t) => {
  const { status, out } = uiommu(['why', '-m', fileOf(t, SHARED), 'GPU']);
  assert.equal(status, 1);
  assert.match(
    out,
    /^Not yet: 0000:01:00\.0 \(VGA display, 1234:11e8\) could be assigned, but not as it stands\./,
  );
  assert.match(
    out,
    /user space cannot own group 0: 0000:01:00\.1 is bound to snd_hda_intel, which does kernel DMA/,
  );
  assert.match(
    out,
    /\[VFIO_DEVICE_BIND_IOMMUFD, VFIO_GROUP_SET_CONTAINER: EPERM\]\n {4}next: unbind 0000:01:00\.1 from snd_hda_intel/,
  );
  assert.match(out, /echo vfio-pci > \/sys\/bus\/pci\/devices\/0000:01:00\.0\/driver_override/);
  assert.match(
    out,
    /0000:00:1c\.0 +root port +pcieport +no kernel DMA: drives a bridge and does no DMA for anybody/,
  );
  assert.match(out, /because root port 0000:00:1c\.0 has no ACS/);
  assert.match(out, /root port 0000:00:1c\.0 would have to be one with ACS/);
  assert.match(out, /Bridges stay with the host; assign together: 0000:01:00\.0 and 0000:01:00\.1/);
  assert.match(
    out,
    /container +\/dev\/vfio\/0 with \/dev\/vfio\/vfio: open \/dev\/vfio\/0: ENOENT/,
  );
});

test('uiommu why: yes, no group, bridges, and firmware regions', (t) => {
  const file = fileOf(t, SHARED);
  assert.deepEqual(uiommu(['why', '-m', file, '02:00.0']).status, 0);
  assert.match(
    uiommu(['why', '-m', file, '02:00.1']).out,
    /^No: .*\n {2}- 0000:02:00\.1 has no IOMMU group, so it cannot be assigned \[bind .* to vfio-pci .*: EINVAL\]/,
  );
  assert.match(
    uiommu(['why', '-m', file, '00:1d.0']).out,
    /0000:00:1d\.0 is a bridge, vfio-pci takes endpoints \[bind .*: EINVAL\]/,
  );
  const direct = fileOf(
    t,
    'devices:\n  - { address: "00:02.0", reserved: [{ start: 0x1000, last: 0x1fff, type: direct }] }\n',
  );
  assert.match(
    uiommu(['why', '-m', direct, '00:02.0']).out,
    /firmware wants 0000:00:02\.0 mapped one to one at all times, so it cannot be blocked/,
  );
});

test('uiommu why: an unknown device is answered with the nearest ones', (t) => {
  const { status, err } = uiommu(['why', '-m', fileOf(t, SHARED), '01:00.2']);
  assert.equal(status, 2);
  assert.match(
    err,
    /^uiommu: there is no device "01:00\.2" in .*; did you mean 0000:01:00\.\d or /,
  );
});

test('uiommu why GPU: a label with a typing mistake is answered too', (t) => {
  assert.match(uiommu(['why', '-m', fileOf(t, SHARED), 'GPV']).err, /did you mean GPU/);
});

test('uiommu: wrong options, machines and profiles are told with the nearest right one', (t) => {
  const cases: readonly (readonly [readonly string[], RegExp])[] = [
    [['ls', '--jsn'], /did you mean --json\?/],
    [['ls', '-m', '/nowhere'], /no machine "\/nowhere".*expected a file or one of selftest, pc/],
    [
      ['ls', '-m', 'pc', '--profile', 'strict'],
      /--profile strict is none of linux, singleton, shared, subgroup, strict-acs/,
    ],
    [['ls', '-m', 'pc', '--host'], /--host and -m are two machines/],
    [['why'], /why needs one DEVICE/],
    [['diff'], /diff needs two machines/],
    [
      ['ls', '-m', fileOf(t, 'knd: pc\n')],
      /machine\.yaml:1:1: unknown key "knd"; did you mean "kind"\?/,
    ],
  ];
  for (const [args, message] of cases) {
    const { status, out, err } = uiommu(args);
    assert.equal(status, 2, args.join(' '));
    assert.equal(out, '');
    assert.match(err, message);
  }
});

test('uiommu run -m FILE: a machine file that is wrong says where, before anything runs', (t) => {
  const wrong = uiommu(['run', '-m', fileOf(t, 'kind: selftset\n'), '--', '/bin/true']);
  assert.equal(wrong.status, 2);
  assert.match(
    wrong.err,
    /machine\.yaml:1:7: "selftset" is not one of pc, selftest; did you mean selftest\?/,
  );
  const missing = uiommu(['run', '-m', 'selftst', '--', '/bin/true']);
  assert.equal(missing.status, 2);
  assert.match(missing.err, /no machine "selftst".*expected a file or one of selftest, pc/);
});

test('uiommu ls --profile strict-acs merges what Linux leaves apart', (t) => {
  const file = fileOf(
    t,
    `devices:
  - { address: "00:01.0", type: root-port, secondary: "01" }
  - { address: "01:00.0", type: upstream-port, secondary: "02" }
  - { address: "02:00.0", type: downstream-port, acs: none, secondary: "03" }
  - { address: "02:01.0", type: downstream-port, acs: none, secondary: "04" }
`,
  );
  assert.match(uiommu(['ls', '-m', file]).out, /4 devices, 4 groups/);
  const { out } = uiommu(['ls', '-m', file, '--profile', 'strict-acs']);
  assert.match(out, /4 devices, 3 groups \(profile strict-acs\)/);
  assert.match(out, /ports of one switch can reach each other/);
});

test('uiommu diff: what came, went, moved, and which groups are others', (t) => {
  const before = fileOf(t, SHARED);
  const after = fileOf(
    t,
    SHARED.replace('acs: none', 'acs: on')
      .replace('driver: snd_hda_intel', 'driver: vfio-pci')
      .replace(/\n.*"02:00\.1".*\n/, '\n')
      .replaceAll('"02', '"05'),
  );
  const { status, out } = uiommu(['diff', before, after]);
  assert.equal(status, 1);
  assert.match(out, /^- endpoint 0000:02:00\.1 is gone \(no group\)$/m);
  assert.match(out, /^> endpoint 0000:02:00\.0 is now 0000:05:00\.0$/m);
  assert.match(out, /^~ 0000:01:00\.1: snd_hda_intel, now vfio-pci$/m);
  assert.match(out, /^~ root port 0000:00:1c\.0: ACS none, now SV\+RR\+CR\+UF$/m);
  assert.match(out, /^\* 0000:00:1c\.0: group 0 \(.*\), now alone in group 0$/m);
  const same = uiommu(['diff', before, before]);
  assert.equal(same.status, 0);
  assert.match(same.out, /: no difference\n$/);
});

test('uiommu ls and why on this computer, as whoever runs the tests', () => {
  const { status, out } = uiommu(['ls', '--host']);
  assert.equal(status, 0);
  assert.match(out, /devices, (?:no|\d+) groups/);
  assert.match(out, /IOMMU/);
  const [, device] = /(?:├|└)─ ([0-9a-f:.]+)/.exec(out) ?? [];
  if (device === undefined) {
    assert.match(out, /There is no PCI device\./);
    return;
  }
  const why = uiommu(['why', device]);
  assert.ok(why.status === 0 || why.status === 1, why.err);
  assert.match(why.out, /^(?:Yes|No|Not yet): /);
});

test('uiommu ls, why and capture on this computer, as an ordinary user', (t) => {
  if (process.getuid?.() !== 0) {
    t.skip('only root can become another user; the test before this one ran as an ordinary user');
    return;
  }
  const listed = uiommu(['ls', '--host'], { uid: NOBODY });
  if (listed.status === null || /EACCES|Cannot find module/.test(listed.err)) {
    t.skip('an ordinary user cannot read this folder');
    return;
  }
  assert.equal(listed.status, 0, listed.err);
  const capture = uiommu(['capture'], { uid: NOBODY });
  assert.equal(capture.status, 0);
  const machine = loadMachine(capture.out, 'capture');
  assert.equal(machine.source, 'capture');
  const again = uiommu(['ls', '-m', '-'], { input: capture.out });
  assert.equal(again.status, 0, again.err);
  const [device] = machine.devices;
  if (device !== undefined) {
    assert.match(capture.out, /"read-as":"user"/);
    assert.match(uiommu(['why', device.name], { uid: NOBODY }).out, /^(?:Yes|No|Not yet): /);
  }
});

test('uiommu ls: ten thousand devices of a capture are listed, every one of them', (t) => {
  const file = fileOf(
    t,
    formatMachine(bigMachine(10_000), { kernel: '7.3', readAs: 'root', unreadable: [] }),
  );
  const { status, out } = uiommu(['ls', '-m', file]);
  assert.equal(status, 0);
  assert.equal(out.split('\n').filter((line) => /[├└]─ /.test(line)).length, 10_000);
});

for (const name of ['ls', 'why', 'diff', 'capture']) {
  test(`uiommu help ${name}: usage first, examples last, exit status named`, () => {
    const { status, out } = uiommu(['help', name]);
    assert.equal(status, 0);
    assert.match(out, new RegExp(`^usage: uiommu ${name}`));
    assert.match(out, /\nExit status: /);
    assert.match(out, /\nexamples:\n(?: {2}.+\n)+$/);
  });
}
