/**
 * Imports go only to the left (ARCHITECTURE.md, "Layers"). A layer may import those named here and itself; nothing else,
 * and koffi only in src/os.
 */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'node:test';

const STACK = ['base', 'uapi', 'machine', 'iommu', 'pinning', 'iommufd', 'vfio', 'kernel'];
const READERS = ['explain', 'check'];
const ALLOWED: Record<string, readonly string[]> = {
  ...Object.fromEntries(STACK.map((layer, i) => [layer, STACK.slice(0, i)])),
  os: ['base'],
  host: [...STACK, ...READERS, 'os'],
  client: ['base', 'uapi', 'os'],
  supervisor: [...STACK, ...READERS, 'os'],
  ...Object.fromEntries(READERS.map((layer) => [layer, STACK])),
  cli: [...STACK, ...READERS, 'os', 'supervisor', 'host', 'client'],
  testing: [...STACK, ...READERS, 'os', 'supervisor', 'host', 'client', 'cli'],
};
const PACKAGES: Record<string, readonly string[]> = {
  koffi: ['os'],
  yaml: ['machine', 'host', 'cli'],
};
// Time, randomness, processes and files live above the engine only.
const PURE = [...STACK, ...READERS];

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

type Import = { file: string; from: string; to: string };

function importsOf(file: string, text: string): Import[] {
  const from = file.split(sep)[1] ?? '';
  return [
    ...text.matchAll(/^\s*(?:import|export)\b[^;]*?from\s+'([^']+)'|^import '([^']+)'/gm),
  ].map((match) => ({ file, from, to: match[1] ?? match[2] ?? '' }));
}

function refusal({ file, from, to }: Import): string | undefined {
  if (to.startsWith('.')) {
    const layer = normalize(join(dirname(file), to)).split(sep)[1] ?? '';
    if (layer === from || ALLOWED[from]?.includes(layer)) return undefined;
    return `${file}: ${from} must not import ${layer} (${to})`;
  }
  if (to.startsWith('node:')) {
    return PURE.includes(from)
      ? `${file}: the engine is pure, it must not import ${to}`
      : undefined;
  }
  return PACKAGES[to]?.includes(from)
    ? undefined
    : `${file}: ${from} must not import the package ${to}`;
}

function sources(): string[] {
  return readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .map((name) => join('src', name))
    .filter(
      (name) => name.endsWith('.ts') && !name.endsWith('.test.ts') && dirname(name) !== 'src',
    );
}

test('layers: every import goes to the left', () => {
  const files = sources();
  assert.ok(files.length > 0, 'no sources found');
  const refused = files
    .flatMap((file) => importsOf(file, readFileSync(join(root, file), 'utf8')))
    .map(refusal)
    .filter((line) => line !== undefined);
  assert.deepEqual(refused, []);
});

test('layers: an import to the right, of a host module or of an unlisted package is found', () => {
  const planted = [
    "import { a } from '../supervisor/run.ts';",
    "import fs from 'node:fs';",
    "import x from 'left-pad';",
  ].join('\n');
  const found = importsOf(join('src', 'iommufd', 'ioas.ts'), planted).map(refusal);
  assert.equal(found.filter((line) => line !== undefined).length, 3);
});

/** Files that a file needs when it is loaded: all but its type-only imports. */
function valueImports(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8');
  return [...text.matchAll(/^(import|export)\b([^;]*?)from\s+'(\.[^']+)'/gm)]
    .filter(([, , names = '']) => !isTypeOnly(names))
    .map(([, , , to = '']) => normalize(join(dirname(file), to)));
}

function isTypeOnly(names: string): boolean {
  if (/^\s*type\b/.test(names)) return true;
  const inner = /\{([^}]*)\}/.exec(names)?.[1];
  return inner?.split(',').every((name) => name.trim() === '' || /^\s*type\s/.test(name)) ?? false;
}

/** The first circle that is found, as the files on it. */
function circle(next: (file: string) => readonly string[], files: readonly string[]): string[] {
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): string[] => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return [];
    path.push(file);
    for (const to of next(file)) {
      const found = visit(to);
      if (found.length > 0) return found;
    }
    path.pop();
    done.add(file);
    return [];
  };
  for (const file of files) {
    const found = visit(file);
    if (found.length > 0) return found;
  }
  return [];
}

test('layers: no circle of value imports', () => {
  assert.deepEqual(circle(valueImports, sources()), []);
});

test('layers: a circle of value imports is found', () => {
  const graph: Record<string, string[]> = { a: ['b'], b: ['c'], c: ['b'] };
  assert.deepEqual(
    circle((file) => graph[file] ?? [], Object.keys(graph)),
    ['b', 'c', 'b'],
  );
});
