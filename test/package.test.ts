/**
 * The package as its users get it: packed, unpacked somewhere else, imported by every name that it exports, run as a command.
 * Not its dependencies' downloads: those of the clone stand in for them.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { after, before } from 'node:test';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
// What SPECIFICATION.md promises; a third of it are structs and declarations of the ABI.
const MOST_BYTES = 330_000;

const home = mkdtempSync(join(tmpdir(), 'uiommu-package-'));
const installed = join(home, 'node_modules', 'uiommu');
let tarball = '';

type Packed = { readonly filename: string; readonly files: readonly { readonly path: string }[] };
let packed: Packed | undefined;

function run(command: string, ...args: string[]): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: home, encoding: 'utf8' });
  return { status, output: stdout + stderr };
}

before(() => {
  mkdirSync(join(home, 'node_modules'), { recursive: true });
  // Scripts have run already where the tests run (setup), and would write to dist meanwhile.
  const { stdout } = spawnSync(
    'npm',
    ['pack', '--json', '--ignore-scripts', '--pack-destination', home],
    { cwd: ROOT, encoding: 'utf8' },
  );
  [packed] = JSON.parse(stdout) as Packed[];
  tarball = join(home, packed?.filename ?? '');
  mkdirSync(installed);
  assert.equal(run('tar', 'xzf', tarball, '-C', installed, '--strip-components=1').status, 0);
  for (const name of ['yaml', 'koffi', '@koromix']) {
    symlinkSync(join(ROOT, 'node_modules', name), join(home, 'node_modules', name));
  }
});

after(() => {
  rmSync(home, { recursive: true, force: true });
});

test(`package: at most ${MOST_BYTES} bytes, without tests, sources and maps`, () => {
  const files = packed?.files.map(({ path }) => path) ?? [];
  assert.ok(files.includes('dist/lib/index.js') && files.includes('dist/lib/types/index.d.ts'));
  assert.deepEqual(
    files.filter((path) => /\.map$|\.test\.|^src\/|^dist\/(?!lib\/)/.test(path)),
    [],
  );
  const { size } = statSync(tarball);
  assert.ok(size <= MOST_BYTES, `${size} bytes`);
});

test('package: every name that it exports can be imported, and has types', () => {
  const { exports } = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as {
    exports: Record<string, string | { types: string; default: string }>;
  };
  const names = Object.entries(exports).filter(([, entry]) => typeof entry !== 'string');
  assert.ok(names.length > 5);
  for (const [name, entry] of names) {
    const specifier = `uiommu${name.slice(1)}`;
    const script = `import(${JSON.stringify(specifier)}).then((m) => console.log(Object.keys(m).length > 0))`;
    const { status, output } = run(process.execPath, '-e', script);
    assert.deepEqual([status, output.trim()], [0, 'true'], specifier);
    if (typeof entry === 'string') continue;
    assert.ok(statSync(join(installed, entry.types)).isFile(), entry.types);
  }
});

test('package: without koffi the engine works', () => {
  rmSync(join(home, 'node_modules', 'koffi'));
  try {
    const library = "import('uiommu').then(({ boot }) => console.log(boot('pc').leaks().length))";
    assert.deepEqual(run(process.execPath, '-e', library), { status: 0, output: '0\n' });
  } finally {
    symlinkSync(join(ROOT, 'node_modules', 'koffi'), join(home, 'node_modules', 'koffi'));
  }
});

function command(): string {
  return join(installed, 'bin', 'uiommu.js');
}

test('package: the command lists a machine, explores states and runs a program', () => {
  const ls = run(process.execPath, command(), 'ls', '-m', 'pc');
  assert.equal(ls.status, 0, ls.output);
  assert.match(ls.output, /0000:01:00\.0/);
  const check = run(process.execPath, command(), 'check');
  assert.equal(check.status, 0, check.output);
  const program = run(process.execPath, command(), 'run', '--', 'sh', '-c', 'exit 7');
  assert.ok(program.status === 7 || program.status === 125, program.output);
  assert.notEqual(program.status === 125 && program.output, '', 'a refusal says why');
});

test('package: nothing of the clone is named in it', () => {
  const lib = readdirSync(join(installed, 'dist', 'lib'), { recursive: true, encoding: 'utf8' });
  const named = lib
    .filter((name) => name.endsWith('.js'))
    .filter((name) => readFileSync(join(installed, 'dist', 'lib', name), 'utf8').includes(ROOT));
  assert.deepEqual(named, []);
});
