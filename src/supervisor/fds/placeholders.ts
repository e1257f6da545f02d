/**
 * Placeholders: file numbers that streams leave unused.
 *
 * A stream lives at a high number, where the filter sees its reads and writes. Linux gives it the lowest free number, and
 * programs that count (or that a recording of Linux is compared with) see which numbers later files get. So the lowest
 * number is taken all the same, by an empty memfd that nothing else is done with. When the stream is closed the client
 * still has the placeholder, as nobody can close a file for it; the next file of ours that Linux would put there takes its
 * place.
 *
 * Invariant: a number is reused only while the placeholder itself is behind it.
 */
import { closeFile, createMemfd, identifyEntry, identifyFile, identity } from '../../os/files.ts';
import type { Installer, Table } from './files.ts';

export type Placeholder = {
  readonly number: number;
  readonly device: number;
  readonly inode: number;
};

export class FdPlaceholders {
  readonly #left = new WeakMap<object, Placeholder[]>();

  /** Takes the number that a file would get now; undefined if the table is full. */
  install(table: Table, install: Installer): Placeholder | undefined {
    const fd = createMemfd('placeholder of a stream');
    if (fd < 0) return undefined;
    identifyFile(fd);
    const { device, inode } = identity;
    const number = install(fd, this.reusable(table));
    closeFile(fd);
    return number < 0 ? undefined : { number, device, inode };
  }

  /** The stream that a placeholder stood for is closed in this table. */
  leave({ owner }: Table, placeholder: Placeholder): void {
    this.#left.set(owner, [...(this.#left.get(owner) ?? []), placeholder]);
  }

  /** How many left placeholders are still there. */
  count(table: Table): number {
    return this.#leftIn(table).length;
  }

  /** The lowest number with nothing but a left placeholder, if no lower one is free; the table forgets it. */
  reusable(table: Table): number | undefined {
    const { owner, numbers } = table;
    const left = this.#leftIn(table);
    if (left.length === 0) return undefined;
    const lowest = left.reduce((a, b) => (a.number < b.number ? a : b));
    this.#left.set(owner, left);
    for (let number = 0; number < lowest.number; number++) {
      if (identifyEntry(numbers, number) < 0) return undefined;
    }
    this.#left.set(
      owner,
      left.filter((placeholder) => placeholder !== lowest),
    );
    return lowest.number;
  }

  #leftIn({ owner, numbers }: Table): Placeholder[] {
    return (this.#left.get(owner) ?? []).filter((placeholder) => isThere(placeholder, numbers));
  }
}

function isThere({ number, device, inode }: Placeholder, numbers: number): boolean {
  return (
    identifyEntry(numbers, number) >= 0 && identity.device === device && identity.inode === inode
  );
}
