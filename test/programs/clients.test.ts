/** Real programs on /dev/iommu under `uiommu run`: hostile ones, ones that share a file, the demo. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';

import {
  compiled,
  hasProgram,
  NOBODY,
  root,
  uiommuRun,
  type Outcome,
  type RunOptions,
} from './support.ts';

const here = join(root, 'dist', 'test', 'programs');

// include/uapi/asm-generic/errno-base.h, errno.h
const [ENOENT, E2BIG, EBADF, EFAULT, EINVAL, ENOTTY, EOVERFLOW, EOPNOTSUPP] = [
  -2, -7, -9, -14, -22, -25, -75, -95,
];

/** What iommufd answers by the rules of its ABI (include/uapi/linux/iommufd.h, "General ioctl format"). */
const HOSTILE: readonly (readonly [string, number | undefined])[] = [
  ['size 0', EINVAL],
  ['size 11', EINVAL],
  ['size 4 GiB', EFAULT],
  ['known size', 0],
  ['longer, rest zero', 0],
  ['longer, rest not zero', E2BIG],
  ['longer than memory', EFAULT],
  ['garbage id', ENOENT],
  ['unknown flags', EOPNOTSUPP],
  ['no access', EINVAL],
  ['length 0', EINVAL],
  ['address wraps', EOVERFLOW],
  ['length wraps', EOVERFLOW],
  ['IOVA wraps', EOVERFLOW],
  ['NULL struct', EFAULT],
  ['unmapped struct', EFAULT],
  ['kernel struct', EFAULT],
  ['unknown ioctl', ENOTTY],
  ['foreign ioctl', ENOTTY],
  ['good', 0],
  ['destroy with mappings', 0],
  ['destroy twice', ENOENT],
  ['destroy 0', ENOENT],
  ['not ours', ENOTTY],
  ['closed', EBADF],
];

function outcomes({ stdout }: Outcome): (readonly [string, number])[] {
  return stdout
    .trim()
    .split('\n')
    .map((line) => line.split(': '))
    .map(([name = '', value]) => [name, Number(value)] as const);
}

async function hostile(run: RunOptions): Promise<Outcome> {
  return uiommuRun([process.execPath, join(here, 'hostile-client.js')], run);
}

test('a hostile client gets the errno of each rule, and leaves nothing behind', async () => {
  const outcome = await hostile({ options: ['--check'] });
  assert.deepEqual(outcomes(outcome), HOSTILE);
  assert.deepEqual([outcome.status, outcome.stderr], [0, '']);
});

test('a hostile client without root is answered the same', async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip('these tests already run as an ordinary user');
    return;
  }
  const outcome = await hostile({ uid: NOBODY, cwd: '/' });
  assert.deepEqual(outcomes(outcome), HOSTILE);
  assert.deepEqual([outcome.status, outcome.stderr], [0, '']);
});

test('each refusal of a hostile client has a reason', async () => {
  const { stderr } = await hostile({ options: ['--json'] });
  const events = stderr
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { error?: string; reason?: string });
  const refused = events.filter(({ error }) => error !== undefined);
  assert.ok(refused.length >= 15, `only ${refused.length} refusals were seen`);
  assert.deepEqual(
    refused.filter(({ reason = '' }) => reason.length < 10),
    [],
  );
});

test('the demo runs to its end, with a trace and a summary', async () => {
  const { status, stdout, stderr } = await uiommuRun(
    [process.execPath, join(root, 'dist', 'examples', 'first-client.js')],
    { options: ['--trace', '--summary'] },
  );
  assert.equal(status, 0);
  assert.match(stdout, /refused, as it should be: ENOENT\nunmapped 65536 bytes\ncleaned up\n$/);
  assert.match(
    stderr,
    /^openat\(AT_FDCWD, "\/dev\/iommu", O_RDWR\|O_CLOEXEC\) = \d+<\/dev\/iommu> <\d+µs>$/m,
  );
  assert.match(stderr, /IOMMU_IOAS_ALLOC, \{flags=0\} => \{out_ioas_id=1\}\) = 0 <\d+µs>$/m);
  assert.match(
    stderr,
    /IOMMU_IOAS_UNMAP.*= -1 ENOENT \(No such file or directory\): .*0x[0-9a-f]+.* <\d+µs>$/m,
  );
  assert.match(stderr, /1 call was refused:\n {4}IOMMU_IOAS_UNMAP: ENOENT, .*\n.*no leaks\n$/s);
});

const SHARING: Record<string, string> = {
  fork: 'child 0, again -2\n',
  orphan: 'orphan 0\n',
  dup: 'high 0, dup2 1, closed -9\n',
  exec: 'inherited 0\n',
  socket: 'received 0\n',
  threads: 'right 1600 of 1600\n',
  reopen: 'wrong 0\n',
  full: 'last 15, then errno 24\nopened 7, allocated 1\n',
};

async function sharing(t: TestContext, name: string, flags: readonly string[]): Promise<void> {
  const program = compiled(t, 'sharing', flags);
  if (program === undefined) return;
  const outcome = await uiommuRun([program, name]);
  assert.deepEqual(outcome, { status: 0, signal: null, stdout: SHARING[name], stderr: '' });
}

for (const name of Object.keys(SHARING)) {
  test(`a static program shares an open file: ${name}`, (t) => sharing(t, name, ['-static']));
}

test('17000 files closed at once are all released', async (t) => {
  const program = compiled(t, 'sharing', ['-static']);
  if (program === undefined) return;
  const { status, stdout, stderr } = await uiommuRun([program, 'many']);
  if (stdout === 'limit\n') {
    t.skip('the limit of open files is lower');
    return;
  }
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'opened 0\n', stderr: '' });
});

// What Linux answers once the number stands for nothing (close) or for /dev/null; a table that is a copy changes alone.
const CHANGED_NUMBERS: Record<string, number> = {
  close: EBADF,
  dup2: ENOTTY,
  dup3: ENOTTY,
  'dup2 of another': ENOENT,
  close_range: EBADF,
  'close and open': ENOTTY,
  'close and fcntl': ENOTTY,
  'close and message': ENOTTY,
  'thread that closes': EBADF,
  'thread that replaces': ENOTTY,
  'older thread': EBADF,
  'thread after another': EBADF,
  'racing thread': 0,
  'thread with its own table': 0,
  'process with the same table': EBADF,
  'clone3 with the same table': EBADF,
  fork: 0,
  vfork: 0,
  'id used again': ENOTTY,
  io_uring: EBADF,
  exec: EBADF,
  'exec, copy': 0,
};
const UNAVAILABLE = 1; // printed by the program where the computer lacks the call

test('a file number that comes to mean something else is noticed, however it is done', async (t) => {
  const program = compiled(t, 'numbers');
  if (program === undefined) return;
  const outcome = await uiommuRun([program]);
  const expected = outcomes(outcome).map(([name, got]) => [
    name,
    got === UNAVAILABLE && /clone3|io_uring|id used/.test(name) ? got : CHANGED_NUMBERS[name],
  ]);
  assert.deepEqual(outcomes(outcome), expected);
  assert.equal(expected.length, Object.keys(CHANGED_NUMBERS).length);
  assert.equal(outcome.stderr, '');
});

/** A program whose output a real kernel gave: line by line the same, and no rule of the engine broken after any call. */
async function printsAsLinux(
  t: TestContext,
  name: string,
  lines: readonly string[],
): Promise<void> {
  const program = compiled(t, name);
  if (program === undefined) return;
  const options = ['-m', 'selftest', '--check'];
  const { status, stdout, stderr } = await uiommuRun([program], { options });
  assert.deepEqual(
    { status, lines: stdout.split('\n'), stderr },
    { status: 0, lines: [...lines, ''], stderr: '' },
  );
}

// What Linux 7.3.4 prints.
const QUEUES = [
  'faults to poll: 4',
  'faults to poll: 5',
  'pread: -29',
  'pread of a negative position: -22',
  'preadv2 without a position: 0',
  'odd size: -29',
  'nothing: -22',
  'nowhere: -14',
  'to the kernel: -14',
  'two pieces: 80',
  'cookies 1 and 2',
  'second piece nowhere: 40',
  'cookie 3',
  'with flags: -95',
  'what is left: 40',
  'cookie 4',
  'odd answer from nowhere: -29',
  'answer from nowhere: -14',
  'answers to 1 and 0: 8',
  'one more: 40',
  'cookie 0',
  'pwrite: -29',
  'events to poll: 0',
  'events to poll: 1',
  'event nowhere: -14',
  'pread of an event: -29',
  'less than a header: -22',
  'less than an event: -22',
  'events: 24',
  'sequence 0 and 1 of 99',
  'write to events: -22',
  'private window: -22',
  'empty window: -22',
  'window in odd bytes: 0',
];

test('queues are read, written and polled as files without positions, windows mapped whole and shared', async (t) => {
  await printsAsLinux(t, 'queues', QUEUES);
});

// What Linux 7.3.4 prints.
const OPENS = [
  'both: 2',
  'reading: 4000',
  'writing: 2001',
  'neither: 3',
  'synchronous: 5010002',
  'direct: -22',
  'exclusive: -17',
  'create: 2',
  'directory: -20',
  'create directory: -22',
  'temporary: -20',
  'temporary for reading: -22',
  'slash: -20',
  'create slash: -21',
  'dot: -20',
  'how: 0',
  'how with a mode: -22',
  'how with a mode to create: 0',
  'how with an odd mode: -22',
  'how with odd flags: -22',
  'short how: -22',
  'long how: 0',
  'nothing: -22',
  'more than there is: -12',
  'all of 64 bits: -12',
  'beyond the last offset: -75',
  'no whole page: -22',
  'no type: -22',
  'odd type: -22',
  'unknown flag: -6',
  'unknown flag, validated: -95',
  'high flag, validated: -95',
  'huge pages: -22',
  'growing down: -22',
  'at an odd address: -22',
  'at the end: -12',
  'where something is: -17',
  'too large for low addresses: -12',
  'no window: -6',
  'no window, executable: -1',
  'only for reading: -22',
  'write what is only for reading: -13',
  'read what is only for writing: -13',
];

test('opening and mapping is refused as by the kernel, before the device is asked', async (t) => {
  await printsAsLinux(t, 'opens', OPENS);
});

// What Linux 7.3.4 prints.
const HOLDERS = [
  'vIOMMU: 0',
  'queue in a full table: -24',
  'event queue in a full table: -24',
  'access in a full table: -12',
  'queue in a full table, and no place for the answer: -24',
  'copy of a queue in a full table: -24',
  'copy from a number on: -24',
  'copies end below the limit: 1',
  'queue with a low limit: 0',
  'it has nothing: 0',
  'destroy while open: -16',
  'destroy: 0',
  'the device is still there: 0',
  'event queue: 0',
  'destroy its vIOMMU: -16',
  'destroy event queue: 0',
  'answer that cannot be written: -14',
  'files more: 0',
  'answer that cannot be written: -14',
  'files more: 0',
  'answer that cannot be written: -14',
  'files more: 0',
  'second window: 55 66, first 55 66',
  'map a window: -14',
  "map the device's own file: -22",
  'destroy with a page mapped: -16',
  'destroy with a page mapped by a child: -16',
  'third window: 55 66',
  'event queue: 0',
  'watch: 0',
  'edge: 1',
  'no edge: 0',
  'edge: 1',
  'no edge: 0',
  'edge: 1',
  'no edge: 0',
  'pieces of which the first is negative, the second unreadable: -22',
  'pieces of which the second is unreadable: -14',
  'splice: -22',
  'tee: -22',
  'vmsplice: -9',
  'size of the pipe: -9',
  'bytes to read: -25',
  'read of all: 36',
  'edge: 1',
  'copy far away: -22',
  'copy: 1',
  'sync: 0',
  'sync of nothing: -22',
  'odd sync: -22',
  'name: 0',
  'long name: -22',
  'no name: -14',
  'other ioctl: -25',
  '/dmabuf:guest',
  'write: -9',
  'shorten: -22',
];

test('files and windows are held as by the kernel: full tables, low limits, children, edges', async (t) => {
  await printsAsLinux(t, 'holders', HOLDERS);
});

test('who gives up being root pays for pinned pages, within RLIMIT_MEMLOCK', async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip('only root can become somebody else');
    return;
  }
  const program = compiled(t, 'poor');
  if (program === undefined) return;
  const { status, stdout, stderr } = await uiommuRun([program], { options: ['-m', 'selftest'] });
  const expected = { status: 0, stdout: 'two pages: -12\none page: 0\n', stderr: '' };
  assert.deepEqual({ status, stdout, stderr }, expected);
});

test('busybox, a static program, sees the device', async (t) => {
  if (!hasProgram('busybox')) {
    t.skip('there is no busybox');
    return;
  }
  const { stdout } = await uiommuRun(['busybox', 'ls', '-l', '/dev/iommu']);
  assert.match(stdout, /^crw-rw---- .* 10, 257 .*\/dev\/iommu$/m);
});

test('python opens, stats and closes the device', async (t) => {
  if (!hasProgram('python3')) {
    t.skip('there is no python3');
    return;
  }
  const script = [
    'import os, stat',
    'fd = os.open("/dev/iommu", os.O_RDWR)',
    's = os.fstat(fd)',
    'print(stat.S_ISCHR(s.st_mode), os.major(s.st_rdev), s.st_ino == os.stat("/dev/iommu").st_ino)',
    'print(os.readlink("/proc/self/fd/%d" % fd), os.path.realpath("/dev/fd/%d" % fd))',
  ].join('\n');
  const { status, stdout, stderr } = await uiommuRun(['python3', '-c', script]);
  assert.deepEqual(
    { status, stdout, stderr },
    { status: 0, stdout: 'True 10 True\n/dev/iommu /dev/iommu\n', stderr: '' },
  );
});
