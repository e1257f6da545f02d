/**
 * Explores a world state by state, breadth first, so that the first broken invariant has the shortest story.
 *
 * States are packed rows in one growing array, in the order in which they were found; a hash table over them says what was seen.
 * Expanding a state is independent of all others, so that several threads may share it (cli/commands/check.ts): an
 * {@link Expander} turns states into their successors, a {@link Frontier} keeps them.
 *
 * A refusal must leave no trace: where an action throws, the state is packed again and compared.
 */
import { Errno } from '../base/errno.ts';
import { actionsOf, type Action } from './actions.ts';
import { brokenInvariant } from './invariants.ts';
import type { World } from './world.ts';

/** What one batch of states led to. */
export type Expansion = {
  /** packed successors, one after the other */
  readonly successors: Uint32Array;
  /** for each successor, its origin's place in the batch */
  readonly origins: Uint32Array;
  /** the first state of the batch in which something is wrong */
  readonly failure: { readonly at: number; readonly what: string } | undefined;
  /** steps that were tried, refusals included */
  readonly steps: number;
};

export class Expander {
  readonly world: World;
  readonly actions: readonly Action[];
  #successors = new Uint32Array(1 << 12);
  #origins = new Uint32Array(1 << 10);

  constructor(world: World) {
    this.world = world;
    this.actions = actionsOf(world);
  }

  /** @param states packed, one after the other */
  expand(states: Uint32Array): Expansion {
    const { world } = this;
    const { words } = world.packing;
    const count = states.length / words;
    let found = 0;
    let steps = 0;
    for (let at = 0; at < count; at++) {
      world.load(states, at * words);
      const broken = brokenInvariant(world);
      if (broken !== undefined) {
        const what = `${broken.what} (invariant ${broken.invariant.name})`;
        return this.#result(found, { at, what }, steps);
      }
      for (const action of this.actions) {
        if (!action.can(world)) continue;
        steps++;
        const what = this.#step(action);
        if (what !== undefined) return this.#result(found, { at, what }, steps);
        if (this.#next !== undefined) {
          this.#push(found++, this.#next, at);
          world.reload();
        }
      }
    }
    return this.#result(found, undefined, steps);
  }

  #next: Uint32Array | undefined;

  /** One step from the loaded state. @returns what is wrong; `#next` is the successor, undefined after a refusal */
  #step(action: Action): string | undefined {
    const { world } = this;
    try {
      action.run(world);
      this.#next = world.save();
      return undefined;
    } catch (error) {
      this.#next = undefined;
      if (!(error instanceof Errno)) return `${action.text}: ${String(error)}`;
      return world.isAsLoaded()
        ? undefined
        : `${action.text}: refused (${error.message}), and yet the state has changed`;
    }
  }

  #push(index: number, state: Uint32Array, origin: number): void {
    const { length } = state;
    if ((index + 1) * length > this.#successors.length) {
      this.#successors = grown(this.#successors);
    }
    if (index >= this.#origins.length) this.#origins = grown(this.#origins);
    this.#successors.set(state, index * length);
    this.#origins[index] = origin;
  }

  #result(found: number, failure: Expansion['failure'], steps: number): Expansion {
    return {
      successors: this.#successors.slice(0, found * this.world.packing.words),
      origins: this.#origins.slice(0, found),
      failure,
      steps,
    };
  }
}

function grown(array: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const bigger = new Uint32Array(array.length * 2);
  bigger.set(array);
  return bigger;
}

const START_CAPACITY = 1 << 14;
const NONE = 0xffff_ffff;

/** All states that were found, which of them are still to be expanded, and where each came from. */
export class Frontier {
  readonly words: number;
  #states: Uint32Array<ArrayBuffer>;
  #parents: Uint32Array<ArrayBuffer>;
  #table: Uint32Array<ArrayBuffer>;
  #count = 0;
  #taken = 0;

  constructor(words: number) {
    this.words = words;
    this.#states = new Uint32Array(START_CAPACITY * words);
    this.#parents = new Uint32Array(START_CAPACITY);
    this.#table = new Uint32Array(START_CAPACITY * 2).fill(NONE);
  }

  /** States found so far. */
  get count(): number {
    return this.#count;
  }

  /** States handed out so far. */
  get taken(): number {
    return this.#taken;
  }

  /** In bytes: the arrays, which are nearly all that an exploration keeps. */
  get memory(): number {
    return this.#states.byteLength + this.#parents.byteLength + this.#table.byteLength;
  }

  /** @param offset of the state in `words`; @param parent its origin's number */
  add(words: Uint32Array, offset: number, parent: number): void {
    const mask = this.#table.length - 1;
    let place = this.#hash(words, offset) & mask;
    for (;;) {
      const found = this.#table[place] ?? 0;
      if (found === NONE) break;
      if (this.#equals(found, words, offset)) return;
      place = (place + 1) & mask;
    }
    const index = this.#count++;
    if (index >= this.#parents.length) this.#grow();
    for (let i = 0; i < this.words; i++) {
      this.#states[index * this.words + i] = words[offset + i] ?? 0;
    }
    this.#parents[index] = parent;
    this.#table[place] = index;
    if (this.#count * 2 > this.#table.length) this.#rehash();
  }

  #equals(index: number, words: Uint32Array, offset: number): boolean {
    const start = index * this.words;
    for (let i = 0; i < this.words; i++) {
      if (this.#states[start + i] !== words[offset + i]) return false;
    }
    return true;
  }

  // Multiply and fold, word by word (the constants of murmur3's finalizer).
  #hash(words: Uint32Array, offset: number): number {
    let hash = 0x9e37_79b9;
    for (let i = 0; i < this.words; i++) {
      hash ^= words[offset + i] ?? 0;
      hash = Math.imul(hash ^ (hash >>> 16), 0x85eb_ca6b);
      hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2_ae35);
      hash ^= hash >>> 16;
    }
    return hash >>> 0;
  }

  #grow(): void {
    this.#states = grown(this.#states);
    this.#parents = grown(this.#parents);
  }

  #rehash(): void {
    this.#table = new Uint32Array(this.#table.length * 2).fill(NONE);
    const mask = this.#table.length - 1;
    for (let index = 0; index < this.#count; index++) {
      let place = this.#hash(this.#states, index * this.words) & mask;
      while (this.#table[place] !== NONE) place = (place + 1) & mask;
      this.#table[place] = index;
    }
  }

  /** The next states to expand, oldest first, with the number of the first; undefined when all were handed out. */
  take(
    most: number,
  ): { readonly first: number; readonly states: Uint32Array<ArrayBuffer> } | undefined {
    if (this.#taken === this.#count) return undefined;
    const first = this.#taken;
    this.#taken = Math.min(this.#count, first + most);
    return { first, states: this.#states.slice(first * this.words, this.#taken * this.words) };
  }

  /** The states that led to one, the beginning first. */
  path(index: number): Uint32Array[] {
    const path: Uint32Array[] = [];
    for (let at = index; ; at = this.#parents[at] ?? 0) {
      path.unshift(this.#states.slice(at * this.words, (at + 1) * this.words));
      if (at === 0) return path;
    }
  }
}
