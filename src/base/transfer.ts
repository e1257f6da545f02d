/**
 * Moving a state to and from a row of small numbers. Each kind of state has one function that hands every mutable field to a
 * {@link Transfer} and stores what comes back; the same function lays the row out, saves and loads, so that the three
 * cannot differ, and a test finds a field that it forgets.
 *
 * `uiommu check` keeps millions of states as such rows.
 */

/** What moves fields. The order of calls is the order of the row: it must be the same for every state of a world. */
export type Transfer = {
  /** The fields come from the row; otherwise each call returns what it was given. */
  readonly loads: boolean;
  flag(name: string, value: boolean): boolean;
  /** A whole number from 0, below 2 ** `bits`. */
  count(name: string, value: number, bits: number): number;
  /** One of some known things, or none. */
  one<T>(name: string, value: T | undefined, among: Known<T>): T | undefined;
};

/** Things that a row can name, by their place in a list; 0 stands for none. */
export class Known<T> {
  readonly bits: number;
  /** what kind of name the number is, for worlds whose users are interchangeable */
  readonly holds: 'user' | 'domain' | undefined;
  readonly #things: readonly T[];
  readonly #others: boolean;

  /**
   * @param options.others the last thing stands for all that are not in the list, such as those that an action made anew;
   *   otherwise an unknown thing is a bug of whoever laid the world out
   */
  constructor(
    things: readonly T[],
    options: { readonly holds?: 'user' | 'domain'; readonly others?: boolean } = {},
  ) {
    this.#things = things;
    this.bits = 32 - Math.clz32(things.length);
    this.holds = options.holds;
    this.#others = options.others ?? false;
  }

  numberOf(thing: T): number {
    const things = this.#things;
    const { length } = things;
    for (let i = 0; i < length; i++) if (things[i] === thing) return i + 1;
    if (this.#others) return length;
    throw new Error(`a state names something unknown: ${String(thing)}`);
  }

  at(number: number): T | undefined {
    return this.#things[number - 1];
  }
}

/** A thing of which there is one, whichever object stands for it. */
export function only<T>(thing: T): Known<T> {
  return new Known([thing], { others: true });
}
