/**
 * What uiommu was started with, as bytes and numbers, so that the program can be started with the same: environment,
 * arguments, descriptors, ignored signals.
 *
 * Node changes some of it before any of our code runs, and what it changes is found out from what is left:
 * - descriptors: Node marks the first ones close-on-exec, and opens some of its own, which are known by their kinds;
 * - ignored signals: Node resets those below 32, so those of the parent are asked (see IGNORED_BY_WISH);
 * - the mask of blocked signals: Node clears it, and nothing is left to ask;
 * - closed standard descriptors: Node opens /dev/null there.
 *
 * docs/divergence.md says what a program can see of that.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { constants } from 'node:os';

import { readLink, readText } from '../os/files.ts';
import { O_ACCMODE, O_CLOEXEC, O_NONBLOCK } from '../os/numbers.ts';

const STANDARD = 3;

/** Bytes as NUL-terminated strings of /proc. */
function strings(path: string): Buffer[] {
  const bytes = readFileSync(path);
  const found: Buffer[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = bytes.indexOf(0, at);
    found.push(bytes.subarray(at, end < 0 ? bytes.length : end));
    at = end < 0 ? bytes.length : end + 1;
  }
  return found;
}

/** The environment, one NAME=value each. */
export function inheritedEnvironment(): readonly Buffer[] {
  return strings('/proc/self/environ');
}

/**
 * The bytes of the program's arguments: the last ones of our own, where they are the same as text; what Node made of them
 * otherwise.
 */
export function argumentBytes(argv: readonly string[]): readonly Buffer[] {
  const own = strings('/proc/self/cmdline').slice(-argv.length);
  const same = own.length === argv.length && own.every((bytes, i) => bytes.toString() === argv[i]);
  return same ? own : argv.map((text) => Buffer.from(text));
}

type Descriptor = { readonly fd: number; readonly kind: string; readonly flags: number };

function descriptors(): Descriptor[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .toSorted((a, b) => a - b)
    .flatMap((fd) => {
      const kind = readLink(`/proc/self/fd/${fd}`);
      const flags = /^flags:\s*([0-7]+)/m.exec(readText(`/proc/self/fdinfo/${fd}`) ?? '')?.[1];
      if (typeof kind === 'number' || flags === undefined) return [];
      return [{ fd, kind, flags: parseInt(flags, 8) }];
    });
}

/**
 * Which of the descriptors from 3 on were there before Node. Those that are not close-on-exec were. Of the others Node has
 * made some, in ascending order, in the free places: for each event loop of libuv an epoll instance, then one io_uring at most,
 * a pipe and an eventfd that do not block, and for all loops one pipe that does.
 * @param all ascending
 */
export function inheritedAmong(all: readonly Descriptor[]): number[] {
  const due = new Map<string, number>();
  const owe = (kind: string): void => {
    due.set(kind, (due.get(kind) ?? 0) + 1);
  };
  const pipes = new Set<string>();
  let loops = 0;
  const ownOne = ({ kind, flags }: Descriptor): boolean => {
    if (kind === EPOLL) {
      if (loops++ === 0) owe(BLOCKING_PIPE);
      [IO_URING, PIPE, EVENTFD].forEach(owe);
      return true;
    }
    if (pipes.has(kind)) return true;
    const wanted = dueKind(kind, flags);
    const left = due.get(wanted) ?? 0;
    if (left === 0) return false;
    due.set(wanted, left - 1);
    if (kind.startsWith('pipe:')) pipes.add(kind);
    return true;
  };
  return all
    .filter(({ fd }) => fd >= STANDARD)
    .filter((each) => (each.flags & O_CLOEXEC) === 0 || !ownOne(each))
    .map(({ fd }) => fd);
}

const EPOLL = 'anon_inode:[eventpoll]';
const IO_URING = 'anon_inode:[io_uring]';
const EVENTFD = 'anon_inode:[eventfd]';
const PIPE = 'pipe';
const BLOCKING_PIPE = 'pipe that blocks';

function dueKind(kind: string, flags: number): string {
  const waits = (flags & O_NONBLOCK) === 0;
  if (kind.startsWith('pipe:')) {
    // Both ends are made at once, the one to read from first.
    if ((flags & O_ACCMODE) !== 0) return '';
    return waits ? BLOCKING_PIPE : PIPE;
  }
  return kind === EVENTFD && waits ? '' : kind;
}

/** Descriptors from 3 on that the program is to have. Asked before uiommu opens its own. */
export function inheritedDescriptors(): readonly number[] {
  return inheritedAmong(descriptors());
}

/** The descriptor by which Node talks to a parent that is Node; closing it would be closing Node's own. */
export function nodeChannel(): number | undefined {
  const value = inheritedEnvironment()
    .map(String)
    .find((text) => text.startsWith('NODE_CHANNEL_FD='));
  return value === undefined ? undefined : Number(value.split('=')[1]);
}

const FIRST_REALTIME = 32;
/**
 * What shells hand down where a script has set trap '' SIGNAL. The others (TERM, QUIT and the stops) interactive shells
 * ignore for themselves alone, and PIPE and XFSZ the runtimes of Python, Go and Node.
 */
const IGNORED_BY_WISH = (['SIGHUP', 'SIGINT', 'SIGUSR1', 'SIGUSR2', 'SIGALRM'] as const).map(
  (name) => constants.signals[name],
);

function ignoredBy(pid: number | string): bigint {
  const mask = /^SigIgn:\s*([0-9a-f]+)/m.exec(readText(`/proc/${pid}/status`) ?? '')?.[1];
  return BigInt(`0x${mask ?? '0'}`);
}

/** Numbers of the signals that the program is to ignore. */
export function ignoredSignals(): ReadonlySet<number> {
  const [own, parent] = [ignoredBy('self'), ignoredBy(process.ppid)];
  const ignored = new Set<number>();
  for (let signal = FIRST_REALTIME; signal <= 64; signal++) {
    if ((own & (1n << BigInt(signal - 1))) !== 0n) ignored.add(signal);
  }
  for (const signal of IGNORED_BY_WISH) {
    if ((parent & (1n << BigInt(signal - 1))) !== 0n) ignored.add(signal);
  }
  return ignored;
}
