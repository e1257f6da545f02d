/**
 * Turns: the handling of a call is one turn, or several where it cannot go on at once: it has much to do, or needs memory
 * or a name that somebody else has to supply first. It is then left in the middle and begun again later, so that no
 * call of one client holds up the others.
 *
 * What is left is as if the call had met memory that cannot be read: the engine undoes such a call completely
 * (test/fault), and so it can be begun again. Nothing is written to the client's memory meanwhile.
 */
import { Errno } from '../base/errno.ts';

/** The call cannot go on now. The engine sees EFAULT. */
export class Again extends Errno {
  /** settles when it is worth to begin again; at once, in its turn, if absent */
  readonly ready: Promise<unknown> | undefined;

  constructor(ready?: Promise<unknown>) {
    super('EFAULT', 'the call was left in the middle, to be begun again');
    this.ready = ready;
  }
}

/** Milliseconds that a turn may take where it can be left. */
const SLICE = 2;

/** Bytes for memory of the client that is not there yet: an open /proc/TID/mem, and where in it. */
export type Posted = {
  readonly memory: number;
  readonly address: number;
  readonly bytes: Uint8Array;
};

/** What is known of a call over all of its turns. */
export class Turn {
  /** Memory or a name was not there: the call is begun again, whatever its handler makes of that. */
  again: Again | undefined;
  /** memory that could not be read, by address and length */
  readonly unreadable = new Set<string>();
  /** what symbolic links say, by path */
  readonly links = new Map<string, string | undefined>();
  /** what is to be written before the answer */
  readonly posted: Posted[] = [];
  /** when the call arrived, in nanoseconds; 0 where nobody asks */
  readonly began: bigint;
  readonly #progress = new Map<string, number>();
  #deadline = 0;

  constructor(began: bigint) {
    this.began = began;
  }

  begin(): void {
    this.again = undefined;
    this.#deadline = 0;
  }

  /** Leaves the call. */
  leave(ready?: Promise<unknown>): never {
    this.again = new Again(ready);
    throw this.again;
  }

  /**
   * Does something long piece by piece, over several turns if need be.
   * @param name what it is, within the call
   * @param step does the piece from `done` on; returns how much is done then
   */
  inPieces(name: string, total: number, step: (done: number) => number): void {
    if (this.#deadline === 0) this.#deadline = performance.now() + SLICE;
    let done = this.#progress.get(name) ?? 0;
    while (done < total) {
      done = step(done);
      this.#progress.set(name, done);
      if (done < total && performance.now() > this.#deadline) this.leave();
    }
  }
}
