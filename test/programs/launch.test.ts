/** How a program starts and ends under `uiommu run`: with what it was given, and without processes left behind. */
import assert from 'node:assert/strict';
import { spawn, spawnSync, type ChildProcess, type StdioOptions } from 'node:child_process';
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import { root, scratch } from './support.ts';

const UIOMMU_RUN = [process.execPath, join(root, 'bin', 'uiommu.js'), 'run', '--'];
const PATIENCE = 30_000; // milliseconds

/** Runs a script in which "$@" stands before a command: nothing, or `uiommu run --`. */
function script(
  text: string,
  before: readonly string[],
): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync('bash', ['-c', text, 'bash', ...before], {
    cwd: root,
    timeout: PATIENCE,
    killSignal: 'SIGKILL',
  });
  return { status, output: Buffer.concat([stdout, stderr]).toString('latin1') };
}

// What a program sees, with and without uiommu. The shell stays the parent (the last command is not its last).
const SAME: Readonly<Record<string, string>> = {
  'arguments that are no UTF-8': String.raw`"$@" printf %s $'a\xffb\xc3' ''; :`,
  'an environment that is no UTF-8': String.raw`X=$'a\xffb' "$@" env | grep -a ^X=; :`,
  'names of variables that no shell takes':
    "env a.b=1 npm-x=2 'BASH_FUNC_foo%%=() { :; }' \"$@\" env | grep -aE '^(a.b|npm-x|BASH_FUNC)' | sort; :",
  'an empty environment': 'env -i PATH="$PATH" "$@" env; :',
  'files that were handed down':
    '"$@" bash -c "cat <&7; cat <&23" 7</etc/hostname 23</etc/passwd; :',
  'files that are closed': '"$@" bash -c "cat <&8" 7</etc/hostname; :',
  'the numbers of all files':
    '"$@" bash -c "echo /proc/self/fd/*" 7</etc/hostname 9</etc/hostname; :',
  'the end of its own pipes':
    '(echo in; "$@" bash -c "exec 8>&-; cat <&7" 7< <(echo out)) | cat; :',
  'ignored signals': 'trap \'\' HUP USR1; "$@" grep SigIgn /proc/self/status; :',
  'ignored signals: none': '"$@" grep -E "Sig(Ign|Blk|Cgt)" /proc/self/status; :',
  'the limit of open files': 'ulimit -Sn 64; "$@" bash -c "ulimit -Sn; ulimit -Hn"; :',
  'a script without an interpreter':
    'd=$(mktemp -d); echo "echo hello \\$1" >$d/s; chmod +x $d/s; PATH=$d:$PATH "$@" s you; rm -r $d; :',
  'a folder of PATH that is the current one': 'cd /bin; PATH=: "$@" true; echo $?',
  'a program after one of that name that may not run':
    'd=$(mktemp -d); mkdir $d/true; PATH=$d:$PATH "$@" true; echo $?; rm -r $d; :',
  'a group of processes, and a session':
    '"$@" bash -c "ps -o pgid=,sid= -p \\$\\$" | tr -d " \n" | wc -w; :',
};

for (const [name, text] of Object.entries(SAME)) {
  test(`launch: the program has what it has without uiommu: ${name}`, () => {
    const expected = script(text, []);
    assert.notEqual(expected.output, '');
    assert.deepEqual(script(text, UIOMMU_RUN), expected);
  });
}

const MISSING: readonly (readonly [argv: readonly string[], status: number, says: RegExp])[] = [
  [['no-such-program'], 127, /^uiommu: cannot start "no-such-program": no folder of PATH.*ENOENT/],
  [['/no/such/program'], 127, /^uiommu: cannot start "\/no\/such\/program": .*ENOENT/],
  [[''], 127, /^uiommu: cannot start "": .*ENOENT/],
  [['/etc'], 126, /^uiommu: cannot start "\/etc": .*EACCES/],
  [[join(root, 'package.json')], 126, /^uiommu: cannot start ".*\/package.json": .*EACCES/],
];
for (const [argv, status, says] of MISSING) {
  test(`launch: ${JSON.stringify(argv[0])} cannot be started, and uiommu says why`, () => {
    const [node = '', ...rest] = UIOMMU_RUN;
    const result = spawnSync(node, [...rest, ...argv], { encoding: 'utf8', timeout: PATIENCE });
    assert.equal(result.status, status);
    assert.match(result.stderr, says);
    assert.equal(result.stderr.split('\n').length, 2);
  });
}

test('launch: a limit of open files that Node cannot start with is said in one line', () => {
  const { status, output } = script('ulimit -n 40 && "$@" true 2>&1', UIOMMU_RUN);
  // Newer Nodes read one file after the other, and start.
  if (status === 0) return;
  assert.equal(status, 125);
  assert.match(
    output,
    /^uiommu: the limit of open files .* is too low to start; expected at least 64\n$/,
  );
});

for (const limit of [64, 72, 81, 82, 88, 128]) {
  test(`launch: a limit of ${limit} open files`, () => {
    const text = `ulimit -n ${limit} && "$@" sh -c 'exec 3<>/dev/iommu && exit 7'`;
    assert.deepEqual(script(text, UIOMMU_RUN), { status: 7, output: '' });
  });
}

for (const count of [930, 955, 1100]) {
  test(`launch: ${count} files that the parent hands down`, (t) => {
    const file = openSync('/dev/null', 'r');
    t.after(() => {
      closeSync(file);
    });
    const stdio: StdioOptions = ['ignore', 'pipe', 'pipe', ...Array<number>(count).fill(file)];
    const [node = '', ...rest] = UIOMMU_RUN;
    // No shell in between: it closes the ends of its pipes whenever it gets to it.
    const argv = [...rest, 'ls', '/proc/self/fd'];
    const native = spawnSync('ls', argv.slice(-1), {
      stdio,
      encoding: 'utf8',
      timeout: PATIENCE,
    });
    const { status, stdout, stderr } = spawnSync(node, argv, {
      stdio,
      encoding: 'utf8',
      timeout: PATIENCE,
      killSignal: 'SIGKILL',
    });
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: native.stdout, stderr: '' });
  });
}

type Running = { readonly child: ChildProcess; readonly end: Promise<Ended> };
type Ended = {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
};

/** Starts a script under uiommu; resolves when it has printed "up". */
async function running(t: TestContext, text: string, env = {}): Promise<Running> {
  const [node = '', ...rest] = UIOMMU_RUN;
  const child = spawn(node, [...rest, 'bash', '-c', text], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  t.after(() => child.kill('SIGKILL'));
  let [stdout, stderr] = ['', ''];
  const end = new Promise<Ended>((resolve) => {
    child.on('close', (status, signal) => {
      resolve({ status, signal, stdout, stderr });
    });
  });
  child.stderr.setEncoding('utf8').on('data', (more: string) => (stderr += more));
  await new Promise<void>((resolve) => {
    child.stdout.setEncoding('utf8').on('data', (more: string) => {
      stdout += more;
      if (stdout.includes('up\n')) resolve();
    });
  });
  return { child, end };
}

/** Processes whose environment has this setting: those of one test. */
function processesWith(setting: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      const zombie = readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ');
      return !zombie && readFileSync(`/proc/${pid}/environ`, 'latin1').includes(`${setting}\0`);
    } catch {
      return false;
    }
  });
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + PATIENCE;
  while (!condition()) {
    assert.ok(Date.now() < deadline, what);
    await pause(20);
  }
}

test('launch: no program goes on when uiommu is killed, and nothing is left', async (t) => {
  const folder = scratch(t);
  const mark = `UIOMMU_TEST_MARK=${folder}`;
  // The main program waits without a call; others call, one with a parent that is not of the run any more.
  const busy = 'while :; do ls /dev/iommu || echo went on; done >/dev/null 2>>$TMPDIR/said';
  const text = `ls /sys/kernel/debug >/dev/null; (${busy}) & (setsid bash -c "${busy}" &); ls $TMPDIR; echo up; read -t 60 <> <(:)`;
  const { child, end } = await running(t, text, {
    TMPDIR: folder,
    UIOMMU_TEST_MARK: folder,
  });
  assert.ok(readdirSync(folder).some((name) => name.startsWith('uiommu-')));
  child.kill('SIGKILL');
  assert.equal((await end).signal, 'SIGKILL');
  await until(() => processesWith(mark).length === 0, 'processes of the run go on');
  await until(
    () => !readdirSync(folder).some((name) => name.startsWith('uiommu-')),
    'the temporary folder is left',
  );
  if (existsSync(join(folder, 'said')))
    assert.equal(readFileSync(join(folder, 'said'), 'utf8'), '');
});

test('launch: TERM ends a run with its orphans', async (t) => {
  const { child, end } = await running(t, '(setsid sleep 60 &); echo up; exit 5');
  await pause(200);
  child.kill('SIGTERM');
  assert.deepEqual(await end, { status: 5, signal: null, stdout: 'up\n', stderr: '' });
});

test('launch: TERM twice at once is one request', async (t) => {
  const { child, end } = await running(
    t,
    'trap "echo asked; sleep 1; exit 6" TERM; echo up; while :; do sleep 0.05; done',
  );
  child.kill('SIGTERM');
  await pause(50);
  child.kill('SIGTERM');
  assert.equal((await end).status, 6);
});

test('launch: a second TERM ends uiommu, and what ignored the first', async (t) => {
  const folder = scratch(t);
  const { child, end } = await running(t, 'trap "" TERM; echo up; while :; do sleep 0.1; done', {
    UIOMMU_TEST_MARK: folder,
  });
  child.kill('SIGTERM');
  await pause(1200);
  assert.equal(child.exitCode, null);
  child.kill('SIGTERM');
  assert.equal((await end).signal, 'SIGTERM');
  await until(() => processesWith(`UIOMMU_TEST_MARK=${folder}`).length === 0, 'processes go on');
});

for (const name of ['SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGHUP', 'SIGINT', 'SIGQUIT'] as const) {
  test(`launch: ${name} sent to uiommu reaches the program, and nothing else comes of it`, async (t) => {
    const text = `trap "echo got; exit 9" ${name.slice(3)}; echo up; while :; do sleep 0.05; done`;
    const { child, end } = await running(t, text);
    child.kill(name);
    const { status, stdout, stderr } = await end;
    assert.deepEqual({ status, stdout }, { status: 9, stdout: 'up\ngot\n' });
    // HUP goes to the program's children, too, and bash says so. Nothing says that a debugger listens.
    assert.match(stderr, /^(Hangup\n)?$/);
  });
}
