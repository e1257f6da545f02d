/**
 * Parked calls: those whose notification was received and has no answer yet. The caller waits in the kernel, killably,
 * while all other calls go on. After docs/decisions/answers-that-wait.md.
 *
 * The operation is the engine's and is never given up. If the caller is dead by the time of the outcome (killed, or another
 * thread of its process has called exec), only the answer is dropped. The listener reports no such death, so it is asked for when it
 * matters: when an answer is sent, and when the table is full.
 *
 * Invariant: a call is answered once. One whose outcome came before it was parked is answered like any other call.
 */
import { Errno } from '../base/errno.ts';
import { PENDING, type Outcome, type Start } from '../base/answer-later.ts';
import type { CallId } from '../os/seccomp.ts';

/**
 * The kernel keeps the parked calls in the list in which it finds those that arrive: 100 make every call of every client
 * 1.4 times as dear, 1,000 make it 14 times as dear.
 */
export const MOST_PARKED = 64;

/** The listener, as far as parked calls are concerned. */
export type Parking = {
  /** The call received last, to be answered by this. */
  readonly callId: CallId;
  /** The caller still waits for its answer. */
  waits(call: CallId): boolean;
  /** Answers a parked call with its value or the negative errno; false if the caller is gone. */
  answerParked(call: CallId, result: number): boolean;
};

/** Learns of the end of a parked call. @param delivered false if the caller was gone */
export type Ended = (outcome: Outcome, delivered: boolean) => void;

/** An operation that a call has begun. */
type Operation = {
  readonly why: string;
  outcome: Outcome | undefined;
  parked: { readonly call: CallId; readonly ended: Ended } | undefined;
};

export class PendingCalls {
  readonly #listener: Parking;
  /** parked, their callers alive as far as that is known */
  readonly #waiting = new Set<Operation>();
  /** what the call that is being handled has begun */
  #begun: Operation | undefined;

  constructor(listener: Parking) {
    this.#listener = listener;
  }

  /** Calls that are parked now. */
  get count(): number {
    return this.#waiting.size;
  }

  /**
   * Begins an operation for the call that is being handled.
   * @param why what it would wait for, for people
   * @returns its value if it ended at once, else {@link PENDING}: then {@link park} has to follow
   * @throws Errno its refusal; EAGAIN, before it begins, where too many calls wait
   */
  begin(why: string, start: Start): number {
    this.#makeRoom();
    const operation: Operation = { why, outcome: undefined, parked: undefined };
    start((outcome) => {
      this.#end(operation, outcome);
    });
    const { outcome } = operation;
    if (outcome instanceof Errno) throw outcome;
    if (outcome !== undefined) return outcome;
    this.#begun = operation;
    return PENDING;
  }

  /**
   * Parks the call that is being handled, which has begun an operation.
   * @param waiting gets what it waits for, unless it ends here
   */
  park(ended: Ended, waiting: (why: string) => void): void {
    const operation = this.#begun;
    this.#begun = undefined;
    if (operation === undefined) throw new Error('a call waits for nothing');
    const parked = { call: this.#listener.callId, ended };
    operation.parked = parked;
    if (operation.outcome === undefined) {
      this.#waiting.add(operation);
      waiting(operation.why);
    } else this.#answer(parked, operation.outcome);
  }

  #end(operation: Operation, outcome: Outcome): void {
    if (operation.outcome !== undefined) throw new Error(`answered twice (${operation.why})`);
    operation.outcome = outcome;
    this.#waiting.delete(operation);
    if (operation.parked !== undefined) this.#answer(operation.parked, outcome);
  }

  #answer({ call, ended }: NonNullable<Operation['parked']>, outcome: Outcome): void {
    const result = outcome instanceof Errno ? -outcome.number : outcome;
    ended(outcome, this.#listener.answerParked(call, result));
  }

  #makeRoom(): void {
    if (this.#waiting.size < MOST_PARKED) return;
    for (const operation of this.#waiting) {
      const { parked } = operation;
      if (parked !== undefined && !this.#listener.waits(parked.call)) {
        this.#waiting.delete(operation);
      }
    }
    if (this.#waiting.size < MOST_PARKED) return;
    const longest = this.#waiting.values().next().value?.why ?? '';
    throw new Errno(
      'EAGAIN',
      `${MOST_PARKED} calls wait for their answers, the most that uiommu keeps; the longest: ${longest}`,
    );
  }
}
