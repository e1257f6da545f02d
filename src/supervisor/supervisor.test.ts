/**
 * The supervisor alone, with a device that only shows what an engine gets: bytes and pages of real programs, files in real
 * tables. Each test is one program (test/programs/client.ts) that makes its calls in a process of its own.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type TestContext } from 'node:test';
import { compiled, stubRun, type StubOutcome } from '../../test/programs/support.ts';

const programs = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'test', 'programs');
const NOBODY = 65534;
const ENOTTY = -25;
const EFAULT = -14;
const EBADF = -9;
const TMPFS_MAGIC = 0x01021994;

function client(args: readonly string[], uid?: number): Promise<StubOutcome> {
  return stubRun([process.execPath, join(programs, 'client.js'), ...args], uid);
}

/** Runs a case that must end well, with nothing left behind, and print these lines. */
async function shows(
  args: readonly string[],
  lines: readonly unknown[],
  uid?: number,
): Promise<void> {
  assert.deepEqual(await client(args, uid), { status: 0, lines: lines.map(String), stderr: '' });
}

function needsRoot(t: TestContext): boolean {
  if (process.getuid?.() === 0) return false;
  t.skip('these tests already run as an ordinary user');
  return true;
}

test('ioctl: a struct is copied in and out', () => shows(['echo'], [42]));

test('ioctl: NULL, unreadable, read-only, half-mapped and kernel pointers give EFAULT', () =>
  shows(['bad-pointers'], [...Array<number>(7).fill(EFAULT), 2]));

test("ioctl: the host's file gives ENOTTY, a closed or impossible number EBADF", () =>
  shows(['bad-files'], [ENOTTY, EBADF, EBADF, EBADF, ENOTTY]));

test('ioctl: a struct that is unmapped while the call runs gives EFAULT', () =>
  shows(['unmap-meanwhile'], [0, EFAULT, 2]));

test('ioctl: a struct that is made read-only while the call runs gives EFAULT', () =>
  shows(['protect-meanwhile'], [0, EFAULT]));

test('ioctl: a struct that is changed while the call runs was read before', () =>
  shows(['change-meanwhile'], [0, 300]));

test('ioctl: a file that is closed while the call runs ends with it', () =>
  shows(['close-meanwhile'], [0, EBADF]));

test('ioctl: a client killed inside a call leaves nothing behind', () =>
  shows(['killed-inside'], [' SIGKILL', 2]));

test('ioctl: what has the id of a client killed inside a call is not written to', async (t) => {
  const binary = compiled(t, 'recycled');
  if (binary === undefined) return;
  const { status, lines, stderr } = await stubRun([binary]);
  if (lines[0] === 'unavailable') {
    t.skip('an id cannot be chosen here');
    return;
  }
  assert.deepEqual({ status, lines, stderr }, { status: 0, lines: ['untouched'], stderr: '' });
});

test('ioctl: calls of four threads at once are all answered right', () =>
  shows(['many-threads'], ['500 500 500 500']));

test('ioctl: calls under a hail of signals are carried out exactly once', () =>
  shows(['interrupted'], [200, true]));

test('task: pid, tid, uid and capabilities are the real ones', () => {
  const effective = /^CapEff:\s*(\S+)/m.exec(readFileSync('/proc/self/status', 'latin1'))?.[1];
  const admin = (BigInt(`0x${effective ?? '0'}`) >> 21n) & 1n;
  return shows(['who'], [`true true ${process.getuid?.() ?? 0} ${admin}`]);
});

test('memory: private pages are read, written and recognised', () =>
  shows(['pin-private'], ['runs 1', 'peek 1234', 'poke 5678', 'same 1', 'other 0']));

test('memory: pages that may not be used give EFAULT', () =>
  shows(['pin-refused'], [EFAULT, 'object', ...Array<number>(5).fill(EFAULT)]));

test('memory: 1 TiB is one run', () => shows(['pin-huge'], ['1 99']));

test('memory: shared anonymous pages', () => shows(['pin-shared'], ['peek 42']));

const MEMFD = ['same 1', 'peek 7', 'file 16384 1 1', `beyond ${EFAULT}`, 'kept 7'];

test('memory: a memfd is one memory by whatever mapping or number, and stays when all are gone', () =>
  shows(['pin-memfd'], MEMFD));

test('memory: the same without root', async (t) => {
  if (needsRoot(t)) return;
  await shows(['pin-memfd'], MEMFD, NOBODY);
  await shows(['pin-shared'], ['peek 42'], NOBODY);
  await shows(['outlive', 'exit', 'shared'], [4321, 55, 0], NOBODY);
});

test("memory: shared pages that a child pinned are its parent's when it has gone", async (t) => {
  const binary = compiled(t, 'forked-memory');
  if (binary === undefined) return;
  chmodSync(dirname(binary), 0o755);
  // Root reaches the pages by map_files; an ordinary user only through the processes that map them.
  for (const uid of process.getuid?.() === 0 ? [undefined, NOBODY] : [undefined]) {
    const expected = { status: 0, lines: ['0 0 11 0 22'], stderr: '' };
    assert.deepEqual(await stubRun([binary], uid), expected);
  }
});

test('memory: a file that is written back cannot be pinned for writing', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-test-'));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  if (statfsSync(folder).type === TMPFS_MAGIC) {
    t.skip('the folder for temporary files is in memory itself');
    return;
  }
  const path = join(folder, 'file');
  writeFileSync(path, Buffer.alloc(4096));
  await shows(['pin-file', path], [`write ${EFAULT}`, 'read object', 'file 0']);
});

for (const memory of ['private', 'shared']) {
  for (const how of ['exit', 'exec']) {
    test(`memory: pinned ${memory} pages outlive ${how}`, () =>
      shows(['outlive', how, memory], [4321, 55, 0]));
  }
}

test('memory: pinned private pages of a process killed by SIGKILL are lost, with an errno', () =>
  shows(['outlive', 'kill'], [EFAULT, EFAULT, 'SIGKILL']));

test('memory: an exec that fails changes nothing, one that succeeds begins another address space', () =>
  shows(['exec'], ['exec failed', 'failed 11', 'same process true', 'pages 11 22 0']));

test('memory: the same address in a child is another page', () =>
  shows(['fork'], ['inherited 0', 'mine 1']));

test('stream: poll, read, write, dup and stat', () =>
  shows(
    ['stream'],
    [
      'empty 4 0',
      'ready 5',
      'read 1 A 5',
      'rest 1 B 4',
      'write 2 5',
      'dup true 2 yz',
      `bad 0 ${EFAULT}`,
      'mode false',
    ],
  ));

test("run: a child in the background is served to its end; the status is the main program's", async () => {
  const { status, lines, stderr } = await client(['leave-background']);
  assert.deepEqual(
    { status, lines, stderr },
    { status: 5, lines: ['main done', 'late 2'], stderr: '' },
  );
});

// At the end of a process node waits for its workers' coverage; here one of them waits for the supervisor that has gone.
const measured = process.env['NODE_V8_COVERAGE'] !== undefined && 'coverage is being measured';
test(
  'run: an engine that throws anything but an Errno ends the run, and the client with it',
  {
    skip: measured,
  },
  async () => {
    const { status, lines, stderr } = await client(['crash']);
    assert.deepEqual({ status, lines }, { status: 125, lines: ['before'] });
    assert.match(stderr, /EngineError: ioctl broke uiommu.*the stub breaks on purpose/s);
  },
);
