/**
 * Real Linux machines under qemu's software emulation: a kernel that is built once, a root file system made of what the caller
 * names, one program, and what it printed. For npm run linux-vm and whoever else asks a real kernel.
 *
 * Nothing is left behind: the machine's files lie in a temporary folder, and qemu ends with this process.
 */
import { createHash } from 'node:crypto';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { buildStatic, Skipped, wholeSource, type Tree } from './kernel-source.ts';
import type { Progress } from './progress.ts';
import { ROOT } from './run-client.ts';

export const QEMU = 'qemu-system-x86_64';
const TOOLS = ['make', 'gcc', 'flex', 'bison', 'bc', QEMU];
const MEGABYTES = 4096;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFCHR = 0o020000;
const FOLDERS = ['bin', 'dev', 'proc', 'sys', 'tmp'];
const ELF_MAGIC = Buffer.from('\x7fELF', 'latin1');
const SHOW_EVERY_MS = 1000;

/** @returns exit status; 1 after a signal */
function ended(child: ChildProcess): Promise<number> {
  return new Promise((done, failed) => {
    child.once('error', failed).once('close', (status) => {
      done(status ?? 1);
    });
  });
}

export function checkTools(tools: readonly string[]): void {
  const missing = tools.filter(
    (name) => spawnSync('sh', ['-c', 'command -v "$0"', name]).status !== 0,
  );
  if (missing.length > 0) throw new Skipped(`not installed: ${missing.join(', ')}`);
}

async function make(source: string, line: Progress, ...targets: string[]): Promise<void> {
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
export async function kernelImage(tree: Tree, line: Progress): Promise<string> {
  const fragment = readFileSync(join(ROOT, 'scripts', 'linux-vm.config'), 'utf8');
  // Another configuration is another kernel.
  const id = createHash('sha256').update(fragment).digest('hex').slice(0, 8);
  const image = join(tree.root, 'built', `bzImage-${id}`);
  if (existsSync(image)) return image;
  checkTools(TOOLS);
  const source = await wholeSource(tree, line);
  console.error(`building Linux ${tree.version} (once; some minutes)`);
  await make(source, line, 'tinyconfig');
  writeFileSync(join(source, '.config'), fragment, { flag: 'a' });
  await make(source, line, 'olddefconfig');
  await make(source, line, `-j${availableParallelism()}`, 'bzImage');
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

/** What a machine has beside its kernel: a program, which is run as root, and files for it. */
export type Guest = {
  /** path on this computer */
  readonly program: string;
  readonly args: readonly string[];
  /** further files and folders by their path in the machine, which is absolute; libraries that they name come along */
  readonly files?: ReadonlyMap<string, string>;
  /** further arguments of qemu, such as devices */
  readonly qemu?: readonly string[];
  readonly seconds: number;
};

function filesBelow(at: string, from: string): (readonly [string, string])[] {
  if (!statSync(from).isDirectory()) return [[at, from]];
  return readdirSync(from).flatMap((name) => filesBelow(`${at}/${name}`, join(from, name)));
}

function fileSystem(tree: Tree, guest: Guest): Buffer {
  const init = buildStatic(tree, [join(ROOT, 'test', 'programs', 'vm-init.c')], 'vm-init');
  const given = [...(guest.files ?? [])].flatMap(([at, from]) => filesBelow(at, from));
  const files = new Map([['/init', init], ['/bin/program', guest.program], ...given]);
  for (const from of [...files.values()].filter(isElf)) {
    for (const library of librariesOf(from)) files.set(library, library);
  }
  const folders = [...files.keys()].flatMap((path) => {
    const parts = path.split('/').slice(1, -1);
    return parts.map((_, i) => parts.slice(0, i + 1).join('/'));
  });
  const command = ['/bin/program', ...guest.args].map((each) => `${each}\0`).join('');
  return archive([
    ...[...new Set([...FOLDERS, ...folders])].map((name) => ({ name, mode: S_IFDIR | 0o755 })),
    { name: 'dev/console', mode: S_IFCHR | 0o600 },
    { name: 'command', mode: S_IFREG | 0o644, data: Buffer.from(command) },
    ...[...files].map(([path, from]) => ({
      name: path.slice(1),
      mode: S_IFREG | 0o755,
      data: readFileSync(from),
    })),
  ]);
}

function isElf(path: string): boolean {
  const head = Buffer.alloc(ELF_MAGIC.length);
  const fd = openSync(path, 'r');
  readSync(fd, head, 0, head.length, 0);
  closeSync(fd);
  return head.equals(ELF_MAGIC);
}

/** What the program printed and how it ended; status 1 where the machine stopped before. */
export type GuestRun = { readonly output: string; readonly status: number };

/**
 * Boots a machine and runs its program to the end; warnings of its kernel go to standard error.
 * @param image the kernel's
 */
export async function runGuest(
  { image, tree, line }: { readonly image: string; readonly tree: Tree; readonly line: Progress },
  guest: Guest,
): Promise<GuestRun> {
  const initrd = fileSystem(tree, guest);
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
    qemu = spawn(QEMU, [...machine, ...screen, ...serial, ...boot, ...(guest.qemu ?? [])], {
      stdio: ['ignore', 'inherit', 'inherit'],
      timeout: guest.seconds * 1000,
      killSignal: 'SIGKILL',
    });
    await ended(qemu);
    line.clear();
    const text = (name: string): string =>
      existsSync(at(name)) ? readFileSync(at(name), 'latin1') : '';
    const output = text('output');
    const report = text('report');
    for (const [warning] of text('console').matchAll(
      /^.*(?:WARNING:|BUG:|Oops|Kernel panic).*$/gm,
    )) {
      console.error(`Linux: ${warning.trim()}`);
    }
    const status = /^status (\d+)/m.exec(report)?.[1];
    if (status === undefined) {
      console.error(`the machine stopped before the program ended, or after ${guest.seconds} s`);
      return { output, status: 1 };
    }
    console.error(`${/^seconds (\S+)/m.exec(report)?.[1] ?? '?'} s`);
    return { output, status: Number(status) };
  } finally {
    clearInterval(watch);
    process.off('exit', leave);
    leave();
  }
}
