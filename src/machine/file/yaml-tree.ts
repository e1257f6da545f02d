/** All of YAML, by the yaml package: what people write. What uiommu wrote itself is read faster by json-tree.ts, to the same tree. */
import {
  LineCounter,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  parseDocument,
  type Alias,
  type Document,
  type Node,
  type Pair,
} from 'yaml';
import { YamlError, type Place, type Tree } from './tree.ts';

const MOST_DEPTH = 50;
// More than any machine needs; aliases of aliases would make a small file endless.
const MOST_REPEATED = 500_000;

class Converter {
  readonly #lines: LineCounter;
  readonly #anchors = new Map<string, Node>();
  /** nodes that are there because of an alias */
  #repeated = 0;
  #aliases = 0;

  constructor(lines: LineCounter) {
    this.#lines = lines;
  }

  #place(node: Node | null): Place {
    const { line, col } = this.#lines.linePos(node?.range?.[0] ?? 0);
    return { line, column: col };
  }

  convert(node: Node | null, depth: number): Tree {
    const at = this.#place(node);
    if (this.#aliases > 0) this.#repeated += 1;
    if (depth > MOST_DEPTH) throw new YamlError(at, `nested deeper than ${MOST_DEPTH} levels`);
    if (this.#repeated > MOST_REPEATED) {
      throw new YamlError(at, `its aliases stand for more than ${MOST_REPEATED} values`);
    }
    if (isAlias(node)) return { ...this.#repeat(node, depth), at };
    // An alias means the latest anchor before it.
    if (node?.anchor !== undefined) this.#anchors.set(node.anchor, node);
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

  #repeat(alias: Alias, depth: number): Tree {
    const target = this.#anchors.get(alias.source);
    if (target === undefined) {
      throw new YamlError(this.#place(alias), `there is no anchor &${alias.source}`);
    }
    this.#aliases += 1;
    const tree = this.convert(target, depth + 1);
    this.#aliases -= 1;
    return tree;
  }
}

/** Quoted scalars by their value, plain ones as they are written. */
function scalarText(node: Node | null): string {
  if (!isScalar(node) || node.value === null) return '';
  return typeof node.value === 'string' ? node.value : (node.source ?? '');
}

function complaint({ code, message }: { code: string; message: string }): string {
  if (code === 'DUPLICATE_KEY') return 'this key is here twice; expected it once';
  return message.startsWith('Maximum call stack') ? TOO_DEEP : `not YAML: ${message}`;
}

const TOO_DEEP = 'nested too deep to be read';

// The parser takes a level of the stack for each level of the text.
function parsed(text: string, lineCounter: LineCounter): Document.Parsed {
  try {
    return parseDocument(text, { lineCounter, prettyErrors: false });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new YamlError({ line: 1, column: 1 }, TOO_DEEP);
  }
}

/**
 * @throws YamlError at the first thing that is not YAML
 * @returns undefined for an empty document
 */
export function parseYaml(text: string): Tree | undefined {
  const lines = new LineCounter();
  const document = parsed(text, lines);
  const [error] = document.errors;
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    throw new YamlError({ line, column: col }, complaint(error));
  }
  return document.contents === null
    ? undefined
    : new Converter(lines).convert(document.contents, 0);
}
