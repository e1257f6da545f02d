/** The JSON Schema for editors and the loader say the same of a file's form. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { parse } from 'yaml';
import { InputError } from '../../base/input-error.ts';
import { BUILTIN_MACHINES } from '../builtin.ts';
import { readMachineFile } from './read.ts';
import { formatMachine } from './write.ts';
import { MACHINE_SHAPE } from './machine-shape.ts';
import { Problems, readYaml } from './reader.ts';
import { machineSchema } from './schema.ts';
import type { Shape } from './shape.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..');

type Schema = {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly pattern?: string;
  readonly minLength?: number;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly items?: Schema;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean;
  readonly anyOf?: readonly Schema[];
};

function typeOf(value: unknown): string {
  if (Array.isArray(value)) return 'array';
  return Number.isInteger(value) ? 'integer' : typeof value;
}

/** As much of JSON Schema as the schema uses, after the specification of draft 2020-12. */
function accepts(schema: Schema, value: unknown): boolean {
  if (schema.anyOf !== undefined) return schema.anyOf.some((option) => accepts(option, value));
  if (schema.enum !== undefined) return schema.enum.includes(value);
  const types = [schema.type ?? []].flat();
  const type = typeOf(value);
  if (!types.includes(type) && !(type === 'integer' && types.includes('number'))) return false;
  if (typeof value === 'string') return acceptsText(schema, value);
  if (typeof value === 'number') return inRange(schema, value);
  if (Array.isArray(value)) return value.every((item) => accepts(schema.items ?? {}, item));
  return (
    typeof value !== 'object' || acceptsObject(schema, (value ?? {}) as Record<string, unknown>)
  );
}

function acceptsText({ pattern = '', minLength = 0 }: Schema, value: string): boolean {
  return value.length >= minLength && new RegExp(pattern).test(value);
}

function inRange({ minimum = -Infinity, maximum = Infinity }: Schema, value: number): boolean {
  return value >= minimum && value <= maximum;
}

function acceptsObject(schema: Schema, value: Record<string, unknown>): boolean {
  return (
    (schema.required ?? []).every((name) => name in value) &&
    Object.entries(value).every(([name, field]) => {
      const property = Object.hasOwn(schema.properties ?? {}, name)
        ? schema.properties?.[name]
        : undefined;
      return property === undefined
        ? schema.additionalProperties !== false
        : accepts(property, field);
    })
  );
}

function loaderAccepts(text: string): boolean {
  const problems = new Problems('schema');
  try {
    readYaml(text, MACHINE_SHAPE, problems);
  } catch (error) {
    assert.ok(error instanceof InputError, String(error));
    return false;
  }
  return !problems.any;
}

const SCALARS = [
  ...[
    '00:01.0',
    '0000:0a:1f.7',
    '01',
    '0000:10',
    '8086:1533',
    '0x1000',
    '4K',
    '00.1',
    '020000',
    '10ca',
    'x',
    '',
  ],
  ...['none', 'on', 'all', 'intel', 'pc', 'msi', 'SV', 'root-port', 'true', '8086:*', 'EBUSY'],
];

/** Values near what a shape wants: mostly right, sometimes not. */
function valuesFor(shape: Shape): fc.Arbitrary<unknown> {
  const scalar = fc.constantFrom(...SCALARS);
  const wrong = fc.oneof(scalar, fc.constant([]), fc.constant({}), fc.constant(true));
  return fc.oneof({ weight: 12, arbitrary: rightFor(shape) }, { weight: 1, arbitrary: wrong });
}

function rightFor(shape: Shape): fc.Arbitrary<unknown> {
  switch (shape.kind) {
    case 'text': {
      const fitting = SCALARS.filter((one) => one !== '' && (shape.pattern?.test(one) ?? true));
      return fc.constantFrom(...(fitting.length > 0 ? fitting : SCALARS));
    }
    case 'word':
      return fc.constantFrom(...shape.words);
    case 'number':
      return fc.integer({ min: Math.max(0, shape.min - 1), max: Math.min(shape.max + 1, 70000) });
    case 'flag':
      return fc.boolean();
    case 'list':
      return fc.array(valuesFor(shape.of), { maxLength: 2 });
    case 'map': {
      const fields = Object.entries(shape.fields).map(
        ([name, field]) => [name, valuesFor(field)] as const,
      );
      const some = fc.subarray(
        fields.map(([name]) => name),
        { maxLength: Math.min(4, fields.length) },
      );
      return some.chain((names) =>
        fc.record(
          Object.fromEntries(
            fields.filter(([name]) => names.includes(name) || shape.required.includes(name)),
          ),
        ),
      );
    }
    case 'either':
      return fc.oneof(...shape.options.map(rightFor));
  }
}

test('machine schema: the file in schema/ is what the declaration gives', () => {
  const file = readFileSync(join(root, 'schema', 'machine.schema.json'), 'utf8');
  assert.deepEqual(JSON.parse(file), JSON.parse(JSON.stringify(machineSchema())));
});

test('machine schema: built-in machines and what formatMachine writes are accepted', () => {
  for (const [name, text] of Object.entries(BUILTIN_MACHINES)) {
    assert.ok(accepts(machineSchema(), parse(text)), name);
    const written = formatMachine(readMachineFile(text, name).machine);
    assert.ok(accepts(machineSchema(), parse(written)), `${name}, written`);
  }
});

test('machine schema: it accepts exactly what the loader accepts in form', () => {
  const schema = machineSchema() as Schema;
  let accepted = 0;
  let refused = 0;
  fc.assert(
    fc.property(rightFor(MACHINE_SHAPE), (document) => {
      const loader = loaderAccepts(JSON.stringify(document));
      assert.equal(accepts(schema, document), loader);
      if (loader) accepted += 1;
      else refused += 1;
    }),
    { numRuns: 1500 },
  );
  assert.ok(
    accepted > 100 && refused > 100,
    `${accepted} accepted, ${refused} refused: both sides must be tried`,
  );
});
