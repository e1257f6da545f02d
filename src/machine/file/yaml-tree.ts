/** All of YAML, by the yaml package: what people write. What uiommu wrote itself is read faster by json-tree.ts, to the same tree. */
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
import { YamlError, type Place, type Tree } from './tree.ts';

// More than any machine needs; aliases of aliases would make a small file endless.
const MOST_NODES = 5_000_000;
const MOST_DEPTH = 50;

class Converter {
  readonly #document: Document;
  readonly #lines: LineCounter;
  #nodes = 0;

  constructor(document: Document, lines: LineCounter) {
    this.#document = document;
    this.#lines = lines;
  }

  #place(node: Node | null): Place {
    const { line, col } = this.#lines.linePos(node?.range?.[0] ?? 0);
    return { line, column: col };
  }

  convert(node: Node | null, depth: number): Tree {
    const at = this.#place(node);
    this.#nodes += 1;
    if (this.#nodes > MOST_NODES || depth > MOST_DEPTH) {
      throw new YamlError(at, 'this is nested too deep, or its anchors never end; expected a tree');
    }
    if (isAlias(node)) {
      const target = node.resolve(this.#document);
      if (target === undefined) throw new YamlError(at, `there is no anchor &${node.source}`);
      return { ...this.convert(target, depth + 1), at };
    }
    if (isSeq(node)) {
      const items = node.items.map((item) => this.convert(item as Node | null, depth + 1));
      return { kind: 'list', at, items };
    }
    if (isMap(node)) {
      const pairs = (node.items as Pair<Node, Node | null>[]).map(({ key, value }) => ({
        name: scalarText(key),
        at: this.#place(key),
        value:
          value === null
            ? ({ kind: 'scalar', at: this.#place(key), text: '', quoted: false } as const)
            : this.convert(value, depth + 1),
      }));
      return { kind: 'map', at, pairs };
    }
    const quoted = isScalar(node) && node.type !== 'PLAIN' && node.value !== null;
    return { kind: 'scalar', at, text: scalarText(node), quoted };
  }
}

/** Quoted scalars by their value, plain ones as they are written. */
function scalarText(node: Node | null): string {
  if (!isScalar(node) || node.value === null) return '';
  return typeof node.value === 'string' ? node.value : (node.source ?? '');
}

/**
 * @throws YamlError at the first thing that is not YAML
 * @returns undefined for an empty document
 */
export function parseYaml(text: string): Tree | undefined {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const [error] = document.errors;
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    const message =
      error.code === 'DUPLICATE_KEY'
        ? 'this key is here twice; expected it once'
        : `not YAML: ${error.message}`;
    throw new YamlError({ line, column: col }, message);
  }
  return document.contents === null
    ? undefined
    : new Converter(document, lines).convert(document.contents, 0);
}
