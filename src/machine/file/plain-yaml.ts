/**
 * The regular part of YAML, read line by line: block maps and lists, plain and double-quoted scalars, literal blocks, short
 * flow maps and lists. That is what captures are written in, and a capture of ten thousand devices has to be read at once.
 *
 * Invariant: the answer is the tree that the yaml package gives, or none: whatever is not plainly regular is refused and
 * left to the whole parser (yaml-tree.ts), errors included.
 */
import type { Place, Tree, TreePair } from './tree.ts';

const KEY = /^([A-Za-z][\w-]*):(?: (.*))?$/;
// Nothing that YAML could give a meaning to: no quotes, brackets, anchors, tags, comments, "key: value".
const PLAIN = /^[\w./+][\w./:+@()-]*(?: [\w./+@()-][\w./:+@()-]*)*$/;
const NULLS = new Set(['null', 'Null', 'NULL']);
const NOT_REGULAR = Symbol('not regular');

type Line = { readonly number: number; readonly indent: number; readonly text: string };

function refuse(): never {
  // A control-flow exit of a few frames; never leaves this file.
  // eslint-disable-next-line @typescript-eslint/only-throw-error -- no stack is wanted
  throw NOT_REGULAR;
}

class PlainParser {
  readonly #lines: readonly string[];
  #at = 0;
  /** the current line; a list item's first key is looked at as a line of its own */
  #line: Line | undefined;

  constructor(text: string) {
    this.#lines = text.split('\n');
    this.#advance();
  }

  /** Goes to the next line that says something. */
  #advance(): void {
    while (this.#at < this.#lines.length) {
      const raw = this.#lines[this.#at] ?? '';
      this.#at += 1;
      const text = raw.trimStart();
      if (text === '' || text.startsWith('#')) continue;
      this.#line = { number: this.#at, indent: raw.length - text.length, text };
      return;
    }
    this.#line = undefined;
  }

  get #more(): boolean {
    return this.#line !== undefined;
  }

  parse(): Tree | undefined {
    if (this.#line === undefined) return undefined;
    if (this.#line.indent !== 0) refuse();
    const tree = this.#node(this.#line);
    if (this.#more) refuse();
    return tree;
  }

  #node(first: Line): Tree {
    return first.text.startsWith('- ') ? this.#list(first) : this.#map(first);
  }

  #list(first: Line): Tree {
    const items: Tree[] = [];
    for (
      let line = this.#line;
      line?.indent === first.indent && line.text.startsWith('- ');
      line = this.#line
    ) {
      const text = line.text.slice(2);
      if (text.startsWith(' ') || text.startsWith('- ')) refuse();
      if (KEY.test(text)) {
        const inner: Line = { number: line.number, indent: line.indent + 2, text };
        this.#line = inner;
        items.push(this.#map(inner));
      } else {
        items.push(inline(text, { line: line.number, column: line.indent + 3 }));
        this.#advance();
      }
    }
    return { kind: 'list', at: { line: first.number, column: first.indent + 1 }, items };
  }

  #map(first: Line): Tree {
    const pairs: TreePair[] = [];
    const seen = new Set<string>();
    for (let line = this.#line; line?.indent === first.indent; line = this.#line) {
      const match = KEY.exec(line.text);
      const name = match?.[1];
      if (name === undefined || seen.has(name) || NULLS.has(name)) return refuse();
      seen.add(name);
      const at = { line: line.number, column: line.indent + 1 };
      pairs.push({ name, at, value: this.#value(line, match?.[2] ?? '', name) });
    }
    if ((this.#line?.indent ?? -1) > first.indent) refuse();
    return { kind: 'map', at: { line: first.number, column: first.indent + 1 }, pairs };
  }

  #value(line: Line, written: string, name: string): Tree {
    const place = { line: line.number, column: line.indent + name.length + 3 };
    if (written === '|') return this.#literal(line, place);
    this.#advance();
    if (written !== '') return inline(written, place);
    const next = this.#line;
    if (next === undefined) return refuse();
    const isList = next.text.startsWith('- ');
    if (next.indent > line.indent || (isList && next.indent === line.indent))
      return this.#node(next);
    return refuse();
  }

  /** A literal block: everything that is indented as its first line. */
  #literal(key: Line, at: Place): Tree {
    const first = this.#lines[this.#at] ?? '';
    const indent = first.length - first.trimStart().length;
    if (first.trimStart() === '' || indent <= key.indent) refuse();
    const prefix = ' '.repeat(indent);
    const content: string[] = [];
    for (; this.#at < this.#lines.length; this.#at += 1) {
      const line = this.#lines[this.#at] ?? '';
      if (!line.startsWith(prefix)) {
        // Blank lines, and lines between the two indentations, have rules of their own.
        if (line.trimStart() === '' && this.#at < this.#lines.length - 1) refuse();
        if (line.length - line.trimStart().length > key.indent) refuse();
        break;
      }
      // Blank lines at the end of a block are cut, in the middle they stay.
      if (line.trimStart() === '') refuse();
      content.push(line.slice(indent));
    }
    this.#advance();
    return { kind: 'scalar', at, text: `${content.join('\n')}\n`, quoted: true };
  }
}

/** A value on one line. */
function inline(written: string, at: Place): Tree {
  if (written.startsWith('{ ') && written.endsWith(' }')) return flowMap(written.slice(2, -2), at);
  if (written === '[]') return { kind: 'list', at, items: [] };
  if (written.startsWith('[') && written.endsWith(']')) return flowList(written.slice(1, -1), at);
  return { kind: 'scalar', at, text: scalar(written), quoted: written.startsWith('"') };
}

function scalar(written: string): string {
  if (written.startsWith('"')) return quoted(written);
  const isPlain = PLAIN.test(written) && !/:(?: |$)/.test(written) && !NULLS.has(written);
  return isPlain ? written : refuse();
}

/** JSON strings are YAML strings, if they have no escapes that YAML reads otherwise. */
function quoted(written: string): string {
  if (!/^"(?:[^"\\]|\\["\\])*"$/.test(written)) refuse();
  return JSON.parse(written) as string;
}

function flowMap(inside: string, at: Place): Tree {
  const pairs: TreePair[] = [];
  let column = at.column + 2;
  for (const part of inside.split(', ')) {
    const match = /^([A-Za-z][\w-]*): ([\w./:+-]+)$/.exec(part);
    const [, name, text] = match ?? [];
    if (name === undefined || text === undefined || NULLS.has(name)) return refuse();
    if (pairs.some((pair) => pair.name === name)) return refuse();
    const value = {
      kind: 'scalar',
      at: { line: at.line, column: column + name.length + 2 },
      text: scalar(text),
      quoted: false,
    } as const;
    pairs.push({ name, at: { line: at.line, column }, value });
    column += part.length + 2;
  }
  return { kind: 'map', at, pairs };
}

function flowList(inside: string, at: Place): Tree {
  const items: Tree[] = [];
  let column = at.column + 1;
  for (const part of inside.split(', ')) {
    if (!/^(?:"[^",\\]*"|[\w./+][\w./:+-]*)$/.test(part) || part.endsWith(':')) return refuse();
    items.push({
      kind: 'scalar',
      at: { line: at.line, column },
      text: scalar(part),
      quoted: part.startsWith('"'),
    });
    column += part.length + 2;
  }
  return { kind: 'list', at, items };
}

/** @returns undefined where the text is not regular; an empty document is not */
export function parsePlainYaml(text: string): Tree | undefined {
  if (/[\t\r]/.test(text)) return undefined;
  try {
    return new PlainParser(text).parse();
  } catch (error) {
    if (error === NOT_REGULAR) return undefined;
    throw error;
  }
}
