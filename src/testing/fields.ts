/**
 * Which fields of a state its transfer forgets: the test behind "a field that is added to the engine's state is added to the
 * explored state".
 */
import type { Known, Transfer } from '../base/transfer.ts';

/** Hands back something else than what it is given, so that every field that is transferred changes. */
const CHANGING: Transfer = {
  loads: true,
  flag: (_name, value) => !value,
  count: (_name, value) => value + 1,
  one: <T>(_name: string, value: T | undefined, among: Known<T>) =>
    value === among.at(1) ? among.at(2) : among.at(1),
};

/**
 * @param state with every field as after its construction
 * @param transfer what moves it
 * @returns its fields that did not change, sorted
 */
export function fieldsLeft(state: object, transfer: (io: Transfer) => void): string[] {
  const before = new Map(Object.entries(state).map(([name, value]) => [name, pictureOf(value)]));
  transfer(CHANGING);
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
