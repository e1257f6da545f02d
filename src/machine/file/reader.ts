/**
 * Reads YAML along a shape. Every value keeps its place in the text, so that whoever finds it wrong later can say where; all
 * that is wrong with the form is collected and told at once, with what was expected and the nearest right word.
 *
 * Scalars are taken as they are written: `10` is the two characters, which a bus number reads as 0x10.
 */
import { InputError } from '../../base/input-error.ts';
import { nearestWord } from '../../base/nearest.ts';
import { parseJson } from './json-tree.ts';
import { expectation, type MapShape, type Shape } from './shape.ts';
import { YamlError, type Place, type Tree, type TreePair } from './tree.ts';
import { parseYaml } from './yaml-tree.ts';

export type { Place };

/** A value and where it stands. */
export type Value =
  | { readonly kind: 'scalar'; readonly at: Place; readonly text: string }
  | { readonly kind: 'list'; readonly at: Place; readonly items: readonly Value[] }
  | { readonly kind: 'map'; readonly at: Place; readonly fields: ReadonlyMap<string, Field> };

/** A key of a map with its value. */
export type Field = { readonly at: Place; readonly value: Value };

export type MapValue = Extract<Value, { kind: 'map' }>;

type TreeScalar = Extract<Tree, { kind: 'scalar' }>;

const MOST_PROBLEMS = 20;
/** Collects what is wrong with one file. */
export class Problems {
  readonly name: string;
  readonly #lines: { readonly at: Place; readonly message: string }[] = [];

  constructor(name: string) {
    this.name = name;
  }

  get any(): boolean {
    return this.#lines.length > 0;
  }

  add(at: Place, message: string): void {
    this.#lines.push({ at, message });
  }

  /** Throws InputError with everything that was found, in the order of the text. */
  throwIfAny(): void {
    if (!this.any) return;
    const sorted = [...this.#lines].sort(
      (a, b) => a.at.line - b.at.line || a.at.column - b.at.column,
    );
    const shown = sorted
      .slice(0, MOST_PROBLEMS)
      .map(({ at, message }) => `${this.name}:${at.line}:${at.column}: ${message}`);
    const rest = sorted.length - shown.length;
    if (rest > 0) shown.push(`${this.name}: and ${rest} more`);
    throw new InputError(shown.join('\n'));
  }
}

class Reader {
  readonly #problems: Problems;

  constructor(problems: Problems) {
    this.#problems = problems;
  }

  read(tree: Tree, shape: Shape): Value | undefined {
    const { at } = tree;
    if (shape.kind === 'either') {
      const option = shape.options.find((candidate) => fits(tree, candidate));
      if (option !== undefined) return this.read(tree, option);
    }
    if (shape.kind === 'list' && tree.kind === 'list') {
      const items = tree.items
        .map((item) => this.read(item, shape.of))
        .filter((item) => item !== undefined);
      return { kind: 'list', at, items };
    }
    if (shape.kind === 'map' && tree.kind === 'map') return this.#readMap(tree.pairs, shape, at);
    if (tree.kind === 'scalar') return this.#readScalar(tree, shape);
    this.#problems.add(at, `this is a ${tree.kind}; expected ${expectation(shape)}`);
    return undefined;
  }

  #readScalar(scalar: TreeScalar, shape: Shape): Value | undefined {
    const { text: written, at } = scalar;
    if (shape.kind === 'list' || shape.kind === 'map' || shape.kind === 'either') {
      const found = written === '' ? 'nothing here' : `this is "${shorten(written)}"`;
      this.#problems.add(at, `${found}; expected ${expectation(shape)}`);
      return undefined;
    }
    if (scalarFits(scalar, shape)) return { kind: 'scalar', at, text: written };
    const close = shape.kind === 'word' ? nearestWord(written, shape.words) : undefined;
    const hint = close === undefined ? '' : `; did you mean ${close}?`;
    this.#problems.add(at, `"${shorten(written)}" is not ${expectation(shape)}${hint}`);
    return undefined;
  }

  #readMap(pairs: readonly TreePair[], shape: MapShape, at: Place): Value {
    const fields = new Map<string, Field>();
    for (const { name, at: keyAt, value } of pairs) {
      const field = Object.hasOwn(shape.fields, name) ? shape.fields[name] : undefined;
      if (field === undefined) {
        this.#unknownKey(name, shape, keyAt);
        continue;
      }
      const read = this.read(value, field);
      if (read !== undefined) fields.set(name, { at: keyAt, value: read });
    }
    for (const name of shape.required) {
      if (!pairs.some((pair) => pair.name === name)) {
        this.#problems.add(at, `"${name}" is missing; expected ${about(shape, name)}`);
      }
    }
    return { kind: 'map', at, fields };
  }

  #unknownKey(name: string, shape: MapShape, at: Place): void {
    const known = Object.keys(shape.fields);
    const close = nearestWord(name, known);
    const hint = close === undefined ? '' : `; did you mean "${close}"?`;
    this.#problems.add(at, `unknown key "${shorten(name)}"${hint} (known: ${known.join(', ')})`);
  }
}

function about(shape: MapShape, name: string): string {
  const field = shape.fields[name];
  return field === undefined ? name : expectation(field);
}

function shorten(written: string): string {
  return written.length > 40 ? `${written.slice(0, 37)}…` : written;
}

function fits(tree: Tree, shape: Shape): boolean {
  if (shape.kind === 'list' || shape.kind === 'map') return tree.kind === shape.kind;
  return tree.kind === 'scalar' && scalarFits(tree, shape);
}

function numberFits(written: string, { min, max }: { min: number; max: number }): boolean {
  if (!/^(?:\d+|0x[0-9a-f]+)$/i.test(written)) return false;
  return Number(written) >= min && Number(written) <= max;
}

function scalarFits({ text: written, quoted }: TreeScalar, shape: Shape): boolean {
  switch (shape.kind) {
    case 'text':
      return written !== '' && (shape.pattern?.test(written) ?? true);
    case 'word':
      return shape.words.includes(written);
    case 'flag':
      return !quoted && (written === 'true' || written === 'false');
    case 'number':
      return !quoted && numberFits(written, shape);
    case 'list':
    case 'map':
    case 'either':
      return false;
  }
}

/**
 * Parses `text` and checks it against `shape`.
 * @param places what is wrong will be said with its line and column; without, all is said to stand at the start of a file
 *   that uiommu wrote, which is read much faster
 * @throws InputError where the text is not YAML at all; other problems are left in `problems`
 */
export function readYaml(
  text: string,
  shape: MapShape,
  problems: Problems,
  places = true,
): MapValue {
  const tree = (places ? undefined : parseJson(text)) ?? parseTree(text, problems);
  const start = { line: 1, column: 1 };
  const value = tree === undefined ? undefined : new Reader(problems).read(tree, shape);
  if (value?.kind === 'map') return value;
  if (tree === undefined) problems.add(start, `empty; expected ${expectation(shape)}`);
  return { kind: 'map', at: start, fields: new Map() };
}

function parseTree(text: string, problems: Problems): Tree | undefined {
  try {
    return parseYaml(text);
  } catch (error) {
    if (!(error instanceof YamlError)) throw error;
    problems.add(error.at, error.message);
    problems.throwIfAny();
    return undefined;
  }
}

// What readers of checked values need.

export function fieldOf(value: MapValue, name: string): Value | undefined {
  return value.fields.get(name)?.value;
}

export function textOf(value: MapValue, name: string): string | undefined {
  const field = fieldOf(value, name);
  return field?.kind === 'scalar' ? field.text : undefined;
}

export function numberOf(value: MapValue, name: string): number | undefined {
  const written = textOf(value, name);
  return written === undefined ? undefined : Number(written);
}

export function flagOf(value: MapValue, name: string): boolean | undefined {
  const written = textOf(value, name);
  return written === undefined ? undefined : written === 'true';
}

export function itemsOf(value: MapValue, name: string): readonly Value[] {
  const field = fieldOf(value, name);
  return field?.kind === 'list' ? field.items : [];
}

export function mapsOf(value: MapValue, name: string): MapValue[] {
  return itemsOf(value, name).filter((item) => item.kind === 'map');
}

export function mapOf(value: MapValue, name: string): MapValue | undefined {
  const field = fieldOf(value, name);
  return field?.kind === 'map' ? field : undefined;
}

/** Texts of a list of scalars, with their places. */
export function textsOf(value: MapValue, name: string): { text: string; at: Place }[] {
  return itemsOf(value, name)
    .filter((item) => item.kind === 'scalar')
    .map(({ text: written, at }) => ({ text: written, at }));
}
