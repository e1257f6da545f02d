/**
 * Clients for tests of the supervisor, as a program of its own: node client.js CASE. It makes system calls as any program
 * does and prints what it sees; it knows nothing of uiommu but the numbers of the stub's ioctls.
 */
import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';

import { allocate, type Block } from '../../src/os/arena.ts';
import { sys } from '../../src/os/libc.ts';
import { NR } from '../../src/os/numbers.ts';
import { STUB, STUB_PATH } from './stub-device.ts';

const PAGE = 4096;
const PROT_NONE = 0;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const NR_MPROTECT = 10;
const NR_MUNMAP = 11;
const NR_DUP2 = 33;
const F_SETFD = 2;

const self = fileURLToPath(import.meta.url);
const words: Block = allocate(32);

type Four = readonly [number | bigint, (number | bigint)?, (number | bigint)?, (number | bigint)?];

function set(values: Four): void {
  [0, 1, 2, 3].forEach((i) => {
    words.view.setBigUint64(8 * i, BigInt(values[i] ?? 0), true);
  });
}

const word = (index: number): bigint => words.view.getBigUint64(8 * index, true);

/** One ioctl of the stub: the words afterwards, or the negative errno. */
function call(fd: number, command: number, values: Four = [0]): bigint[] | number {
  set(values);
  const result = sys(NR.ioctl, fd, command, words.address);
  return result < 0 ? result : [0, 1, 2, 3].map(word);
}

function mustCall(fd: number, command: number, values: Four = [0]): bigint[] {
  const result = call(fd, command, values);
  if (typeof result === 'number')
    throw new Error(`ioctl 0x${command.toString(16)}: errno ${-result}`);
  return result;
}

function map(length: number, protection: number, flags: number, fd = -1, offset = 0): number {
  const address = sys(NR.mmap, 0, length, protection, flags, fd, offset);
  if (address < 0) throw new Error(`mmap: errno ${-address}`);
  return address;
}

const open = (): number => openSync(STUB_PATH, 'r+');
const print = (...values: readonly unknown[]): void => {
  writeSync(1, `${values.join(' ')}\n`);
};
const privatePages = (count: number): number =>
  map(count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
const pin = (fd: number, address: number, length: number, write = 1): bigint =>
  mustCall(fd, STUB.PIN, [address, length, write])[3] ?? -1n;
const peek = (fd: number, number: bigint, offset = 0): bigint =>
  mustCall(fd, STUB.PEEK, [number, offset])[2] ?? -1n;

/** Writes a word to own memory by its address, without a view of it. */
function poke(address: number, value: number): void {
  set([value]);
  const parts = allocate(32);
  parts.view.setBigUint64(0, BigInt(words.address), true);
  parts.view.setBigUint64(8, 8n, true);
  parts.view.setBigUint64(16, BigInt(address), true);
  parts.view.setBigUint64(24, 8n, true);
  sys(NR.process_vm_writev, process.pid, parts.address, 1, parts.address + 16, 1, 0);
}

const wait = (milliseconds: number): void => {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
};

/** Starts an ioctl in another thread and returns when it surely runs; the promise within gives its result. */
async function startIoctl(
  fd: number,
  command: number,
  address: number,
): Promise<{ done: Promise<unknown> }> {
  const worker = new Worker(self, { argv: ['ioctl'], workerData: [fd, command, address] });
  await new Promise((resolve) => worker.once('message', resolve));
  const done = new Promise((resolve) => worker.once('message', resolve));
  await new Promise((resolve) => setTimeout(resolve, 100));
  return { done };
}

/** A thread of this program that runs a case of its own. */
function thread(name: string, data: unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(self, { argv: [name], workerData: data });
    worker.once('message', resolve);
    worker.once('error', reject);
  });
}

const CASES: Record<string, (...args: string[]) => void | Promise<void>> = {
  echo() {
    print(mustCall(open(), STUB.ECHO, [41])[1]);
  },

  badPointers() {
    const fd = open();
    const unreadable = map(PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
    const readOnly = map(PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS);
    const edge = map(2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    sys(NR_MUNMAP, edge + PAGE, PAGE);
    const high = 0xffff_ffff_ffff_fff0n;
    const kernel = 0xffff_8880_0000_0000n;
    for (const address of [0, 1, unreadable, readOnly, edge + PAGE - 16]) {
      print(sys(NR.ioctl, fd, STUB.ECHO, address));
    }
    for (const address of [high, kernel]) {
      print(sys(NR.ioctl, fd, STUB.ECHO, BigInt.asIntN(64, address)));
    }
    print(mustCall(fd, STUB.ECHO, [1])[1]);
  },

  badFiles() {
    const fd = open();
    const other = openSync('/dev/null', 'r+');
    print(sys(NR.ioctl, other, STUB.ECHO, words.address));
    print(sys(NR.ioctl, 9999, STUB.ECHO, words.address));
    print(sys(NR.ioctl, -1, STUB.ECHO, words.address));
    closeSync(fd);
    print(sys(NR.ioctl, fd, STUB.ECHO, words.address));
    // The number of a file of ours, taken over by one of the host.
    const again = open();
    sys(NR_DUP2, other, again);
    print(sys(NR.ioctl, again, STUB.ECHO, words.address));
  },

  unmapMeanwhile: async () => {
    const fd = open();
    const address = privatePages(1);
    poke(address, 300);
    const { done } = await startIoctl(fd, STUB.SLEEP, address);
    print(sys(NR_MUNMAP, address, PAGE));
    print(await done);
    print(mustCall(fd, STUB.ECHO, [1])[1]);
  },

  protectMeanwhile: async () => {
    const fd = open();
    const address = privatePages(1);
    poke(address, 300);
    const { done } = await startIoctl(fd, STUB.SLEEP, address);
    print(sys(NR_MPROTECT, address, PAGE, PROT_READ));
    print(await done);
  },

  changeMeanwhile: async () => {
    const fd = open();
    const address = privatePages(1);
    poke(address, 300);
    const { done } = await startIoctl(fd, STUB.SLEEP, address);
    poke(address, 77);
    // The struct was copied in once: the answer is about the first value.
    print(await done);
    set([0]);
    print(readWord(address));
  },

  closeMeanwhile: async () => {
    // Threads of Node open files whenever they like: lower places are free for them, the fd in question stays what it is.
    const lower = Array.from({ length: 16 }, () => openSync('/dev/null', 'r'));
    const fd = open();
    lower.forEach(closeSync);
    const address = privatePages(1);
    poke(address, 300);
    const { done } = await startIoctl(fd, STUB.SLEEP, address);
    closeSync(fd);
    print(await done);
    print(sys(NR.ioctl, fd, STUB.ECHO, words.address));
  },

  killedInside() {
    const child = spawn(process.execPath, [self, 'sleep', '500'], { stdio: 'inherit' });
    setTimeout(() => child.kill('SIGKILL'), 350);
    child.on('exit', (code, signal) => {
      print(code, signal);
      print(mustCall(open(), STUB.ECHO, [1])[1]);
    });
  },

  sleep(milliseconds = '0') {
    print('slept', mustCall(open(), STUB.SLEEP, [Number(milliseconds)])[0]);
  },

  /** In a thread: one ioctl at an address; posts its result. */
  ioctl() {
    const [fd, command, address] = workerData as [number, number, number];
    parentPort?.postMessage('now');
    parentPort?.postMessage(sys(NR.ioctl, fd, command, address));
  },

  pinPrivate() {
    const fd = open();
    const address = privatePages(4);
    const number = pin(fd, address, 4 * PAGE);
    print('runs', mustCall(fd, STUB.RUNS, [number])[1]);
    poke(address + PAGE, 1234);
    print('peek', peek(fd, number, PAGE));
    mustCall(fd, STUB.POKE, [number, 2 * PAGE, 5678]);
    print('poke', readWord(address + 2 * PAGE));
    print('same', mustCall(fd, STUB.SAME, [number, pin(fd, address, PAGE)])[2]);
    print('other', mustCall(fd, STUB.SAME, [number, pin(fd, address + PAGE, PAGE)])[2]);
  },

  pinRefused() {
    const fd = open();
    const readOnly = map(PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS);
    const none = map(PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
    const hole = privatePages(3);
    sys(NR_MUNMAP, hole + PAGE, PAGE);
    print(call(fd, STUB.PIN, [readOnly, PAGE, 1]));
    print(typeof call(fd, STUB.PIN, [readOnly, PAGE, 0]));
    print(call(fd, STUB.PIN, [none, PAGE, 0]));
    print(call(fd, STUB.PIN, [hole, 3 * PAGE, 1]));
    print(call(fd, STUB.PIN, [0, PAGE, 1]));
    print(call(fd, STUB.PIN, [0x7fff_ffff_f000n, PAGE, 1]));
    print(call(fd, STUB.PIN, [0xffff_ffff_ffff_f000n, PAGE, 1]));
  },

  pinHuge() {
    const fd = open();
    const length = 2 ** 40;
    const MAP_NORESERVE = 0x4000;
    const address = map(
      length,
      PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
    );
    const number = pin(fd, address, length);
    poke(address + length - PAGE, 99);
    print(mustCall(fd, STUB.RUNS, [number])[1], peek(fd, number, length - PAGE));
  },

  pinShared() {
    const fd = open();
    const address = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
    const number = pin(fd, address, 4 * PAGE);
    poke(address + PAGE, 42);
    print('peek', peek(fd, number, PAGE));
  },

  pinMemfd() {
    const fd = open();
    const name = allocate(8);
    const memfd = sys(NR.memfd_create, name.address, 0);
    sys(NR.ftruncate, memfd, 4 * PAGE);
    const first = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd);
    const second = map(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, PAGE);
    const whole = pin(fd, first, 4 * PAGE);
    print('same', mustCall(fd, STUB.SAME, [pin(fd, first + PAGE, PAGE), pin(fd, second, PAGE)])[2]);
    poke(second, 7);
    print('peek', peek(fd, whole, PAGE));
    const [, size, pinnable, file = 0n] = mustCall(fd, STUB.FILE, [memfd]);
    print('file', size, pinnable, mustCall(fd, STUB.SAME, [whole, file])[2]);
    // Beyond the end of the file there is no page.
    const beyond = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd);
    print('beyond', call(fd, STUB.PIN, [beyond, 8 * PAGE, 1]));
    // The memory stays when nobody maps it and the descriptor is closed.
    for (const [address, pages] of [
      [first, 4],
      [second, 2],
      [beyond, 8],
    ] as const) {
      sys(NR_MUNMAP, address, pages * PAGE);
    }
    sys(NR.close, memfd);
    print('kept', peek(fd, whole, PAGE));
  },

  pinFile(path = '') {
    const fd = open();
    const file = openSync(path, 'r+');
    const address = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file);
    print('write', call(fd, STUB.PIN, [address, PAGE, 1]));
    print('read', typeof call(fd, STUB.PIN, [address, PAGE, 0]));
    print('file', mustCall(fd, STUB.FILE, [file])[2]);
  },

  /** A child pins its memory and goes; its parent looks at the pages afterwards. */
  outlive(how = 'exit', memory = 'private') {
    const fd = open();
    const child = spawnSync(process.execPath, [self, 'outlive-child', how, memory], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const number = BigInt(child.stdout.trim().split('\n')[0] ?? '');
    const before = call(fd, STUB.PEEK, [number, PAGE]);
    print(typeof before === 'number' ? before : before[2]);
    const written = call(fd, STUB.POKE, [number, 0, 55]);
    const after = typeof written === 'number' ? written : call(fd, STUB.PEEK, [number, 0]);
    print(typeof after === 'number' ? after : after[2]);
    print(child.status ?? child.signal);
  },

  outliveChild(how = '', memory = '') {
    const fd = open();
    const flags = memory === 'shared' ? MAP_SHARED : MAP_PRIVATE;
    const address = map(3 * PAGE, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS);
    poke(address + PAGE, 4321);
    print(pin(fd, address, 3 * PAGE));
    switch (how) {
      case 'exit':
        process.exit(0);
      // eslint-disable-next-line no-fallthrough -- exit does not return
      case 'kill':
        process.kill(process.pid, 'SIGKILL');
        break;
      case 'exec':
        exec(['/bin/true']);
    }
  },

  fork() {
    const fd = open();
    const address = privatePages(1);
    poke(address, 1);
    const number = pin(fd, address, PAGE);
    // A child has its own memory: what it pins at the same address is another page.
    const child = spawnSync(process.execPath, [self, 'who'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit', fd],
    });
    print('inherited', child.stdout.trim() !== '' && child.status);
    print('mine', peek(fd, number));
  },

  exec() {
    const fd = open();
    const address = privatePages(1);
    poke(address, 11);
    const number = pin(fd, address, PAGE);
    // Node has marked its standard files close-on-exec, too.
    for (const kept of [0, 1, 2, fd]) sys(NR.fcntl, kept, F_SETFD, 0);
    // A name that does not exist first: nothing must have changed after it.
    exec(['/no/such/program']);
    print('failed', peek(fd, number));
    exec([process.execPath, self, 'after-exec', String(fd), String(number), String(address)]);
  },

  afterExec(file = '', number = '', address = '') {
    const fd = Number(file);
    const [pid] = mustCall(fd, STUB.WHO);
    const MAP_FIXED = 0x10;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    // The same address, in another address space.
    sys(NR.mmap, Number(address), PAGE, PROT_READ | PROT_WRITE, flags, -1, 0);
    poke(Number(address), 22);
    const own = pin(fd, Number(address), PAGE);
    const old = BigInt(number);
    print('same process', Number(pid) === process.pid);
    print('pages', peek(fd, old), peek(fd, own), mustCall(fd, STUB.SAME, [old, own])[2]);
  },

  who() {
    const fd = existsSync('/proc/self/fd/3') && isOurs(3) ? 3 : open();
    const [pid, tid, uid, admin] = mustCall(fd, STUB.WHO);
    print(Number(pid) === process.pid, Number(tid) === process.pid, uid, admin);
  },

  stream() {
    const fd = open();
    const stream = Number(mustCall(fd, STUB.STREAM)[1]);
    const events = (): number => {
      const poll = allocate(8);
      poll.view.setInt32(0, stream, true);
      poll.view.setInt16(4, 5, true);
      sys(NR.poll, poll.address, 1, 0);
      return poll.view.getInt16(6, true);
    };
    const bytes = Buffer.alloc(16);
    print('empty', events(), readSync(stream, bytes));
    mustCall(fd, STUB.PUSH, [65]);
    mustCall(fd, STUB.PUSH, [66]);
    print('ready', events());
    print('read', readSync(stream, bytes, 0, 1, null), text(bytes, 1), events());
    print('rest', readSync(stream, bytes, 0, 16, null), text(bytes, 1), events());
    print('write', writeSync(stream, 'xy'), events());
    const copy = sys(NR.dup, stream);
    print('dup', copy > 900, readSync(copy, bytes), text(bytes, 2));
    closeSync(copy);
    print('bad', sys(NR.read, stream, 1, 0), pushAndRead(fd, stream));
    print('mode', fstatSync(stream).isFIFO());
    closeSync(stream);
  },

  manyThreads: async () => {
    const fd = open();
    const results = await Promise.all(
      Array.from({ length: 4 }, (_, i) => thread('many-calls', [fd, i])),
    );
    print(results.join(' '));
  },

  manyCalls() {
    const [fd, index] = workerData as [number, number];
    let right = 0;
    for (let i = 0; i < 500; i++) {
      const value = index * 1000 + i;
      if (mustCall(fd, STUB.ECHO, [value])[1] === BigInt(value + 1)) right++;
    }
    parentPort?.postMessage(right);
  },

  crash() {
    print('before');
    call(open(), STUB.CRASH);
    print('after');
    wait(10_000);
  },

  leaveBackground() {
    const child = spawn(process.execPath, [self, 'late', '300'], {
      stdio: 'inherit',
      detached: true,
    });
    child.unref();
    print('main done');
    process.exit(5);
  },

  late(milliseconds = '0') {
    wait(Number(milliseconds));
    print('late', mustCall(open(), STUB.ECHO, [1])[1]);
  },

  interrupted: async () => {
    // Signals while calls run: each call must be carried out exactly once.
    const fd = open();
    let signals = 0;
    process.on('SIGUSR1', () => signals++);
    const done = thread('counted-pins', [fd, 200]);
    const timer = setInterval(() => process.kill(process.pid, 'SIGUSR1'), 1);
    print(await done);
    clearInterval(timer);
    print(signals > 0);
  },

  countedPins() {
    const [fd, count] = workerData as [number, number];
    const address = privatePages(1);
    const first = pin(fd, address, PAGE);
    for (let i = 1; i < count; i++) pin(fd, address, PAGE);
    parentPort?.postMessage(Number(pin(fd, address, PAGE) - first));
  },
};

function pushAndRead(fd: number, stream: number): number {
  mustCall(fd, STUB.PUSH, [67]);
  return sys(NR.read, stream, 1, 8);
}

function readWord(address: number): bigint {
  const parts = allocate(40);
  parts.view.setBigUint64(0, BigInt(parts.address + 32), true);
  parts.view.setBigUint64(8, 8n, true);
  parts.view.setBigUint64(16, BigInt(address), true);
  parts.view.setBigUint64(24, 8n, true);
  sys(NR.process_vm_readv, process.pid, parts.address, 1, parts.address + 16, 1, 0);
  return parts.view.getBigUint64(32, true);
}

function isOurs(fd: number): boolean {
  return fstatSync(fd).isCharacterDevice() && sys(NR.ioctl, fd, STUB.ECHO, words.address) === 0;
}

const text = (bytes: Buffer, length: number): string => bytes.toString('latin1', 0, length);

/** execve(2) in place: the address space goes, the process stays. */
function exec(argv: readonly string[]): void {
  const memory = allocate(2 * PAGE);
  let at = PAGE;
  argv.forEach((argument, i) => {
    memory.view.setBigUint64(8 * i, BigInt(memory.address + at), true);
    at += put(memory.bytes, at, argument);
  });
  sys(NR.execve, memory.address + PAGE, memory.address, memory.address + PAGE - 8);
  print('exec failed');
}

function put(bytes: Uint8Array, at: number, text: string): number {
  const encoded = Buffer.from(`${text}\0`);
  bytes.set(encoded, at);
  return encoded.length;
}

const [name = '', ...args] = isMainThread ? process.argv.slice(2) : process.argv.slice(2, 3);
// Cases are named in words on the command line.
const run = CASES[name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase())];
if (run === undefined) throw new Error(`no case ${name}`);
await run(...args);
