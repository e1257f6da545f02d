/** Memory of any size that takes room only where something was written; the rest reads as zeros. */
import { PAGE_BYTES } from './position.ts';
import type { Backing, MemoryHome, WrittenPiece } from './task.ts';

/** A piece of a copy: within one page, `length` bytes from `at`, which are bytes `done` and on of the whole. */
export type PagePiece = {
  readonly page: number;
  readonly at: number;
  readonly done: number;
  readonly length: number;
};

/** Bytes that grow on demand, so that a test can map terabytes. */
export class SparseBacking implements Backing {
  readonly name: string;
  readonly unit: number;
  readonly #pages = new Map<number, Uint8Array>();
  #home: MemoryHome | undefined;

  constructor(name: string, unit = 1) {
    this.name = name;
    this.unit = unit;
  }

  read(offset: number, into: Uint8Array): void {
    if (this.#home !== undefined) {
      this.#home.read(offset, into);
      return;
    }
    for (const { page, at, done, length } of pieces(offset, into.length)) {
      const bytes = this.#pages.get(page);
      if (bytes === undefined) into.fill(0, done, done + length);
      else into.set(bytes.subarray(at, at + length), done);
    }
  }

  write(offset: number, from: Uint8Array): void {
    if (this.#home !== undefined) {
      this.#home.write(offset, from);
      return;
    }
    for (const { page, at, done, length } of pieces(offset, from.length)) {
      let bytes = this.#pages.get(page);
      if (bytes === undefined) {
        bytes = new Uint8Array(PAGE_BYTES);
        this.#pages.set(page, bytes);
      }
      bytes.set(from.subarray(done, done + length), at);
    }
  }

  moveTo(home: MemoryHome): void {
    if (this.#home !== undefined) throw new Error(`${this.name} has moved already`);
    for (const { offset, bytes } of this.contents()) home.write(offset, bytes);
    this.#pages.clear();
    this.#home = home;
  }

  moveBack(): void {
    const home = this.#home;
    this.#home = undefined;
    for (const { offset, bytes } of home?.contents() ?? []) this.write(offset, bytes);
  }

  /** All pages that were written. */
  *contents(): Generator<WrittenPiece> {
    for (const [page, bytes] of this.#pages) yield { offset: page * PAGE_BYTES, bytes };
  }
}

function pieces(offset: number, length: number): PagePiece[] {
  const found: PagePiece[] = [];
  for (let done = 0; done < length;) {
    const at = (offset + done) % PAGE_BYTES;
    const part = Math.min(PAGE_BYTES - at, length - done);
    found.push({ page: Math.floor((offset + done) / PAGE_BYTES), at, done, length: part });
    done += part;
  }
  return found;
}
