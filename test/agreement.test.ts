/**
 * One truth: for every device of every machine, what `uiommu why` says is what a program under `uiommu run` is answered when it
 * makes the calls; and where `why` names steps, the machine on which they were done gives the device away.
 *
 * Machines: the built-in ones, every recorded topology, and captures made of those, with groups that no rule gives and with
 * regions that a kernel listed by group. The program is a client in this process with the real ioctls on the booted kernel.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { Errno } from '../src/base/errno.ts';
import { InProcessClient, type ClientFile } from '../src/client/in-process.ts';
import { assess } from '../src/explain/assign.ts';
import type { InterfaceName, Refusal } from '../src/explain/trial.ts';
import { loadMachine } from '../src/iommu/load-machine.ts';
import { groupsOf } from '../src/iommu/group-builder.ts';
import { PROFILE_NAMES, type ProfileName } from '../src/iommu/profile.ts';
import { bootMachine } from '../src/kernel/boot.ts';
import type { Kernel } from '../src/kernel/kernel.ts';
import { BUILTIN_MACHINES } from '../src/machine/builtin.ts';
import { parseDump } from '../src/machine/file/recording.ts';
import { formatMachine } from '../src/machine/file/write.ts';
import type { Machine } from '../src/machine/machine.ts';
import * as vfio from '../src/uapi/vfio.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const TOPOLOGIES = join(process.env['UIOMMU_SHARED'] ?? join(root, '..', 'shared'), 'topologies');

type Answer = { readonly call: string; readonly code: string; readonly reason: string } | undefined;

/** Who is named as owner in a reason differs from one open to the next. */
function comparable(refusal: Refusal | Answer): string {
  if (refusal === undefined) return 'ok';
  const { call, code, reason } = refusal;
  const missing = call.startsWith('open') && code === 'ENOENT';
  const named = reason
    .replaceAll(/iommufd \d+ of process \d+/g, 'the client')
    .replaceAll('user space', 'the client');
  return missing ? `${call.replace(/vfio\d+/, 'vfioN')}: ENOENT` : `${call}: ${code}: ${named}`;
}

/** Makes calls until one is refused. */
function firstRefusal(calls: readonly (readonly [name: string, make: () => unknown])[]): Answer {
  for (const [call, make] of calls) {
    try {
      make();
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      return { call, code: error.code, reason: error.message };
    }
  }
  return undefined;
}

/** The node of a device; a program finds it in sysfs. */
function nodeOf(kernel: Kernel, device: string, count: number): string | undefined {
  for (let index = 0; index < count; index++) {
    const path = `/dev/vfio/devices/vfio${index}`;
    if (kernel.lookup(path) === undefined) continue;
    const file = kernel.open(path, new InProcessClient());
    const found = file.name.includes(device);
    file.release();
    if (found) return path;
  }
  return undefined;
}

function askNode(kernel: Kernel, device: string, count: number): Answer {
  const client = new InProcessClient();
  const path = nodeOf(kernel, device, count) ?? '/dev/vfio/devices/vfioN';
  let node: ClientFile | undefined;
  let iommufd: ClientFile | undefined;
  let ioas = 0;
  const answer = firstRefusal([
    [`open ${path}`, () => (node = client.open(kernel, path))],
    ['open /dev/iommu', () => (iommufd = client.open(kernel, '/dev/iommu'))],
    [
      'VFIO_DEVICE_BIND_IOMMUFD',
      () =>
        client.call(
          node?.fd ?? -1,
          { number: vfio.VFIO_DEVICE_BIND_IOMMUFD, struct: vfio.vfio_device_bind_iommufd },
          { argsz: vfio.vfio_device_bind_iommufd.size, iommufd: iommufd?.fd ?? -1 },
        ),
    ],
    ['IOMMU_IOAS_ALLOC', () => (ioas = iommufd?.ioctl('IOMMU_IOAS_ALLOC').out_ioas_id ?? 0)],
    [
      'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
      () =>
        client.call(
          node?.fd ?? -1,
          {
            number: vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
            struct: vfio.vfio_device_attach_iommufd_pt,
          },
          { argsz: vfio.vfio_device_attach_iommufd_pt.endOf('pt_id'), pt_id: ioas },
        ),
    ],
  ]);
  client.exit();
  return answer;
}

function askGroup(kernel: Kernel, device: string, group: number | undefined): Answer {
  const client = new InProcessClient();
  const path = `/dev/vfio/${group ?? 'GROUP'}`;
  const address = client.allocate(1);
  let file: ClientFile | undefined;
  let container: ClientFile | undefined;
  const call = (to: ClientFile | undefined, number: number, argument: bigint): number =>
    client.ioctl(to?.fd ?? -1, number, argument);
  const answer = firstRefusal([
    [`open ${path}`, () => (file = client.open(kernel, path))],
    ['open /dev/vfio/vfio', () => (container = client.open(kernel, '/dev/vfio/vfio'))],
    [
      'VFIO_GROUP_SET_CONTAINER',
      () => {
        const fd = new Uint8Array(4);
        new DataView(fd.buffer).setInt32(0, container?.fd ?? -1, true);
        client.write(address, fd);
        call(file, vfio.VFIO_GROUP_SET_CONTAINER, address);
      },
    ],
    ['VFIO_SET_IOMMU', () => call(container, vfio.VFIO_SET_IOMMU, BigInt(vfio.VFIO_TYPE1v2_IOMMU))],
    [
      'VFIO_GROUP_GET_DEVICE_FD',
      () => {
        client.write(address, new TextEncoder().encode(`${device}\0`));
        call(file, vfio.VFIO_GROUP_GET_DEVICE_FD, address);
      },
    ],
  ]);
  client.exit();
  return answer;
}

/** What a program is answered by each interface. */
function ask(
  kernel: Kernel,
  machine: Machine,
  device: string,
  profile: ProfileName,
): Record<InterfaceName, Answer> {
  const pci = machine.get(device);
  const group = pci && groupsOf(machine, profile).groupOf(pci)?.id;
  return {
    iommufd: askNode(kernel, device, machine.deviceCount),
    container: askGroup(kernel, device, group),
  };
}

type File = {
  devices: { address: string; driver?: string; group?: number; physfn?: string; config: string }[];
  groups?: { id: number; reserved?: object[] }[];
};

const CAPTURE = { kernel: '7.3', readAs: 'root', unreadable: [] } as const;

/** The machine written down, changed, and read again: an observed one, whose groups are those of its kernel. */
function changed(machine: Machine, change: (file: File) => void): Machine {
  const file = JSON.parse(formatMachine(machine, CAPTURE)) as File;
  change(file);
  return loadMachine(JSON.stringify(file), machine.name);
}

/** The machine after the steps that `why` names. */
function after(machine: Machine, profile: ProfileName, device: string): Machine | undefined {
  const { answer, operations, obstacles } = assess(machine, device, { profile });
  if (answer !== 'not-yet' || obstacles.some(({ code }) => code === 'EACCES')) return undefined;
  const groups = groupsOf(machine, profile);
  return changed(machine, (file) => {
    for (const row of file.devices) {
      const pci = machine.get(row.address);
      const id = pci && groups.groupOf(pci)?.id;
      if (id !== undefined) row.group = id;
    }
    for (const operation of operations) {
      if (operation.kind === 'disable-vfs') {
        file.devices = file.devices.filter(({ physfn }) => physfn !== operation.device);
        continue;
      }
      for (const row of file.devices) {
        if (row.address !== operation.device) continue;
        if (operation.kind === 'bind') row.driver = 'vfio-pci';
        else delete row.driver;
      }
    }
  });
}

type Tally = { devices: number; answers: Record<string, number>; differences: string[] };

function compare(machine: Machine, profile: ProfileName, tally: Tally): void {
  const kernel = bootMachine(machine, { check: true, profile });
  for (const { name } of [...machine.devices]) {
    const { trials, answer } = assess(machine, name, { profile });
    const answers = ask(kernel, machine, name, profile);
    tally.devices++;
    tally.answers[answer] = (tally.answers[answer] ?? 0) + 1;
    for (const { interface: by, refusal } of trials) {
      const [why, run] = [comparable(refusal), comparable(answers[by])];
      if (why !== run)
        tally.differences.push(`${machine.name} ${profile} ${name}: why ${why}, run ${run}`);
    }
  }
}

/** Where `why` says "not yet", the machine with its steps done answers yes by one interface at least. */
function follow(machine: Machine, profile: ProfileName, tally: Tally): void {
  for (const { name } of [...machine.devices]) {
    const ready = after(machine, profile, name);
    if (ready === undefined) continue;
    tally.devices++;
    const answers = ask(bootMachine(ready, { profile }), ready, name, profile);
    if (answers.iommufd === undefined || answers.container === undefined) continue;
    tally.differences.push(
      `${machine.name} ${name}: ${comparable(answers.iommufd)} after all steps`,
    );
  }
}

function newTally(): Tally {
  return { devices: 0, answers: {}, differences: [] };
}

function recordings(): Machine[] {
  return readdirSync(TOPOLOGIES)
    .filter((name) => name.endsWith('.txt.gz'))
    .sort()
    .map((name) => parseDump(gunzipSync(readFileSync(join(TOPOLOGIES, name))).toString(), name));
}

const WRITTEN = `devices:
  - { address: "00:00.0", type: host-bridge }
  - { address: "00:1c.0", type: root-port, acs: none, secondary: "01", driver: pcieport }
  - { address: "01:00.0", class: "030000", driver: vfio-pci }
  - { address: "01:00.1", class: "040300", driver: snd_hda_intel }
  - { address: "00:1d.0", type: root-port, acs: on, secondary: "02", driver: pcieport }
  - { address: "02:00.0", driver: vfio-pci, reserved: [{ start: 0x1000, last: 0x1fff, type: direct }] }
  - { address: "02:00.1", acs: on, driver: e1000e, iommu: none }
  - { address: "00:1e.0", type: root-port, secondary: "03", driver: pcieport }
  - { address: "03:00.0", driver: vfio-pci, sriov: { total: 2, enabled: 2, offset: 8 } }
  - { address: "03:01.0", physfn: "03:00.0", driver: vfio-pci }
  - { address: "03:01.1", physfn: "03:00.0", driver: igbvf }
  - { address: "00:1f.0", type: root-port, secondary: "04", driver: pcieport }
  - { address: "04:00.0", driver: mlx5_core, sriov: { total: 2, enabled: 2, offset: 8 } }
`;
const NO_REMAPPING = WRITTEN.replace('devices:', 'iommu: { interrupt-remapping: false }\ndevices:');

test('why and run agree on the built-in machines and on one with every rule, under every profile', () => {
  const tally = newTally();
  const texts = { ...BUILTIN_MACHINES, written: WRITTEN, 'no remapping': NO_REMAPPING };
  for (const [name, text] of Object.entries(texts)) {
    const machine = loadMachine(text, name);
    if (machine.kind === 'selftest') continue;
    for (const profile of PROFILE_NAMES) {
      compare(machine, profile, tally);
      follow(machine, profile, tally);
    }
  }
  assert.deepEqual(tally.differences, []);
  for (const answer of ['yes', 'not-yet', 'no'])
    assert.ok((tally.answers[answer] ?? 0) > 0, answer);
});

test('why and run agree on every recorded topology', (t) => {
  if (!existsSync(TOPOLOGIES)) {
    t.skip(`there are no recorded machines in ${TOPOLOGIES}`);
    return;
  }
  const tally = newTally();
  for (const machine of recordings()) compare(machine, 'linux', tally);
  assert.deepEqual(tally.differences, []);
  assert.ok(tally.devices > 1000, `${tally.devices} devices`);
});

test('why and run agree on captures with groups that no rule gives and regions listed by group', (t) => {
  if (!existsSync(TOPOLOGIES)) {
    t.skip(`there are no recorded machines in ${TOPOLOGIES}`);
    return;
  }
  const tally = newTally();
  for (const [index, machine] of recordings().entries()) {
    const capture = changed(machine, (file) => {
      for (const [at, row] of file.devices.entries()) {
        // As an ACS override leaves them: each in a group of its own, far from the numbers that the rules give.
        if (row.group !== undefined && (at + index) % 2 === 0) row.group = 1000 + at;
        if (row.driver !== 'pcieport' && at % 3 === 0) row.driver = 'vfio-pci';
      }
      const direct = { start: '0x1000', last: '0x1fff', type: 'direct' };
      file.groups = [...(file.groups ?? []), { id: 1000 + index, reserved: [direct] }];
    });
    compare(capture, 'linux', tally);
    if (index % 10 === 0) follow(capture, 'linux', tally);
  }
  assert.deepEqual(tally.differences, []);
  for (const answer of ['yes', 'not-yet', 'no'])
    assert.ok((tally.answers[answer] ?? 0) > 0, answer);
});
