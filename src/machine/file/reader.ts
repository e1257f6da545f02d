/**
 * Reads YAML along a shape. Every value keeps its place in the text, so that whoever finds it wrong later can say where; all
 * that is wrong with the form is collected and told at once, with what was expected and the nearest right word.
 *
 * Scalars are taken as they are written: `10` is the two characters, which a bus number reads as 0x10.
 */
import {
  LineCounter,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  parseDocument,
  type Document,
  type Node,
  type Pair,
} from 'yaml';
import { InputError } from '../../base/input-error.ts';
import { nearestWord } from '../../base/nearest.ts';
import { expectation, type MapShape, type Shape } from './shape.ts';

export type Place = { readonly line: number; readonly column: number };

/** A value and where it stands. */
export type Value =
  | { readonly kind: 'scalar'; readonly at: Place; readonly text: string }
  | { readonly kind: 'list'; readonly at: Place; readonly items: readonly Value[] }
  | { readonly kind: 'map'; readonly at: Place; readonly fields: ReadonlyMap<string, Field> };

/** A key of a map with its value. */
export type Field = { readonly at: Place; readonly value: Value };

export type MapValue = Extract<Value, { kind: 'map' }>;

const MOST_PROBLEMS = 20;
// More than any machine needs; aliases of aliases would make a small file endless.
const MOST_NODES = 5_000_000;
const MOST_DEPTH = 50;

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
  readonly #document: Document;
  readonly #lines: LineCounter;
  readonly #problems: Problems;
  #nodes = 0;

  constructor(document: Document, lines: LineCounter, problems: Problems) {
    this.#document = document;
    this.#lines = lines;
    this.#problems = problems;
  }

  #place(node: Node | null | undefined): Place {
    const { line, col } = this.#lines.linePos(node?.range?.[0] ?? 0);
    return { line, column: col };
  }

  /** Follows aliases; undefined (with a problem) where they lead in circles or never end. */
  #resolve(node: Node, depth: number): Node | undefined {
    this.#nodes += 1;
    if (this.#nodes > MOST_NODES || depth > MOST_DEPTH) {
      this.#problems.add(this.#place(node), 'the anchors of this file never end; expected a tree');
      return undefined;
    }
    if (!isAlias(node)) return node;
    const target = node.resolve(this.#document);
    if (target === undefined) {
      this.#problems.add(this.#place(node), `there is no anchor &${node.source}`);
      return undefined;
    }
    return this.#resolve(target, depth + 1);
  }

  read(node: Node | null | undefined, shape: Shape, depth = 0): Value | undefined {
    const resolved = node === null || node === undefined ? undefined : this.#resolve(node, depth);
    if (resolved === undefined) return undefined;
    const at = this.#place(node);
    if (shape.kind === 'either') {
      const option = shape.options.find((candidate) => fits(resolved, candidate));
      if (option !== undefined) return this.read(resolved, option, depth + 1);
    }
    if (shape.kind === 'list' && isSeq(resolved)) {
      const items = resolved.items
        .map((item) => this.read(item as Node, shape.of, depth + 1))
        .filter((item) => item !== undefined);
      return { kind: 'list', at, items };
    }
    if (shape.kind === 'map' && isMap(resolved)) {
      return this.#readMap(resolved.items as Pair<Node, Node | null>[], shape, { at, depth });
    }
    if (isScalar(resolved)) return this.#readScalar(resolved, shape, at);
    this.#problems.add(at, `this is ${nodeKind(resolved)}; expected ${expectation(shape)}`);
    return undefined;
  }

  #readScalar(node: Node, shape: Shape, at: Place): Value | undefined {
    if (!isScalar(node)) return undefined;
    const written = scalarText(node.value, node.source);
    if (shape.kind === 'list' || shape.kind === 'map' || shape.kind === 'either') {
      const found = written === '' ? 'nothing here' : `this is "${shorten(written)}"`;
      this.#problems.add(at, `${found}; expected ${expectation(shape)}`);
      return undefined;
    }
    if (scalarFits(written, shape)) return { kind: 'scalar', at, text: written };
    const close = shape.kind === 'word' ? nearestWord(written, shape.words) : undefined;
    const hint = close === undefined ? '' : `; did you mean ${close}?`;
    this.#problems.add(at, `"${shorten(written)}" is not ${expectation(shape)}${hint}`);
    return undefined;
  }

  #readMap(
    pairs: readonly Pair<Node, Node | null>[],
    shape: MapShape,
    { at, depth }: { at: Place; depth: number },
  ): Value {
    const fields = new Map<string, Field>();
    for (const { key, value } of pairs) {
      const name = isScalar(key) ? scalarText(key.value, key.source) : '';
      const keyAt = this.#place(key);
      const field = Object.hasOwn(shape.fields, name) ? shape.fields[name] : undefined;
      if (field === undefined) {
        this.#unknownKey(name, shape, keyAt);
        continue;
      }
      const read = this.read(value, field, depth + 1);
      if (read !== undefined) fields.set(name, { at: keyAt, value: read });
    }
    for (const name of shape.required) {
      if (!pairs.some(({ key }) => isScalar(key) && key.value === name)) {
        this.#problems.add(at, `"${name}" is missing; expected ${about(shape, name)}`);
      }
    }
    return { kind: 'map', at, fields };
  }

  #unknownKey(name: string, shape: MapShape, at: Place): void {
    const known = Object.keys(shape.fields);
    const close = nearestWord(name, known);
    const hint = close === undefined ? '' : `; did you mean "${close}"?`;
    this.#problems.add(at, `unknown key "${name}"${hint} (known: ${known.join(', ')})`);
  }
}

function about(shape: MapShape, name: string): string {
  const field = shape.fields[name];
  return field === undefined ? name : expectation(field);
}

function shorten(written: string): string {
  return written.length > 40 ? `${written.slice(0, 37)}…` : written;
}

function nodeKind(node: Node): string {
  if (isMap(node)) return 'a map';
  return isSeq(node) ? 'a list' : 'a scalar';
}

/** Quoted scalars by their value, plain ones as they are written. */
function scalarText(value: unknown, source: string | undefined): string {
  if (value === null) return '';
  return typeof value === 'string' ? value : (source ?? '');
}

function fits(node: Node, shape: Shape): boolean {
  if (shape.kind === 'list') return isSeq(node);
  if (shape.kind === 'map') return isMap(node);
  return isScalar(node) && scalarFits(scalarText(node.value, node.source), shape);
}

function scalarFits(written: string, shape: Shape): boolean {
  switch (shape.kind) {
    case 'text':
      return written !== '' && (shape.pattern?.test(written) ?? true);
    case 'word':
      return shape.words.includes(written);
    case 'flag':
      return written === 'true' || written === 'false';
    case 'number':
      return (
        /^(?:\d+|0x[0-9a-f]+)$/i.test(written) &&
        Number(written) >= shape.min &&
        Number(written) <= shape.max
      );
    case 'list':
    case 'map':
    case 'either':
      return false;
  }
}

/**
 * Parses `text` and checks it against `shape`.
 * @throws InputError where the text is not YAML at all; other problems are left in `problems`
 */
export function readYaml(text: string, shape: MapShape, problems: Problems): MapValue {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  for (const error of document.errors) {
    const { line, col } = lines.linePos(error.pos[0]);
    problems.add({ line, column: col }, yamlMessage(error.code, error.message));
  }
  problems.throwIfAny();
  const value = new Reader(document, lines, problems).read(document.contents, shape);
  if (value?.kind === 'map') return value;
  if (!problems.any) problems.add({ line: 1, column: 1 }, `empty; expected ${expectation(shape)}`);
  return { kind: 'map', at: { line: 1, column: 1 }, fields: new Map() };
}

function yamlMessage(code: string, message: string): string {
  return code === 'DUPLICATE_KEY'
    ? 'this key is here twice; expected it once'
    : `not YAML: ${message}`;
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
