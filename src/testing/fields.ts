/**
 * Which fields of a state are not listed for rows: the test behind "a field that is added to the engine's state is added to the
 * explored state".
 */
import { Fields } from '../base/transfer.ts';

/**
 * Saves a state, loads a row in which every number is another one, and sees what changed.
 * @param state with every field as after its construction
 * @param list names its fields
 * @param place fills those that are rebuilt instead
 * @returns its fields that did not change, sorted
 */
export function fieldsLeft<S extends object>(
  state: S,
  list: (fields: Fields<S>) => void,
  place?: () => void,
): string[] {
  const before = new Map(Object.entries(state).map(([name, value]) => [name, pictureOf(value)]));
  const fields = new Fields<S>(0);
  list(fields);
  const codec = fields.compile();
  const row = new Uint8Array(fields.cells.length);
  codec.save(state, row);
  place?.();
  codec.load(
    state,
    row.map((value) => (value === 1 ? 0 : 1)),
  );
  return Object.entries(state)
    .filter(([name, value]) => before.get(name) === pictureOf(value))
    .map(([name]) => name)
    .sort();
}

// Collections change inside, everything else by being another thing.
function pictureOf(value: unknown): unknown {
  if (Array.isArray(value)) return `${value.length} entries`;
  if (value instanceof Map || value instanceof Set) return `${value.size} entries`;
  return value;
}
