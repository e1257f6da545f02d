/**
 * `npm run linux-vm`: a program on a real Linux, to see what uiommu has to answer.
 *
 *   npm run linux-vm -- [--kernel bzImage] [--seconds LIMIT] PROGRAM [ARGUMENT...]
 *
 * Builds Debian's newest kernel source once (some minutes; kept in the cache folder), with iommufd, its mock driver and fault
 * injection, on top of the smallest configuration (linux-vm.config). PROGRAM, with the libraries that it names, is all there
 * is beside it, as root, under qemu's software emulation. What it printed goes to standard output; the seconds it took, boot
 * not counted, and the kernel's warnings to standard error. Exit status: the program's; 1 where this computer lacks a tool or
 * the machine stops too early; 2 for an argument that makes no sense.
 *
 *   npm --silent run linux-vm -- ~/.cache/uiommu/…/built/corners 1 60 250
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { numberOption, parseOptions, refuse } from './arguments.ts';
import { buildStatic, kernelTree, Skipped, wholeSource, type Tree } from './kernel-source.ts';
import { progress } from './progress.ts';
import { ROOT } from './run-client.ts';

const QEMU = 'qemu-system-x86_64';
const TOOLS = ['make', 'gcc', 'flex', 'bison', 'bc', QEMU];
const MEGABYTES = 4096;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFCHR = 0o020000;
const FOLDERS = ['bin', 'dev', 'proc', 'sys', 'tmp'];

const SCRIPT = 'linux-vm';
const SHOW_EVERY_MS = 1000;

// What stands behind PROGRAM is the program's own.
const argv = process.argv.slice(2);
const behind = argv.findIndex(
  (word, i) => !word.startsWith('--') && !/^--\w+$/.test(argv[i - 1] ?? ''),
);
const own = behind < 0 ? argv : argv.slice(0, behind);
const [program, ...args] = behind < 0 ? [] : argv.slice(behind);
const { values } = parseOptions(SCRIPT, {
  args: own,
  options: { kernel: { type: 'string' }, seconds: { type: 'string', default: '300' } },
});
const limitSeconds = numberOption(SCRIPT, { name: 'seconds', text: values.seconds });
const line = progress();

/** @returns exit status; 1 after a signal */
function ended(child: ChildProcess): Promise<number> {
  return new Promise((done, failed) => {
    child.once('error', failed).once('close', (status) => {
      done(status ?? 1);
    });
  });
}

function checkTools(tools: readonly string[]): void {
  const missing = tools.filter(
    (name) => spawnSync('sh', ['-c', 'command -v "$0"', name]).status !== 0,
  );
  if (missing.length > 0) throw new Skipped(`not installed: ${missing.join(', ')}`);
}

async function make(source: string, ...targets: string[]): Promise<void> {
  const child = spawn('make', ['-C', source, ...targets], { stdio: ['ignore', 'pipe', 'pipe'] });
  let files = 0;
  child.stdout.on('data', (chunk: Buffer) => {
    files += chunk.toString('latin1').match(/^ {2}[A-Z]+ /gm)?.length ?? 0;
    line.show(`make ${targets.at(-1) ?? ''}: ${files} files`);
  });
  let complaint = '';
  child.stderr.on(
    'data',
    (chunk: Buffer) => (complaint = `${complaint}${chunk.toString()}`.slice(-2000)),
  );
  const status = await ended(child);
  if (status !== 0) throw new Skipped(`make ${targets.join(' ')}: ${complaint}`);
}

/** Builds the kernel, if it is not there. @returns path of the image */
async function kernelImage(tree: Tree): Promise<string> {
  const image = join(tree.root, 'built', 'bzImage');
  if (existsSync(image)) return image;
  checkTools(TOOLS);
  const source = await wholeSource(tree, line);
  console.error(`building Linux ${tree.version} (once; some minutes)`);
  const fragment = readFileSync(join(ROOT, 'scripts', 'linux-vm.config'), 'utf8');
  await make(source, 'tinyconfig');
  writeFileSync(join(source, '.config'), fragment, { flag: 'a' });
  await make(source, 'olddefconfig');
  await make(source, `-j${availableParallelism()}`, 'bzImage');
  line.clear();
  mkdirSync(dirname(image), { recursive: true });
  copyFileSync(join(source, 'arch/x86/boot/bzImage'), `${image}.part`);
  renameSync(`${image}.part`, image);
  return image;
}

type Entry = { readonly name: string; readonly mode: number; readonly data?: Buffer };

/** An archive in the format of initramfs (Documentation/driver-api/early-userspace/buffer-format.rst, "newc"). */
function archive(entries: readonly Entry[]): Buffer {
  const pad = (length: number): Buffer => Buffer.alloc((4 - (length % 4)) % 4);
  const parts = [...entries, { name: 'TRAILER!!!', mode: 0 }].flatMap(({ name, mode, data }, i) => {
    const bytes = data ?? Buffer.alloc(0);
    // Only the console is a device: 5, 1.
    const device = (mode & S_IFCHR) !== 0 && (mode & S_IFREG) === 0 && (mode & S_IFDIR) === 0;
    const fields = [i + 1, mode, 0, 0, 1, 0, bytes.length, 0, 0, device ? 5 : 0, device ? 1 : 0];
    const numbers = [...fields, name.length + 1, 0].map((n) => n.toString(16).padStart(8, '0'));
    const head = Buffer.from(`070701${numbers.join('')}${name}\0`, 'latin1');
    return [head, pad(head.length), bytes, pad(bytes.length)];
  });
  return Buffer.concat(parts);
}

/** Shared libraries that a program names, and its loader. */
function librariesOf(path: string): string[] {
  checkTools(['ldd']);
  const { stdout } = spawnSync('ldd', [path], { encoding: 'utf8' });
  const missing = [...stdout.matchAll(/(\S+) => not found/g)].map(([, name = '']) => name);
  if (missing.length > 0)
    throw new Skipped(`${path} needs ${missing.join(', ')}, not installed here`);
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path = '']) => path);
}

function fileSystem(tree: Tree, path: string): Buffer {
  const init = buildStatic(tree, [join(ROOT, 'test', 'programs', 'vm-init.c')], 'vm-init');
  const file = (name: string, from: string): Entry => ({
    name,
    mode: S_IFREG | 0o755,
    data: readFileSync(from),
  });
  const libraries = librariesOf(path);
  const folders = libraries.flatMap((library) => {
    const parts = library.split('/').slice(1, -1);
    return parts.map((_, i) => parts.slice(0, i + 1).join('/'));
  });
  const command = ['/bin/program', ...args].map((each) => `${each}\0`).join('');
  return archive([
    ...[...new Set([...FOLDERS, ...folders])].map((name) => ({ name, mode: S_IFDIR | 0o755 })),
    { name: 'dev/console', mode: S_IFCHR | 0o600 },
    { name: 'command', mode: S_IFREG | 0o644, data: Buffer.from(command) },
    file('init', init),
    file('bin/program', path),
    ...libraries.map((library) => file(library.slice(1), library)),
  ]);
}

/** @returns the program's exit status */
async function run(image: string, initrd: Buffer): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-vm-'));
  let qemu: ChildProcess | undefined;
  const leave = (): void => {
    qemu?.kill('SIGKILL');
    rmSync(folder, { recursive: true, force: true });
  };
  process.once('exit', leave);
  const begun = performance.now();
  const watch = setInterval(() => {
    line.show(`in the machine: ${Math.round((performance.now() - begun) / 1000)} s`);
  }, SHOW_EVERY_MS);
  try {
    const at = (name: string): string => join(folder, name);
    writeFileSync(at('initrd'), initrd);
    const serial = ['console', 'output', 'report'].flatMap((name) => [
      '-serial',
      `file:${at(name)}`,
    ]);
    const machine = [
      '-accel',
      'tcg',
      '-cpu',
      'max,la57=off',
      '-m',
      String(MEGABYTES),
      '-no-reboot',
    ];
    const screen = ['-display', 'none', '-monitor', 'none'];
    const boot = ['-kernel', image, '-initrd', at('initrd'), '-append', 'console=ttyS0 panic=-1'];
    qemu = spawn(QEMU, [...machine, ...screen, ...serial, ...boot], {
      stdio: ['ignore', 'inherit', 'inherit'],
      timeout: limitSeconds * 1000,
      killSignal: 'SIGKILL',
    });
    await ended(qemu);
    line.clear();
    const text = (name: string): string =>
      existsSync(at(name)) ? readFileSync(at(name), 'latin1') : '';
    process.stdout.write(text('output'));
    const report = text('report');
    for (const [warning] of text('console').matchAll(
      /^.*(?:WARNING:|BUG:|Oops|Kernel panic).*$/gm,
    )) {
      console.error(`Linux: ${warning.trim()}`);
    }
    const status = /^status (\d+)/m.exec(report)?.[1];
    if (status === undefined) {
      console.error(`the machine stopped before the program ended, or after ${limitSeconds} s`);
      return 1;
    }
    console.error(`${/^seconds (\S+)/m.exec(report)?.[1] ?? '?'} s`);
    return Number(status);
  } finally {
    clearInterval(watch);
    process.off('exit', leave);
    leave();
  }
}

/** An argument that names a file. */
function fileArgument(what: string, path: string | undefined): string {
  if (path === undefined)
    return refuse(SCRIPT, `${what} is missing; see the head of scripts/linux-vm.ts`);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isFile() !== true) refuse(SCRIPT, `${what}: ${path} is not a file`);
  return resolve(path);
}

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.once(signal, () => {
    process.exit(status);
  });
}
const path = fileArgument('PROGRAM', program);
const given = values.kernel === undefined ? undefined : fileArgument('--kernel', values.kernel);
try {
  checkTools([QEMU]);
  const tree = await kernelTree(line, false);
  const image = given ?? (await kernelImage(tree));
  process.exitCode = await run(image, fileSystem(tree, path));
} catch (error) {
  line.clear();
  if (!(error instanceof Skipped)) throw error;
  console.error(`${SCRIPT}: ${error.message}`);
  process.exitCode = 1;
}
