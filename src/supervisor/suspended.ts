/**
 * Calls that were left in the middle (turn.ts), to be begun again: at once, when the others had their turn, or when what they
 * wait for is there. Their callers stay killable; that one has gone shows when its call is taken up.
 *
 * Invariant: at most {@link MOST} are held. The kernel walks over all unanswered calls whenever the loop asks for one
 * (docs/decisions/answers-that-wait.md); a client that has more of them is refused, and slows nobody.
 */
import type { Received } from '../os/seccomp.ts';

const MOST = 64;

export type Suspended = {
  readonly received: Received;
  /** begins the call again, or ends it */
  readonly goOn: () => void;
};

export class SuspendedCalls {
  readonly #ready: Suspended[] = [];
  readonly #wake: () => void;
  #waiting = 0;

  /** @param wake a call that waited for something is ready */
  constructor(wake: () => void) {
    this.#wake = wake;
  }

  /** Some could go on now. */
  get anyReady(): boolean {
    return this.#ready.length > 0;
  }

  get full(): boolean {
    return this.#ready.length + this.#waiting >= MOST;
  }

  /** @param until when that is worth while; at once, in its turn, if absent */
  add(call: Suspended, until: Promise<unknown> | undefined): void {
    if (until === undefined) {
      this.#ready.push(call);
      return;
    }
    this.#waiting++;
    const ready = (): void => {
      this.#waiting--;
      this.#ready.push(call);
      this.#wake();
    };
    void until.then(ready, ready);
  }

  /** The one whose turn it is. */
  next(): Suspended | undefined {
    return this.#ready.shift();
  }
}
