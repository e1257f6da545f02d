/**
 * A state of the checker's world as a row of small numbers, and rows as 32-bit words.
 *
 * Symmetry: users differ by name alone, and so do devices of one group with equal properties. Of all rows that renaming
 * makes from one, the one whose words are smallest stands for all.
 */

/** What a row holds; `of` says which name its value carries, so that renaming can follow. */
export type CellSpec = {
  readonly name: string;
  readonly bits: number;
  readonly device?: number;
  readonly user?: number;
  readonly group?: number;
  /** `user`: 0 or a user's number plus 1; `domain`: see {@link domainOf}; otherwise a plain number */
  readonly holds?: 'user' | 'domain';
};

/** A number of a column; all columns are as long as there are things to count. */
export function at(column: Uint8Array, index: number): number {
  return column[index] ?? 0;
}

/** An entry that must be there. */
export function item<T>(list: readonly T[], index: number): T {
  const found = list[index];
  if (found === undefined) throw new Error(`there is no entry ${index}`);
  return found;
}

/** Domain numbers: none, the group's default, blocking, then three for each user (two IOASes, type 1). */
export const DOMAIN = { none: 0, default: 1, blocked: 2, firstUser: 3 } as const;
export const DOMAINS_PER_USER = 3;
export const TYPE1 = 2;

/** The number of a user's domain. @param which 0 and 1 its IOASes, {@link TYPE1} its container */
export function domainOf(user: number, which: number): number {
  return DOMAIN.firstUser + user * DOMAINS_PER_USER + which;
}

/** @returns the user that a domain belongs to, -1 for the core's own */
export function userOfDomain(domain: number): number {
  return domain < DOMAIN.firstUser
    ? -1
    : Math.floor((domain - DOMAIN.firstUser) / DOMAINS_PER_USER);
}

export type Renaming = { readonly users: readonly number[]; readonly devices: readonly number[] };

/** One renaming: for each word, what packs it from a row. The result is signed, as such it needs no memory. */
type Plan = readonly ((row: Uint8Array) => number)[];

export class Packing {
  /** in the order of the words: what renaming users changes comes first, so that most renamings are out after one word */
  readonly cells: readonly CellSpec[];
  /** by cell: its place in a row */
  readonly #place: Uint16Array;
  /** 32-bit words of a packed row */
  readonly words: number;
  readonly #word: Uint16Array;
  /** by word: the first cell that is not in it */
  readonly #ends: number[] = [];
  readonly #shift: Uint8Array;
  readonly #mask: Uint8Array;
  readonly #plans: readonly Plan[];
  readonly #best: Int32Array;
  readonly #trial: Int32Array;
  readonly #packed: Uint32Array;

  /** @param row the cells in the order of rows */
  constructor(row: readonly CellSpec[], renamings: readonly Renaming[]) {
    const order = row.map((_, i) => i).sort((a, b) => rank(row[a]) - rank(row[b]));
    const cells = order.flatMap((i) => row[i] ?? []);
    this.cells = cells;
    this.#place = Uint16Array.from(order);
    this.#word = new Uint16Array(cells.length);
    this.#shift = new Uint8Array(cells.length);
    this.#mask = Uint8Array.from(cells, ({ bits }) => (1 << bits) - 1);
    this.words = this.#layOut();
    this.#best = new Int32Array(this.words);
    this.#trial = new Int32Array(this.words);
    this.#packed = new Uint32Array(this.#best.buffer);
    this.#plans = renamings.map((renaming) => this.#plan(renaming));
  }

  // No cell crosses a word.
  #layOut(): number {
    let word = 0;
    let used = 0;
    this.cells.forEach(({ bits }, i) => {
      if (used + bits > 32) {
        this.#ends.push(i);
        word++;
        used = 0;
      }
      this.#word[i] = word;
      this.#shift[i] = used;
      used += bits;
    });
    this.#ends.push(this.cells.length);
    return word + 1;
  }

  /** Packs a row as the smallest of its renamings, words taken as signed. The result is overwritten by the next call. */
  pack(row: Uint8Array): Uint32Array {
    this.#best.fill(0x7fff_ffff);
    for (const each of this.#plans) this.#packIfSmaller(row, each);
    return this.#packed;
  }

  // Word by word: most renamings are larger in their first word already, and need no second one.
  #packIfSmaller(row: Uint8Array, plan: Plan): void {
    const best = this.#best;
    const trial = this.#trial;
    let smaller = false;
    for (let word = 0; word < plan.length; word++) {
      const packed = plan[word]?.(row) ?? 0;
      trial[word] = packed;
      if (smaller) continue;
      const known = best[word] ?? 0;
      if (packed > known) return;
      smaller = packed < known;
    }
    if (smaller) best.set(trial);
  }

  // As text: a loop over the cells of a word takes several times as long, and each step of an exploration packs.
  #plan(renaming: Renaming): Plan {
    const sources = sourcesOf(this.cells, renaming);
    const terms: string[][] = Array.from({ length: this.words }, () => []);
    this.cells.forEach(({ holds }, i) => {
      const value = `row[${this.#place[sources[i] ?? 0] ?? 0}]`;
      const renamed =
        holds === undefined ? value : `${holds === 'user' ? 'users' : 'domains'}[${value}]`;
      terms[this.#word[i] ?? 0]?.push(`${renamed} << ${this.#shift[i] ?? 0}`);
    });
    const { users } = renaming;
    const words = terms.map((each) => `(row) => ${each.join(' | ')}`);
    // The text is made of places and shifts alone.
    // eslint-disable-next-line @typescript-eslint/no-implied-eval
    const make = new Function('users', 'domains', `return [${words.join(', ')}];`) as (
      ...tables: Uint8Array[]
    ) => Plan;
    return make(
      // A container as owner, after all users, stays what it is.
      Uint8Array.from([0, ...users.map((user) => user + 1), users.length + 1]),
      Uint8Array.from({ length: MOST_DOMAINS }, (_, i) => renamedDomain(i, users)),
    );
  }

  /** @param offset of the state in `words` */
  unpack(words: Uint32Array, offset: number, row: Uint8Array): void {
    for (let i = 0; i < this.cells.length; i++) {
      const word = words[offset + (this.#word[i] ?? 0)] ?? 0;
      row[this.#place[i] ?? 0] = (word >>> (this.#shift[i] ?? 0)) & (this.#mask[i] ?? 0);
    }
  }
}

const MOST_DOMAINS = 16;

function renamedDomain(domain: number, users: readonly number[]): number {
  const user = userOfDomain(domain);
  return user < 0 ? domain : domain + ((users[user] ?? user) - user) * DOMAINS_PER_USER;
}

function rank(cell: CellSpec | undefined): number {
  return cell?.user !== undefined || cell?.holds === 'user' ? 0 : 1;
}

/** For each cell of the renamed row: the cell that its value comes from. */
function sourcesOf(cells: readonly CellSpec[], { users, devices }: Renaming): number[] {
  const key = (cell: CellSpec, device?: number, user?: number): string =>
    `${cell.name}/${device ?? '-'}/${user ?? '-'}/${cell.group ?? '-'}`;
  const index = new Map(cells.map((cell, i) => [key(cell, cell.device, cell.user), i]));
  const backUsers = inverse(users);
  const backDevices = inverse(devices);
  return cells.map((cell) => {
    const device = cell.device === undefined ? undefined : backDevices[cell.device];
    const user = cell.user === undefined ? undefined : backUsers[cell.user];
    const from = index.get(key(cell, device, user));
    if (from === undefined) throw new Error(`no cell ${key(cell, device, user)}`);
    return from;
  });
}

function inverse(permutation: readonly number[]): number[] {
  const back: number[] = [];
  permutation.forEach((to, from) => {
    back[to] = from;
  });
  return back;
}

/** All orders of 0 … n-1 that only exchange numbers of one class. */
export function permutations(classes: readonly string[]): number[][] {
  let all: number[][] = [[]];
  for (const wanted of classes) {
    all = all.flatMap((prefix) =>
      classes.flatMap((name, to) =>
        name === wanted && !prefix.includes(to) ? [[...prefix, to]] : [],
      ),
    );
  }
  return all;
}
