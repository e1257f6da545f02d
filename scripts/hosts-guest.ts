/**
 * What runs inside the machines of `npm run hosts`, on a real Linux: the command `uiommu` about this computer, and beside it the
 * same questions put to the kernel. Prints one JSON line for each comparison.
 *
 * - `ls --json` against /sys: groups, members, drivers. A capture against the host (`diff`).
 * - For each device: what `why --json` says of both interfaces against what the kernel answers to the same calls, before and
 *   after the commands that `why` prints.
 *
 * Nothing here knows a rule: the kernel's answers come from its files, uiommu's from its commands.
 */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync, readdirSync, readlinkSync, writeFileSync, writeSync } from 'node:fs';
import { basename, join } from 'node:path';
import { errnoName } from '../src/base/errno.ts';
import { main } from '../src/cli/main.ts';
import { allocate } from '../src/os/arena.ts';
import { sys } from '../src/os/libc.ts';
import { NR } from '../src/os/numbers.ts';
import * as vfio from '../src/uapi/vfio.ts';
import { IOMMU_IOAS_ALLOC } from '../src/uapi/iommufd.ts';

const DEVICES = '/sys/bus/pci/devices';
const memory = allocate(64);

type Interface = {
  readonly name: string;
  readonly refused?: { call: string; errno: string } | null;
};
type Why = { answer: string; interfaces: Interface[]; commands: string[]; notRead: string[] };
type Group = { readonly id: number; readonly members: string[] };

/** Runs a command of uiommu in this process. @returns its status and what it printed */
async function uiommu(...args: string[]): Promise<{ status: number; output: string }> {
  let output = '';
  const write = process.stdout.write.bind(process.stdout);
  process.stdout.write = (text: string | Uint8Array): boolean => {
    output += text.toString();
    return true;
  };
  try {
    return { status: await main(args), output };
  } finally {
    process.stdout.write = write;
  }
}

function report(what: string, expected: unknown, found: unknown): void {
  const same = JSON.stringify(expected) === JSON.stringify(found);
  writeSync(1, `${JSON.stringify({ what, same, linux: expected, uiommu: found })}\n`);
}

/** Names of a folder; none where there is no such folder. */
function names(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function link(path: string): string | undefined {
  try {
    return basename(readlinkSync(path));
  } catch {
    return undefined;
  }
}

/** A call that the kernel refused ends an attempt. */
class Refused extends Error {
  readonly call: string;
  readonly errno: string;

  constructor(call: string, errno: number) {
    super(call);
    this.call = call;
    this.errno = errnoName(errno) ?? String(errno);
  }
}

class Attempt {
  readonly #fds: number[] = [];

  open(path: string, called = path): number {
    try {
      const fd = openSync(path, 'r+');
      this.#fds.push(fd);
      return fd;
    } catch (error) {
      throw new Refused(`open ${called}`, -((error as { errno?: number }).errno ?? 0));
    }
  }

  /** A file that a call made. */
  add(fd: number): void {
    this.#fds.push(fd);
  }

  /** @param words of the struct, each 4 bytes; or the argument itself */
  ioctl(name: string, fd: number, command: number, words: readonly number[] | bigint): number {
    if (typeof words !== 'bigint') {
      words.forEach((word, i) => {
        memory.view.setUint32(4 * i, word >>> 0, true);
      });
    }
    const argument = typeof words === 'bigint' ? words : memory.address;
    const result = sys(NR.ioctl, fd, command, argument);
    if (result < 0) throw new Refused(name, -result);
    return result;
  }

  close(): void {
    for (const fd of this.#fds.reverse()) closeSync(fd);
  }
}

function tryIommufd(attempt: Attempt, device: string): void {
  const node = names(join(DEVICES, device, 'vfio-dev'))[0] ?? 'vfioN';
  const cdev = attempt.open(`/dev/vfio/devices/${node}`);
  const iommufd = attempt.open('/dev/iommu');
  attempt.ioctl('VFIO_DEVICE_BIND_IOMMUFD', cdev, vfio.VFIO_DEVICE_BIND_IOMMUFD, [
    16,
    0,
    iommufd,
    0,
  ]);
  attempt.ioctl('IOMMU_IOAS_ALLOC', iommufd, IOMMU_IOAS_ALLOC, [12, 0, 0]);
  const ioas = memory.view.getUint32(8, true);
  const command = vfio.VFIO_DEVICE_ATTACH_IOMMUFD_PT;
  attempt.ioctl('VFIO_DEVICE_ATTACH_IOMMUFD_PT', cdev, command, [12, 0, ioas]);
}

function tryContainer(attempt: Attempt, device: string): void {
  const id = link(join(DEVICES, device, 'iommu_group')) ?? 'GROUP';
  const group = attempt.open(`/dev/vfio/${id}`);
  const container = attempt.open('/dev/vfio/vfio');
  attempt.ioctl('VFIO_GROUP_SET_CONTAINER', group, vfio.VFIO_GROUP_SET_CONTAINER, [container]);
  const type = BigInt(vfio.VFIO_TYPE1v2_IOMMU);
  attempt.ioctl('VFIO_SET_IOMMU', container, vfio.VFIO_SET_IOMMU, type);
  const text = Buffer.from(`${device}\0`);
  memory.bytes.set(text);
  const address = BigInt(memory.address);
  const command = vfio.VFIO_GROUP_GET_DEVICE_FD;
  attempt.add(attempt.ioctl('VFIO_GROUP_GET_DEVICE_FD', group, command, address));
}

const INTERFACES = { iommufd: tryIommufd, container: tryContainer } as const;

/** What the kernel answers: "claimed", or the call that it refused and the errno. */
function kernelSays(device: string, act: (attempt: Attempt, device: string) => void): string {
  const attempt = new Attempt();
  try {
    act(attempt, device);
    return 'claimed';
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return `${error.call}: ${error.errno}`;
  } finally {
    attempt.close();
  }
}

async function why(device: string): Promise<Why | undefined> {
  const { status, output } = await uiommu('why', device, '--json');
  if (status > 1) return undefined;
  return JSON.parse(output) as Why;
}

async function compareDevice(device: string, when: string): Promise<Why | undefined> {
  const said = await why(device);
  for (const [name, act] of Object.entries(INTERFACES)) {
    const found = said?.interfaces.find((each) => each.name === name);
    const refused = found?.refused ?? undefined;
    const words =
      found === undefined
        ? 'no answer'
        : refused === undefined
          ? 'claimed'
          : `${refused.call}: ${refused.errno}`;
    report(`${device} ${name} ${when}`, kernelSays(device, act), words);
  }
  return said;
}

/** Groups as /sys has them, by number. */
function kernelGroups(): Group[] {
  const root = '/sys/kernel/iommu_groups';
  return names(root)
    .map((id) => ({ id: Number(id), members: names(join(root, id, 'devices')).sort() }))
    .sort((a, b) => a.id - b.id);
}

async function compareHost(): Promise<void> {
  const { output } = await uiommu('ls', '--json');
  const { groups } = JSON.parse(output) as { groups: Group[] };
  const seen = groups.map(({ id, members }) => ({ id, members: [...members].sort() }));
  report('ls: groups', kernelGroups(), seen);
  const capture = await uiommu('capture');
  writeFileSync('/tmp/capture.json', capture.output);
  const difference = await uiommu('diff', '/tmp/capture.json');
  report('diff: capture and host are equal', 0, difference.status);
}

await compareHost();
for (const device of names(DEVICES).sort()) {
  const said = await compareDevice(device, 'as found');
  if (said?.answer !== 'not-yet') continue;
  for (const command of said.commands) {
    // A command that fails shows in what the kernel answers afterwards.
    try {
      execFileSync('/bin/sh', ['-c', command], { stdio: 'ignore' });
    } catch {
      writeSync(
        1,
        `${JSON.stringify({ what: `${device}: ${command}`, same: true, failed: true })}\n`,
      );
    }
  }
  const after = await compareDevice(device, "after why's commands");
  report(`${device}: why's commands make it assignable`, 'yes', after?.answer);
}
