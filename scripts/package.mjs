// What the package ships, in dist/lib: one bundle for the command and for each entry of the library, in chunks that they share;
// and of the declarations that tsc wrote those that an entry reaches, as a tree, since classes with private fields must be
// declared once only. The clone's own command runs from dist/src; examples and whoever installs the package get these.
import { build } from 'esbuild';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const source = join(root, 'dist', 'src');
const lib = join(root, 'dist', 'lib');

/** Entries of the library: a file src/NAME.ts each, exported as "uiommu" (index) and "uiommu/NAME". */
export const LIBRARY = ['index', 'machine', 'client', 'testing'];
/** Entries that are all data: structs, numbers and flags of the kernel's headers. */
export const UAPI = ['iommufd', 'iommufd-test', 'vfio'];
// Threads are found by their file's name beside the bundle (new URL('./NAME.js', import.meta.url)).
const THREADS = ['cli/check-worker'];

async function bundle() {
  const compiled = (name) => join(source, `${name}.js`);
  const entries = [
    ['cli', 'cli/main'],
    ...LIBRARY.map((name) => [name, name]),
    ...UAPI.map((name) => [`uapi/${name}`, `uapi/${name}`]),
    ...THREADS.map((path) => [path.slice(path.indexOf('/') + 1), path]),
  ];
  await build({
    entryPoints: Object.fromEntries(entries.map(([out, path]) => [out, compiled(path)])),
    outdir: lib,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    external: ['koffi', 'yaml'],
    minify: true,
    keepNames: false,
    logLevel: 'warning',
  });
}

/** Files that a declaration file names, relative ones. */
function named(file) {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(/(?:from|import\()\s*['"](\.[^'"]+)\.(?:ts|js)['"]/g)].map(([, path]) =>
    join(dirname(file), `${path}.d.ts`),
  );
}

function copyTypes() {
  const reached = new Set();
  const waiting = [...LIBRARY, ...UAPI.map((name) => `uapi/${name}`)].map((name) =>
    join(source, `${name}.d.ts`),
  );
  for (let file = waiting.pop(); file !== undefined; file = waiting.pop()) {
    if (reached.has(file)) continue;
    reached.add(file);
    waiting.push(...named(file));
  }
  for (const file of reached) {
    const to = join(lib, 'types', relative(source, file));
    mkdirSync(dirname(to), { recursive: true });
    cpSync(file, to);
  }
}

async function writeManPage() {
  const { allCommands, packageVersion } = await import(join(source, 'cli', 'main.js'));
  const { manPage } = await import(join(source, 'cli', 'man.js'));
  writeFileSync(join(lib, 'uiommu.1'), manPage(await allCommands(), packageVersion()));
}

/** Makes dist/lib of what tsc has compiled. */
export async function makePackage() {
  rmSync(lib, { recursive: true, force: true });
  await bundle();
  copyTypes();
  await writeManPage();
}
