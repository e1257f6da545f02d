/** `uiommu run` as a shell sees it: output, status, signals, pipelines, background children. */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

import { NOBODY, root, uiommuRun } from './support.ts';

test('run: wrong usage is one message and status 2', async () => {
  const { status, stderr } = await uiommuRun([]);
  assert.equal(status, 2);
  assert.match(stderr, /^uiommu: run: no program given.*\n$/);
});

test('run: an unknown machine is refused with the names of those there are', async () => {
  const { status, stderr } = await uiommuRun(['true'], { options: ['-m', 'nosuch'] });
  assert.equal(status, 2);
  assert.match(stderr, /machine "nosuch".*selftest/);
});

test('run: a program that does not exist gives 127, as in a shell', async () => {
  const { status } = await uiommuRun(['/no/such/program']);
  assert.equal(status, 127);
});

for (const expected of [0, 1, 7, 255]) {
  test(`run: exit status ${expected} is passed through`, async () => {
    const { status, stderr } = await uiommuRun(['sh', '-c', `exit ${expected}`]);
    assert.deepEqual({ status, stderr }, { status: expected, stderr: '' });
  });
}

for (const name of ['SIGTERM', 'SIGKILL', 'SIGINT', 'SIGSEGV'] as const) {
  test(`run: death by ${name} gives 128 + its number`, async () => {
    const { status } = await uiommuRun(['sh', '-c', `kill -${name.slice(3)} $$`]);
    assert.equal(status, 128 + constants.signals[name]);
  });
}

test('run: within another run it says that this cannot be', async () => {
  const inner = [process.execPath, join(root, 'bin', 'uiommu.js'), 'run', '--', 'true'];
  const { status, stderr } = await uiommuRun(inner);
  assert.equal(status, 125);
  assert.match(stderr, /^uiommu: this process already runs under a seccomp filter.*\n$/);
});

test('run: uiommu that exits in the middle of a run does not wait for answers to its own calls', async () => {
  const script =
    "import { isMainThread } from 'node:worker_threads'; if (isMainThread) setTimeout(() => process.exit(3), 500);";
  const { status } = await uiommuRun(['sleep', '1'], {
    env: { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}` },
  });
  assert.equal(status, 3);
});

test('run: SIGTERM sent to uiommu ends the program', async () => {
  const script = 'trap "echo asked; exit 9" TERM; echo up; while :; do sleep 0.1; done';
  const outcome = await uiommuRun(['sh', '-c', script], {
    onOutput: (text, child) => {
      if (text === 'up\n') child.kill('SIGTERM');
    },
  });
  assert.deepEqual([outcome.status, outcome.stdout], [9, 'up\nasked\n']);
});

test("run: standard input and output are the program's own", async () => {
  const { status, stdout } = await uiommuRun(['tr', 'a-z', 'A-Z'], { input: 'through\n' });
  assert.deepEqual({ status, stdout }, { status: 0, stdout: 'THROUGH\n' });
});

test('run: a pipeline that is cut short ends by SIGPIPE, not by an error', async () => {
  const script = '(yes; echo "yes: $?" >&2) | head -n 2';
  const { status, stdout, stderr } = await uiommuRun(['sh', '-c', script]);
  assert.deepEqual(
    { status, stdout, stderr },
    { status: 0, stdout: 'y\ny\n', stderr: 'yes: 141\n' },
  );
});

test("run: background children are waited for, the status is the main program's", async () => {
  const script = '(sleep 0.3; echo late) & echo early; exit 3';
  const { status, stdout } = await uiommuRun(['sh', '-c', script]);
  assert.deepEqual({ status, stdout }, { status: 3, stdout: 'early\nlate\n' });
});

test('run: /dev/iommu is a character device for ls, stat and the shell', async () => {
  const script = [
    'test -c /dev/iommu && test -r /dev/iommu && test -w /dev/iommu && ! test -x /dev/iommu',
    'stat -c "%F %t:%T %a" /dev/iommu',
    'ls -l /dev/iommu | cut -c1-10',
  ].join('; ');
  const { status, stdout, stderr } = await uiommuRun(['sh', '-c', script]);
  assert.deepEqual(
    { status, stdout, stderr },
    { status: 0, stdout: 'character special file a:101 660\ncrw-rw----\n', stderr: '' },
  );
});

test('run: every way to write the path opens the device', async () => {
  const script = [
    'cd /dev; exec 3<>iommu',
    'exec 4<>../dev/./iommu',
    'exec 5<>/dev/../dev//iommu',
    'exec 6<>/proc/self/fd/3',
    'for n in 3 4 5 6; do readlink /proc/self/fd/$n; done',
  ].join('; ');
  const { stdout, stderr } = await uiommuRun(['sh', '-c', script]);
  assert.deepEqual({ stdout, stderr }, { stdout: '/dev/iommu\n'.repeat(4), stderr: '' });
});

test('run: the device used as a directory gives ENOTDIR', async () => {
  const { stderr } = await uiommuRun(['ls', '-d', '/dev/iommu/'], { env: { LC_ALL: 'C' } });
  assert.match(stderr, /Not a directory/);
});

test('run: all of it works without root', async (t) => {
  if (process.getuid?.() !== 0) {
    t.skip('these tests already run as an ordinary user');
    return;
  }
  const { status, stdout, stderr } = await uiommuRun(
    ['sh', '-c', 'id -u; exec 3<>/dev/iommu; readlink /proc/self/fd/3'],
    { uid: NOBODY, cwd: '/' },
  );
  assert.deepEqual(
    { status, stdout, stderr },
    { status: 0, stdout: `${NOBODY}\n/dev/iommu\n`, stderr: '' },
  );
});
