/**
 * Machine files that were written by uiommu: JSON, one line for each device and each group, so that a difference between two
 * captures is a difference of lines. JSON is YAML, so every reader of machine files takes it; this one takes what
 * {@link formatJson} would write again to the letter, and parses it twenty times faster.
 *
 * What it does not do: places. Whoever finds something wrong reads the text again as YAML, which knows lines and columns.
 * Invariant: for a text that is taken, the tree equals that of the YAML reader but for places. Texts that only resemble
 * (edited by hand, keys given twice) are left to YAML, where a key that is given twice is an error.
 */
import type { Tree } from './tree.ts';

/** What a machine file is made of: texts, numbers, flags, lists and maps of these; undefined values are left out. */
export type JsonMap = Readonly<Record<string, unknown>>;

const START = { line: 1, column: 1 };

/** One line for each key, and for each element of a list at the top. Ends with a newline. */
export function formatJson(file: JsonMap): string {
  const entries = Object.entries(file).filter(([, value]) => value !== undefined);
  const lines = entries.map(([key, value]) => `${JSON.stringify(key)}: ${listLines(value)}`);
  return `{\n${lines.join(',\n')}\n}\n`;
}

function listLines(value: unknown): string {
  if (!Array.isArray(value) || value.length === 0) return JSON.stringify(value);
  return `[\n${value.map((item) => JSON.stringify(item)).join(',\n')}\n]`;
}

/** @returns undefined for a text that {@link formatJson} would not have written */
export function parseJson(text: string): Tree | undefined {
  if (!text.startsWith('{\n')) return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return isMap(value) && formatJson(value) === text ? treeOf(value) : undefined;
  } catch (error) {
    // No JSON, or nested deeper than the stack.
    if (error instanceof SyntaxError || error instanceof RangeError) return undefined;
    throw error;
  }
}

function isMap(value: unknown): value is JsonMap {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function treeOf(value: unknown): Tree {
  if (Array.isArray(value)) {
    return { kind: 'list', at: START, items: value.map(treeOf) };
  }
  if (isMap(value)) {
    const pairs = Object.entries(value).map(([name, item]) => ({
      name,
      at: START,
      value: treeOf(item),
    }));
    return { kind: 'map', at: START, pairs };
  }
  if (typeof value === 'string') return { kind: 'scalar', at: START, text: value, quoted: true };
  const text = value === null ? '' : JSON.stringify(value);
  return { kind: 'scalar', at: START, text, quoted: false };
}
