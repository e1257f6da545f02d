/**
 * The kernel's own selftests of iommufd, built from Debian's newest linux-source-7.x: found, downloaded, unpacked as far as
 * needed, its uapi headers installed, the programs compiled. All of it lives in a cache folder outside the tree
 * (XDG_CACHE_HOME or ~/.cache, below it uiommu), laid out like the kernel's tree, and is made once.
 */
import { spawn, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  createReadStream,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { compareVersions, findPackages, machineSuites, type Package } from './debian.ts';
import { fetchFile, Unavailable } from './download.ts';
import type { Progress } from './progress.ts';

/** What cannot be done on this machine, in words for a person; the caller reports it as skipped. */
export class Skipped extends Error {
  override readonly name = 'Skipped';
}

export const PROGRAMS = ['iommufd', 'iommufd_fail_nth'] as const;

const NAME = /^linux-source-7\.\d+$/;
// Debian's suites that may hold a newer kernel than the machine's own.
const SUITES = ['{stable}-backports', 'experimental', 'unstable', 'testing'];
const LOOK_AGAIN_MS = 7 * 24 * 3600 * 1000;
const NEEDED = [
  'include/uapi',
  'drivers/iommu/iommufd/iommufd_test.h',
  'tools/testing/selftests/iommu',
  'tools/testing/selftests/kselftest.h',
  'tools/testing/selftests/kselftest_harness.h',
];

/** Where everything is kept. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  return join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'uiommu');
}

export type Tree = { readonly root: string; readonly version: string };

/** The newest tree that was unpacked completely. */
function newestTree(cache: string): Tree | undefined {
  // A download that broke off leaves a .deb or a .part behind.
  const trees = readdirSync(cache, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && !entry.name.endsWith('.part'))
    .map((entry) => entry.name)
    .filter((name) => /^linux-source-7\.\d+_/.test(name))
    .map((name) => ({ root: join(cache, name), version: name.slice(name.indexOf('_') + 1) }));
  return trees.sort((a, b) => compareVersions(a.version, b.version)).at(-1);
}

/** The whole source, of which {@link kernelTree} keeps what the selftests need; about 2 GB. @throws Skipped */
export async function wholeSource({ root, version }: Tree, progress: Progress): Promise<string> {
  const whole = join(root, 'whole');
  if (existsSync(whole)) return whole;
  try {
    const packages = await sourcePackages(progress);
    const same = packages.find((each) => each.version === version);
    if (same === undefined) {
      throw new Skipped(
        `Debian has ${packages[0].version} now, the tree in the cache is ${version}; npm run selftests -- --update fetches the new one`,
      );
    }
    await fetchTree(same, whole, progress, []);
    return whole;
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    throw new Skipped(`the kernel source cannot be fetched: ${error.message}`);
  } finally {
    progress.clear();
  }
}

/**
 * The tree of the newest linux-source-7.x, from the cache if somebody looked during the last week.
 * @throws Skipped
 */
export async function kernelTree(progress: Progress, update: boolean): Promise<Tree> {
  const cache = cacheFolder();
  mkdirSync(cache, { recursive: true });
  const stamp = join(cache, 'looked');
  const cached = newestTree(cache);
  const fresh = existsSync(stamp) && Date.now() - statSync(stamp).mtimeMs < LOOK_AGAIN_MS;
  if (cached !== undefined && fresh && !update) return cached;
  for (const tool of ['xz', 'tar']) {
    if (spawnSync(tool, ['--version']).status !== 0) throw new Skipped(`${tool} is not installed`);
  }
  try {
    const [newest] = await sourcePackages(progress);
    const root = join(cache, `${newest.name}_${newest.version}`);
    if (!existsSync(root)) await fetchTree(newest, root, progress, NEEDED);
    writeFileSync(stamp, '');
    utimesSync(stamp, new Date(), new Date());
    return { root, version: newest.version };
  } catch (error) {
    if (!(error instanceof Unavailable)) throw error;
    if (cached !== undefined) return cached;
    throw new Skipped(`the kernel source cannot be fetched: ${error.message}`);
  } finally {
    progress.clear();
  }
}

/** Newest first. @throws Unavailable */
async function sourcePackages(progress: Progress): Promise<[Package, ...Package[]]> {
  const suites = [...new Set([...SUITES, ...machineSuites()])];
  const onSuite = (suite: string): void => {
    progress.show(`looking for linux-source-7.x in ${suite}`);
  };
  const [newest, ...others] = await findPackages({ wanted: NAME, suites, onSuite });
  if (newest === undefined) {
    throw new Unavailable(`no suite of the mirror has linux-source-7.x (${suites.join(', ')})`);
  }
  return [newest, ...others];
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;

/** @param paths what of the source to keep; nothing for all */
async function fetchTree(
  found: Package,
  root: string,
  progress: Progress,
  paths: readonly string[],
): Promise<void> {
  const { name, version, suite, size } = found;
  progress.clear();
  console.error(`fetching ${name} ${version} from ${suite} (${megabytes(size)}, once)`);
  const deb = `${root}.deb`;
  await fetchFile(found.url, deb, found.sha256, (bytes) => {
    progress.show(`${name}: ${megabytes(bytes)} of ${megabytes(size)}`);
  });
  const part = `${root}.part`;
  rmSync(part, { recursive: true, force: true });
  mkdirSync(part, { recursive: true });
  try {
    progress.clear();
    await unpack({ deb, name, paths }, part, progress);
    if (paths.length > 0) installHeaders(part);
    renameSync(part, root);
  } finally {
    rmSync(part, { recursive: true, force: true });
    rmSync(deb);
  }
}

/** Place of the member `data.tar.*` in a .deb, which is an ar archive: headers of 60 bytes, members padded to 2. */
export function dataMember(deb: string): { name: string; start: number; end: number } {
  const file = openSync(deb, 'r');
  try {
    const header = Buffer.alloc(60);
    let at = 8;
    while (readSync(file, header, 0, 60, at) === 60) {
      const name = header.toString('latin1', 0, 16).trim().replace(/\/$/, '');
      const size = Number(header.toString('latin1', 48, 58));
      if (name.startsWith('data.tar')) return { name, start: at + 60, end: at + 60 + size - 1 };
      at += 60 + size + (size % 2);
    }
  } finally {
    closeSync(file);
  }
  throw new Unavailable(`${deb} is not a Debian package`);
}

type Wanted = { readonly deb: string; readonly name: string; readonly paths: readonly string[] };

/** Streams the package through xz and tar; only what is wanted reaches the disk. */
async function unpack(
  { deb, name, paths: wanted }: Wanted,
  to: string,
  progress: Progress,
): Promise<void> {
  const { start, end, name: member } = dataMember(deb);
  const outer = member.endsWith('.xz') ? 'xz -dc' : member.endsWith('.gz') ? 'gzip -dc' : 'cat';
  const paths = wanted.map((path) => `${name}/${path}`).join(' ');
  const script =
    `${outer} | tar -xOf - ./usr/src/${name}.tar.xz | xz -dc |` +
    ` tar -xf - --strip-components=1 -C "$0" ${paths}`;
  const child = spawn('sh', ['-c', script, to], { stdio: ['pipe', 'ignore', 'pipe'] });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  const ended = new Promise<number>((resolve) =>
    child.once('close', (code) => {
      resolve(code ?? 1);
    }),
  );
  const stream = createReadStream(deb, { start, end });
  let bytes = 0;
  stream.on('data', (chunk) => {
    bytes += chunk.length;
    progress.show(`unpacking: ${Math.round((100 * bytes) / (end - start))} %`);
  });
  await pipeline(stream, child.stdin);
  const status = await ended;
  if (status !== 0 || !existsSync(join(to, wanted[0] ?? 'Makefile'))) {
    throw new Unavailable(`${name} cannot be unpacked: ${complaint.trim()}`);
  }
}

/**
 * What the kernel's headers_install does that matters here: words for the kernel's own checker go, and the headers leave
 * include/uapi. The machine's own headers supply asm/.
 */
function installHeaders(root: string): void {
  const from = join(root, 'include/uapi/linux');
  for (const name of readdirSync(from, { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.h')) continue;
    const text = readFileSync(join(from, name), 'utf8')
      .replace(/^#include <linux\/compiler(_types)?\.h>\n/gm, '')
      .replace(/\s__user\b|\b__user\s/g, ' ')
      .replace(
        /^#ifndef __KERNEL__\n#ifndef __EXPORTED_HEADERS__\n#warning.*\n#endif.*\n#endif.*\n/gm,
        '',
      );
    const to = join(root, 'usr/include/linux', name);
    mkdirSync(dirname(to), { recursive: true });
    writeFileSync(to, text);
  }
}

/**
 * Builds the programs, if they are not there.
 * @returns the folder that holds them
 * @throws Skipped
 */
export async function buildPrograms({ root }: Tree, progress: Progress): Promise<string> {
  const built = join(root, 'built');
  if (PROGRAMS.every((name) => existsSync(join(built, name)))) return built;
  const compiler = findCompiler();
  mkdirSync(built, { recursive: true });
  const libcap = await capabilityLibrary(compiler, root, progress);
  const tests = join(root, 'tools/testing/selftests');
  for (const name of PROGRAMS) {
    progress.show(`compiling ${name}`);
    const output = join(built, name);
    const flags = ['-O2', '-w', '-D_GNU_SOURCE=', '-I', tests];
    const headers = ['-isystem', join(root, 'usr/include'), ...libcap];
    const source = join(tests, 'iommu', `${name}.c`);
    const command = [...flags, ...headers, '-o', `${output}.part`, source, ...libcap, '-lcap'];
    const { status, stderr } = spawnSync(compiler, command, { encoding: 'utf8' });
    if (status !== 0) {
      throw new Skipped(`${name} does not compile here:\n${stderr.slice(0, 2000)}`);
    }
    renameSync(`${output}.part`, output);
  }
  progress.clear();
  return built;
}

function findCompiler(): string {
  const compiler = ['gcc', 'cc'].find((name) => spawnSync(name, ['--version']).status === 0);
  if (compiler === undefined) throw new Skipped('there is no C compiler');
  return compiler;
}

/** Compiles a static program of ours with the kernel's headers. @throws Skipped */
export function buildStatic({ root }: Tree, sources: readonly string[], name: string): string {
  const compiler = findCompiler();
  const output = join(root, 'built', name);
  mkdirSync(dirname(output), { recursive: true });
  const headers = ['usr/include', 'drivers/iommu/iommufd'].flatMap((each) => [
    '-isystem',
    join(root, each),
  ]);
  // Others may be running it, or compiling it too.
  const part = `${output}.${process.pid}.part`;
  const command = ['-O1', '-Wall', '-static', ...headers, '-o', part, ...sources];
  const { status, stderr } = spawnSync(compiler, command, { encoding: 'utf8' });
  if (status !== 0) throw new Skipped(`${name} does not compile here:\n${stderr.slice(0, 2000)}`);
  renameSync(part, output);
  return output;
}

/** Flags that find libcap: none where it is installed, else those of the machine's own suite, fetched and unpacked. */
async function capabilityLibrary(
  compiler: string,
  root: string,
  progress: Progress,
): Promise<string[]> {
  const program = '#include <sys/capability.h>\nint main(void) { return cap_free(0); }';
  const flags = ['-x', 'c', '-', '-o', '/dev/null', '-lcap'];
  if (spawnSync(compiler, flags, { input: program }).status === 0) return [];
  const folder = join(root, 'libcap');
  if (!existsSync(folder)) {
    try {
      const onSuite = (suite: string): void => {
        progress.show(`looking for libcap-dev in ${suite}`);
      };
      const search = { wanted: /^libcap-dev$/, suites: machineSuites(), onSuite };
      const [found] = await findPackages(search);
      if (found === undefined) throw new Unavailable('no suite of this machine has libcap-dev');
      await fetchLibrary(found, folder);
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error;
      throw new Skipped(`libcap's headers are not installed and not to be had: ${error.message}`);
    }
  }
  const archive = readdirSync(folder).find((name) => name === 'libcap.a');
  if (archive === undefined) throw new Skipped('libcap-dev holds no libcap.a');
  return ['-isystem', join(folder, 'include'), `-L${folder}`];
}

async function fetchLibrary(found: Package, folder: string): Promise<void> {
  const deb = `${folder}.deb`;
  const part = `${folder}.part`;
  await fetchFile(found.url, deb, found.sha256, () => undefined);
  mkdirSync(part, { recursive: true });
  const { start, end } = dataMember(deb);
  const tar = spawn('sh', ['-c', 'xz -dc | tar -xf - -C "$0"', part], {
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const ended = new Promise((resolve) => tar.once('close', resolve));
  await pipeline(createReadStream(deb, { start, end }), tar.stdin);
  await ended;
  const files = readdirSync(part, { recursive: true, encoding: 'utf8' });
  mkdirSync(join(part, 'include/sys'), { recursive: true });
  for (const file of files) {
    const to = file.endsWith('/sys/capability.h')
      ? 'include/sys/capability.h'
      : file.endsWith('/sys/psx_syscall.h')
        ? 'include/sys/psx_syscall.h'
        : file.endsWith('/libcap.a')
          ? 'libcap.a'
          : undefined;
    if (to !== undefined) copyFileSync(join(part, file), join(part, to));
  }
  rmSync(deb);
  renameSync(part, folder);
}
