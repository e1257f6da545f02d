/**
 * Moving a state to and from a row of small numbers. Each kind of state has one function that names its mutable fields, each
 * with what it can be; layout, saving and loading are made from that one list, so that the three cannot differ, and a test
 * finds a field that is not in it.
 *
 * `uiommu check` keeps millions of states as such rows, and saves and loads one in each step. Interpreting the list field by
 * field took half of its time, so saving and loading are made as JavaScript text, once for each state of a world, as struct.ts
 * makes its codecs.
 */

/** Things that a row can name, by their place in a list; 0 stands for none. */
export class Known<T> {
  readonly bits: number;
  readonly things: readonly T[];
  /** what kind of name the number is, for worlds whose users are interchangeable */
  readonly holds: 'user' | 'domain' | undefined;
  /** The last thing stands for all that are not in the list. */
  readonly others: boolean;

  /**
   * @param options.others the last thing stands for all that are not in the list, such as those that an action made anew;
   *   otherwise an unknown thing is a bug of whoever laid the world out
   */
  constructor(
    things: readonly T[],
    options: { readonly holds?: 'user' | 'domain'; readonly others?: boolean } = {},
  ) {
    this.things = things;
    this.bits = 32 - Math.clz32(things.length);
    this.holds = options.holds;
    this.others = options.others ?? false;
  }
}

/** A thing of which there is one, whichever object stands for it. */
export function only<T>(thing: T): Known<T> {
  return new Known([thing], { others: true });
}

/** One number of a row. */
export type FieldCell = {
  readonly name: string;
  readonly bits: number;
  readonly holds: 'user' | 'domain' | undefined;
};

/** Saves and loads the fields of a state. */
export type StateCodec<S> = {
  save(state: S, row: Uint8Array): void;
  load(state: S, row: Uint8Array): void;
};

/** How the entries of a map stand for things. */
export type EntryView<E, T> = { read(entry: E): T; make(thing: T): E };

type KeyOf<S, V> = { [K in keyof S]-?: S[K] extends V ? K : never }[keyof S] & string;

type Values<S, K extends keyof S> = Exclude<S[K], undefined>;

/** The mutable fields of a kind of state, in the order of the row. */
export class Fields<S> {
  readonly cells: FieldCell[] = [];
  readonly #start: number;
  readonly #save: string[] = [];
  readonly #load: string[] = [];
  /** what the text refers to, as c0, c1, … */
  readonly #constants: unknown[] = [];

  /** @param start place of the first field in rows */
  constructor(start: number) {
    this.#start = start;
  }

  flag(key: KeyOf<S, boolean>): void {
    const cell = this.#cell(key, 1);
    this.#save.push(`${cell} = state.${key} ? 1 : 0;`);
    this.#load.push(`state.${key} = ${cell} === 1;`);
  }

  /** A whole number from 0, below 2 ** `bits`. */
  count(key: KeyOf<S, number>, bits: number): void {
    const cell = this.#cell(key, bits);
    const impossible = this.#constant(impossibleCount);
    this.#save.push(
      `if (state.${key} >>> 0 >= ${2 ** bits}) ${impossible}('${key}', state.${key});`,
      `${cell} = state.${key};`,
    );
    this.#load.push(`state.${key} = ${cell};`);
  }

  /** One of some known things, or none. */
  one<K extends keyof S & string>(key: K, among: Known<Values<S, K>>): void {
    if (among.bits === 0) return;
    const cell = this.#cell(key, among.bits, among.holds);
    this.#save.push(`{ const thing = state.${key}; ${cell} = ${this.#numberOf(key, among)}; }`);
    this.#load.push(`state.${key} = ${this.#table(among.things)}[${cell}];`);
  }

  /** A thing that is there while another field is. */
  follows<K extends keyof S & string>(key: K, other: keyof S & string, thing: S[K]): void {
    const constant = this.#constant(thing);
    this.#load.push(`state.${key} = state.${other} === undefined ? undefined : ${constant};`);
  }

  /** Whether a set has a member. */
  member(key: KeyOf<S, Set<number>>, member: number): void {
    const cell = this.#cell(`${key} ${member}`, 1);
    this.#save.push(`${cell} = state.${key}.has(${member}) ? 1 : 0;`);
    this.#load.push(
      `if (${cell} === 1) state.${key}.add(${member}); else state.${key}.delete(${member});`,
    );
  }

  /** What a map has under a number. */
  entry<T, E = T>(
    key: KeyOf<S, Map<number, E>>,
    index: number,
    among: Known<T>,
    view?: EntryView<E, T>,
  ): void {
    const cell = this.#cell(`${key} ${index}`, among.bits, among.holds);
    const read = view && this.#constant(view);
    const thing =
      read === undefined ? 'entry' : `entry === undefined ? undefined : ${read}.read(entry)`;
    this.#save.push(
      `{ const entry = state.${key}.get(${index}); const thing = ${thing};`,
      `${cell} = ${this.#numberOf(key, among)}; }`,
    );
    const entries = view === undefined ? among.things : among.things.map((each) => view.make(each));
    this.#load.push(
      `if (${cell} !== 0) state.${key}.set(${index}, ${this.#table(entries)}[${cell}]);`,
      `else if (state.${key}.size > 0) state.${key}.delete(${index});`,
    );
  }

  compile(): StateCodec<S> {
    const names = this.#constants.map((_, i) => `c${i}`);
    const body = `'use strict'; return {
      save: (state, row) => { ${this.#save.join('\n')} },
      load: (state, row) => { ${this.#load.join('\n')} },
    };`;
    // The text is made of this repository's own declarations, never of input.
    // eslint-disable-next-line @typescript-eslint/no-implied-eval
    const make = new Function(...names, body) as (...constants: unknown[]) => StateCodec<S>;
    return make(...this.#constants);
  }

  #cell(name: string, bits: number, holds?: 'user' | 'domain'): string {
    const place = this.#start + this.cells.length;
    this.cells.push({ name, bits, holds });
    return `row[${place}]`;
  }

  #constant(value: unknown): string {
    const known = this.#constants.indexOf(value);
    return `c${known >= 0 ? known : this.#constants.push(value) - 1}`;
  }

  #table(things: readonly unknown[]): string {
    return this.#constant([undefined, ...things]);
  }

  /** The number of `thing`, as text. */
  #numberOf(key: string, { things, others }: Known<unknown>): string {
    const named = others ? things.slice(0, -1) : things;
    const tests = named.map((each, i) => `thing === ${this.#constant(each)} ? ${i + 1} : `);
    const rest = others ? things.length : `${this.#constant(unknownThing)}('${key}', thing)`;
    return `thing === undefined ? 0 : ${tests.join('')}${rest}`;
  }
}

function impossibleCount(key: string, value: number): never {
  throw new Error(`${key} is ${value}, which no state can have`);
}

function unknownThing(key: string, thing: unknown): never {
  throw new Error(`${key} is something unknown: ${String(thing)}`);
}
