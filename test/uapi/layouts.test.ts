/**
 * Every declared size, offset and value against the C compiler and the kernel's own headers, and every struct and constant
 * of the two headers that are declared in full, and every ioctl of vfio.h, against ours.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import type { Fields, FieldType, Struct, UnionType } from '../../src/base/struct.ts';
import * as iommufdTest from '../../src/uapi/iommufd-test.ts';
import * as iommufd from '../../src/uapi/iommufd.ts';
import { VFIO_IOCTLS } from '../../src/uapi/vfio-ioctls.ts';
import * as vfioOther from '../../src/uapi/vfio-other.ts';
import * as vfio from '../../src/uapi/vfio.ts';
import { kernelHeaders } from './headers.ts';

type Module = Readonly<Record<string, unknown>>;

const MODULES: readonly { file: string; module: Module }[] = [
  { file: 'linux/iommufd.h', module: iommufd },
  { file: 'iommufd_test.h', module: iommufdTest },
  { file: 'linux/vfio.h', module: vfio },
  { file: 'linux/vfio.h', module: vfioOther },
];

function isStruct(value: unknown): value is Struct {
  return typeof value === 'object' && value !== null && 'kind' in value && value.kind === 'struct';
}

const structsOf = (module: Module): Struct[] => Object.values(module).filter(isStruct);
const constantsOf = (module: Module): [string, number][] =>
  Object.entries(module).filter((entry): entry is [string, number] => typeof entry[1] === 'number');

type Place = { path: string; offset: number; size: number };

/** Every field that C can name, nested ones included; a union of ours is anonymous in C, so its members are named directly. */
function places(struct: Struct, base = 0, prefix = ''): Place[] {
  const offsetOf = (field: string): number => base + struct.offsetOf(field);
  return Object.entries(struct.fields).flatMap(([field, type]) =>
    type.kind === 'union'
      ? Object.entries((type as UnionType<Fields>).members).flatMap(([member, inner]) =>
          place(prefix + member, inner, offsetOf(field)),
        )
      : place(prefix + field, type, offsetOf(field)),
  );
}

function place(path: string, type: FieldType<unknown>, offset: number): Place[] {
  const own = { path, offset, size: type.size };
  if (type.kind !== 'struct') return [own];
  return [own, ...places(type as Struct, offset, `${path}.`)];
}

function expected(): string[] {
  return MODULES.flatMap(({ module }) => [
    ...structsOf(module).flatMap((struct) => [
      `sizeof ${struct.name} ${struct.size}`,
      ...places(struct).map(({ path, offset, size }) => `${struct.name}.${path} ${offset} ${size}`),
    ]),
    ...constantsOf(module).map(([name, value]) => `${name} ${value}`),
  ]);
}

/** The same lines, said by C. A flexible array has no size in C; ours is 0. */
function program(): string {
  const lines = MODULES.flatMap(({ module }) => [
    ...structsOf(module).flatMap((struct) => [
      `P("sizeof ${struct.name} %zu\\n", sizeof(struct ${struct.name}));`,
      ...places(struct).map(({ path, size }) => {
        const c = `struct ${struct.name}`;
        const sizeInC = size === 0 ? '(size_t)0' : `sizeof(((${c} *)0)->${path})`;
        return `P("${struct.name}.${path} %zu %zu\\n", offsetof(${c}, ${path}), ${sizeInC});`;
      }),
    ]),
    ...constantsOf(module).map(([name]) => `P("${name} %lld\\n", (long long)(${name}));`),
  ]);
  const includes = MODULES.map(({ file }) => `#include <${file}>`);
  return [
    '#include <stddef.h>',
    '#include <stdio.h>',
    ...includes,
    '#define P printf',
    'int main(void) {',
    ...lines,
    'return 0; }',
  ].join('\n');
}

const headers = kernelHeaders();
const compiler = ['cc', 'gcc', 'clang'].find((name) => spawnSync(name, ['--version']).status === 0);
const noHeaders =
  headers === undefined &&
  'no kernel headers: `npm run selftests` fetches them, or set UIOMMU_KERNEL_HEADERS';
const noCompiler = compiler === undefined && 'no C compiler';

test(
  'uapi: the C compiler agrees with every size, offset and value',
  {
    skip: noHeaders || noCompiler,
  },
  () => {
    assert.ok(headers !== undefined && compiler !== undefined);
    const directory = mkdtempSync(join(tmpdir(), 'uiommu-layouts-'));
    try {
      const source = join(directory, 'layouts.c');
      const binary = join(directory, 'layouts');
      writeFileSync(source, program());
      // -D__user=: a source tree's headers carry a word that installation removes.
      const flags = ['-w', '-D__user=', '-isystem', headers.uapi, '-isystem', headers.mock];
      const built = spawnSync(compiler, [...flags, '-o', binary, source], { encoding: 'utf8' });
      assert.equal(built.status, 0, built.stderr);
      const ran = spawnSync(binary, { encoding: 'utf8' });
      assert.equal(ran.status, 0);
      const lines = ran.stdout.trim().split('\n');
      assert.ok(lines.length > 700, `only ${lines.length} lines to compare`);
      assert.deepEqual(expected(), lines);
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);

/** Names of structs and constants that a header declares; internal and function-like ones left out. */
function namesIn(text: string): string[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, '');
  const structs = [...code.matchAll(/^struct (\w+) \{/gm)];
  const defines = [...code.matchAll(/^#define\s+([A-Z]\w+)[ \t]/gm)];
  const values = [...code.matchAll(/\benum\b[^{;]*\{([^}]*)\}/g)].flatMap((match) => [
    ...(match[1] ?? '').matchAll(/^\s*([A-Z]\w+)/gm),
  ]);
  return [...structs, ...defines, ...values].map((match) => match[1] ?? '');
}

test(
  'uapi: nothing of the headers of iommufd and its mock driver is missing',
  {
    skip: noHeaders,
  },
  () => {
    assert.ok(headers !== undefined);
    const missing = [
      { file: join(headers.uapi, 'linux/iommufd.h'), module: iommufd as Module },
      { file: join(headers.mock, 'iommufd_test.h'), module: iommufdTest as Module },
    ].flatMap(({ file, module }) => {
      const names = namesIn(readFileSync(file, 'utf8'));
      assert.ok(names.length > 50, `${file}: found only ${names.length} names`);
      return names.filter((name) => !(name in module));
    });
    assert.deepEqual(missing, []);
  },
);

test(
  'uapi: no ioctl of vfio.h is missing',
  {
    skip: noHeaders,
  },
  () => {
    assert.ok(headers !== undefined);
    const text = readFileSync(join(headers.uapi, 'linux/vfio.h'), 'utf8');
    const names = [...text.matchAll(/^#define (\w+)\s+_IO\(/gm)].map((match) => match[1] ?? '');
    assert.ok(names.length >= 34, `found only ${names.length} ioctls`);
    assert.deepEqual(names.toSorted(), Object.keys(VFIO_IOCTLS).toSorted());
  },
);

test('uapi: a constant that is missing or a field that is misplaced would be found', () => {
  const names = namesIn(
    'struct a {\n};\nenum b {\n\tB_ONE = 1,\n\tB_TWO,\n};\n#define C_THREE 3\n',
  );
  assert.deepEqual(names, ['a', 'C_THREE', 'B_ONE', 'B_TWO']);
  const paths = places(iommufdTest.iommu_test_cmd as Struct).map(({ path }) => path);
  assert.ok(paths.includes('dirty.out_nr_dirty'));
});
