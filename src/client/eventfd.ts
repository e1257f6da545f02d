/**
 * An eventfd of a client in this process: a counter that the program and devices add to.
 *
 * After fs/eventfd.c, non-blocking.
 */
import { Errno } from '../base/errno.ts';
import type { Signal } from '../base/task.ts';

const FULL = 2n ** 64n - 2n;

export class Eventfd {
  #count = 0n;
  #references = 1;
  readonly #listeners = new Set<() => void>();

  /** write(2): adds. EAGAIN if the counter would overflow. */
  write(value: bigint): void {
    if (this.#count + value > FULL) throw new Errno('EAGAIN', 'the counter is full');
    this.#add(value);
  }

  /** read(2): takes the count. EAGAIN if it is 0. */
  read(): bigint {
    const count = this.#count;
    if (count === 0n) throw new Errno('EAGAIN', 'the counter is 0');
    this.#count = 0n;
    return count;
  }

  get(): void {
    this.#references++;
  }

  /** An fd of it was closed. */
  put(): void {
    this.#references--;
  }

  // Each listener takes the count that it is woken for.
  #add(value: bigint): void {
    this.#count += this.#count + value > FULL ? 0n : value;
    for (const listener of [...this.#listeners]) {
      this.#count = 0n;
      listener();
    }
  }

  /** What a device is given to signal it. */
  signal(): Signal {
    let listener: (() => void) | undefined;
    const unlisten = (): void => {
      if (listener !== undefined) this.#listeners.delete(listener);
      listener = undefined;
    };
    const isClosed = (): boolean => this.#references === 0;
    return {
      signal: () => {
        this.#add(1n);
      },
      listen: (each) => {
        listener = each;
        this.#listeners.add(each);
        if (this.#count > 0n) each();
      },
      unlisten,
      get closed() {
        return isClosed();
      },
      release: unlisten,
    };
  }
}
