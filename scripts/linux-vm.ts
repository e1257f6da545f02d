/**
 * `npm run linux-vm`: a program on a real Linux, to see what uiommu has to answer.
 *
 *   npm run linux-vm -- [--kernel bzImage] [--seconds LIMIT] PROGRAM [ARGUMENT...]
 *
 * Builds Debian's newest kernel source once (some minutes; kept in the cache folder), with iommufd, its mock driver and fault
 * injection, on top of the smallest configuration (linux-vm.config). PROGRAM, with the libraries that it names, is all there
 * is beside it, as root, under qemu's software emulation. What it printed goes to standard output; the seconds it took, boot
 * not counted, and the kernel's warnings to standard error. Exit status: the program's; 1 where this computer lacks a tool.
 *
 *   npm --silent run linux-vm -- ~/.cache/uiommu/…/built/corners 1 60 250
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
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

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { kernel: { type: 'string' }, seconds: { type: 'string', default: '300' } },
});
const line = progress();

function checkTools(tools: readonly string[]): void {
  const missing = tools.filter(
    (name) => spawnSync('sh', ['-c', 'command -v "$0"', name]).status !== 0,
  );
  if (missing.length > 0) throw new Skipped(`not installed: ${missing.join(', ')}`);
}

/** Builds the kernel, if it is not there. @returns path of the image */
async function kernelImage(tree: Tree): Promise<string> {
  const image = join(tree.root, 'built', 'bzImage');
  if (existsSync(image)) return image;
  checkTools(TOOLS);
  const source = await wholeSource(tree, line);
  console.error(`building Linux ${tree.version} (once; some minutes)`);
  const fragment = readFileSync(join(ROOT, 'scripts', 'linux-vm.config'), 'utf8');
  const make = (...targets: string[]): void => {
    const { status, stderr } = spawnSync('make', ['-C', source, ...targets], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    if (status !== 0) throw new Skipped(`make ${targets.join(' ')}: ${stderr.slice(-2000)}`);
  };
  make('tinyconfig');
  writeFileSync(join(source, '.config'), fragment, { flag: 'a' });
  make('olddefconfig');
  make(`-j${availableParallelism()}`, 'bzImage');
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
function librariesOf(program: string): string[] {
  const { stdout } = spawnSync('ldd', [program], { encoding: 'utf8' });
  return [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path = '']) => path);
}

function fileSystem(tree: Tree, program: string, args: readonly string[]): Buffer {
  const init = buildStatic(tree, [join(ROOT, 'test', 'programs', 'vm-init.c')], 'vm-init');
  const file = (name: string, path: string): Entry => ({
    name,
    mode: S_IFREG | 0o755,
    data: readFileSync(path),
  });
  const libraries = librariesOf(program);
  const folders = libraries.flatMap((path) => {
    const parts = path.split('/').slice(1, -1);
    return parts.map((_, i) => parts.slice(0, i + 1).join('/'));
  });
  const command = ['/bin/program', ...args].map((each) => `${each}\0`).join('');
  return archive([
    ...[...new Set([...FOLDERS, ...folders])].map((name) => ({ name, mode: S_IFDIR | 0o755 })),
    { name: 'dev/console', mode: S_IFCHR | 0o600 },
    { name: 'command', mode: S_IFREG | 0o644, data: Buffer.from(command) },
    file('init', init),
    file('bin/program', program),
    ...libraries.map((path) => file(path.slice(1), path)),
  ]);
}

/** @returns the program's exit status */
async function run(image: string, initrd: Buffer, seconds: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-vm-'));
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
    const qemu = spawn(QEMU, [...machine, ...screen, ...serial, ...boot], {
      stdio: ['ignore', 'inherit', 'inherit'],
      timeout: seconds * 1000,
      killSignal: 'SIGKILL',
    });
    await new Promise((done, failed) => qemu.once('close', done).once('error', failed));
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
      console.error(`the machine stopped before the program ended, or after ${seconds} s`);
      return 1;
    }
    console.error(`${/^seconds (\S+)/m.exec(report)?.[1] ?? '?'} s`);
    return Number(status);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const [program, ...args] = positionals;
try {
  if (program === undefined || !existsSync(program)) {
    throw new Skipped(`no program is given that exists (${program ?? 'none'})`);
  }
  checkTools([QEMU]);
  const tree = await kernelTree(line, false);
  const image = values.kernel ?? (await kernelImage(tree));
  process.exitCode = await run(
    image,
    fileSystem(tree, resolve(program), args),
    Number(values.seconds),
  );
} catch (error) {
  line.clear();
  if (!(error instanceof Skipped)) throw error;
  console.error(`linux-vm: ${error.message}`);
  process.exitCode = 1;
}
