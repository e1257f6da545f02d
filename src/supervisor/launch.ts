/**
 * Starts a client under the filter. The child installs the filter on itself, gets back what Node took (signals, limit,
 * descriptors), and becomes the program; its exec is the first call that the supervisor answers. No thread of this process
 * is under the filter, so it never waits for itself.
 *
 * The program is found as execvp(3) finds it: the folders of PATH in turn, and /bin/sh for a file that is no executable
 * format.
 */
import { ERRNO, errnoName } from '../base/errno.ts';
import { allocate, type Block } from '../os/arena.ts';
import { exitCall, startProcess, systemCall, type Child, type SystemCall } from '../os/child.ts';
import { closeFile } from '../os/files.ts';
import { NR } from '../os/numbers.ts';
import { fileLimits } from '../os/process.ts';
import { filterCalls, installError } from '../os/seccomp.ts';
import { UnsupportedError } from '../os/unsupported.ts';
import {
  argumentBytes,
  ignoredSignals,
  inheritedDescriptors,
  inheritedEnvironment,
  nodeChannel,
} from './inherited.ts';

/** What to start, and how. */
export type Client = {
  readonly argv: readonly string[];
  /** assembled BPF */
  readonly filter: Uint8Array;
  /** soft limit of open files */
  readonly files: number;
};

const OWN_FAILURE = 125; // as env, timeout and container tools say it
const CANNOT_EXECUTE = 126;
const NOT_FOUND = 127;

/** The client could not be started; the message says why. */
export class LaunchError extends Error {
  override readonly name = 'LaunchError';
  /** exit status that says so to a shell */
  readonly status: number;

  constructor(message: string, status = OWN_FAILURE) {
    super(message);
    this.status = status;
  }
}

const SIGNALS = 64;
const SIGKILL = 9;
const SIGSTOP = 19;
const SIGNAL_SET = 8;
const SIG_SETMASK = 2;
const ACTION_SIZE = 32;
const SIG_IGN = 1n;
const PR_SET_PDEATHSIG = 1;
const RLIMIT_NOFILE = 7;
const F_SETFD = 2;
const CLOSE_RANGE_UNSHARE = 2;
const HIGHEST_FD = 0x7fff_ffff;
const POINTER = 8;
const ENOEXEC = 8;

const { ENOENT, EACCES, ENOTDIR, ENODEV, EBADF } = ERRNO;
// A folder of PATH where this happens is passed over.
const NOT_HERE = [ENOENT, EACCES, ENOTDIR, ENODEV];

function terminated(bytes: Uint8Array): Block {
  const block = allocate(bytes.length + 1);
  block.bytes.set(bytes);
  return block;
}

/** A vector of strings as exec takes it. */
function vector(strings: readonly Uint8Array[]): number {
  const pointers = (strings.length + 1) * POINTER;
  const block = allocate(pointers + strings.reduce((sum, { length }) => sum + length + 1, 0));
  let at = pointers;
  strings.forEach((bytes, i) => {
    block.view.setBigUint64(i * POINTER, BigInt(block.address + at), true);
    block.bytes.set(bytes, at);
    at += bytes.length + 1;
  });
  return block.address;
}

/** Default actions for all signals but those that are to be ignored: no handler of ours may run in the child. */
function signalCalls(ignored: ReadonlySet<number>): SystemCall[] {
  const byDefault = allocate(ACTION_SIZE).address;
  const ignoring = allocate(ACTION_SIZE);
  ignoring.view.setBigUint64(0, SIG_IGN, true);
  const calls: SystemCall[] = [];
  for (let signal = 1; signal <= SIGNALS; signal++) {
    if (signal === SIGKILL || signal === SIGSTOP) continue;
    const action = ignored.has(signal) ? ignoring.address : byDefault;
    calls.push(systemCall(NR.rt_sigaction, [signal, action, 0, SIGNAL_SET]));
  }
  return calls;
}

function limitCall(soft: number): SystemCall {
  const limit = allocate(16);
  const hard = fileLimits(process.pid)?.hard ?? soft;
  [Math.min(soft, hard), hard].forEach((value, i) => {
    limit.view.setBigInt64(8 * i, value === Infinity ? -1n : BigInt(value), true);
  });
  return systemCall(NR.prlimit64, [0, RLIMIT_NOFILE, limit.address, 0]);
}

const DEFAULT_PATH = '/bin:/usr/bin';

/** The files that may be meant, in order. */
function candidates(name: Buffer, environment: readonly Buffer[]): Buffer[] {
  if (name.length === 0 || name.includes('/')) return [name];
  const setting = environment.find((each) => each.subarray(0, 5).toString() === 'PATH=');
  const path = setting?.subarray(5).toString('latin1') ?? DEFAULT_PATH;
  return path.split(':').map((folder) => {
    const prefix = Buffer.from(folder === '' ? '' : `${folder}/`, 'latin1');
    return Buffer.concat([prefix, name]);
  });
}

function execCalls(argv: readonly Buffer[], environment: readonly Buffer[]): SystemCall[] {
  const [name = Buffer.alloc(0), ...rest] = argv;
  const env = vector(environment);
  const args = vector(argv);
  const shell = Buffer.from('/bin/sh');
  const shellPath = terminated(shell).address;
  return candidates(name, environment).flatMap((path): SystemCall[] => [
    {
      ...systemCall(NR.execve, [terminated(path).address, args, env], [ENOEXEC]),
      skipsNext: NOT_HERE,
    },
    systemCall(NR.execve, [shellPath, vector([shell, path, ...rest]), env]),
  ]);
}

function cannotStart(name: string, errno: number): LaunchError {
  const code = errnoName(errno) ?? `errno ${errno}`;
  const why: Readonly<Record<number, string>> = {
    [ENOENT]: name.includes('/')
      ? 'there is no such file, or the interpreter that it names is missing'
      : 'no folder of PATH has a program of that name',
    [EACCES]: 'it is not a regular file, or not executable',
  };
  const reason = why[errno] ?? 'the kernel refuses to execute it';
  const status = errno === ENOENT ? NOT_FOUND : CANNOT_EXECUTE;
  return new LaunchError(`cannot start ${JSON.stringify(name)}: ${reason} (${code})`, status);
}

/** A client that was started; its exec waits for the supervisor. */
export class Launched {
  readonly listener: number;
  readonly #child: Child;
  readonly #name: string;
  /** where the calls to exec are in its list: [first, after the last] */
  readonly #execs: readonly [number, number];

  constructor(child: Child, listener: number, name: string, execs: readonly [number, number]) {
    this.#child = child;
    this.listener = listener;
    this.#name = name;
    this.#execs = execs;
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** Why the program did not start; undefined if it did, or was killed before. To be asked when the process has ended. */
  get failure(): LaunchError | undefined {
    const { index, errno } = this.#child.position;
    if (errno !== undefined) return cannotStart(this.#name, errno);
    const [first, end] = this.#execs;
    if (index < end) return undefined;
    // All were passed over; one that may not be executed is what was meant.
    let forbidden = false;
    for (let exec = first; exec < end; exec++) forbidden ||= this.#child.answer(exec) === -EACCES;
    return cannotStart(this.#name, forbidden ? EACCES : ENOENT);
  }
}

const emptySet = allocate(SIGNAL_SET);

/** Starts a client. Made first of all: it takes down what uiommu was started with before anything of that changes. */
export class Launcher {
  readonly #descriptors = inheritedDescriptors();
  readonly #ignored = ignoredSignals();

  /**
   * Starts a client, which becomes the program once its calls are answered.
   * @throws UnsupportedError, LaunchError
   */
  start({ argv, filter, files }: Client): Launched {
    const environment = inheritedEnvironment();
    const before = [
      ...signalCalls(this.#ignored),
      // Its descendants are the guard's business (os/guard.ts); this one need not even make a call.
      systemCall(NR.prctl, [PR_SET_PDEATHSIG, SIGKILL]),
      ...filterCalls(filter),
      // Not below KNOWN_NUMBERS: the filter would hold it up, and nobody answers yet.
      systemCall(NR.close_range, [HIGHEST_FD, HIGHEST_FD, CLOSE_RANGE_UNSHARE]),
      ...[0, 1, 2, ...this.#descriptors].map((fd) =>
        systemCall(NR.fcntl, [fd, F_SETFD, 0], [EBADF]),
      ),
      limitCall(files),
      systemCall(NR.rt_sigprocmask, [SIG_SETMASK, emptySet.address, 0, SIGNAL_SET]),
    ];
    const execs = execCalls(argumentBytes(argv), environment);
    const child = startProcess([...before, ...execs, exitCall(NOT_FOUND)]);
    if (typeof child === 'number') throw noProcess(-child);
    const unshared = before.findIndex(({ nr }) => nr === NR.close_range);
    const listener = child.wait(unshared) === 0 ? (child.answer(unshared - 1) ?? -1) : -1;
    if (listener < 0) throw notPrepared(child);
    this.#closeInherited();
    return new Launched(child, listener, argv[0] ?? '', [
      before.length,
      before.length + execs.length,
    ]);
  }

  // The program is not to wait for us at the other end of its own pipes.
  #closeInherited(): void {
    const channel = nodeChannel();
    for (const fd of this.#descriptors) if (fd !== channel) closeFile(fd);
  }
}

export function startLauncher(): Launcher {
  return new Launcher();
}

const EAGAIN = 11;

function noProcess(errno: number): LaunchError {
  const why = errno === EAGAIN ? 'the limit of processes is reached (RLIMIT_NPROC)' : 'clone fails';
  return new LaunchError(`cannot start a process: ${why} (errno ${errno})`);
}

function notPrepared(child: Child): Error {
  const { errno } = child.position;
  if (errno === undefined)
    return new LaunchError('the process was killed before its program began');
  return new UnsupportedError(installError(errno));
}
