/**
 * Calls that are answered later: an unbind that waits for the last close of a device. The operation belongs to the engine
 * and goes on whatever becomes of the caller, as on Linux; only its outcome goes to whoever waits for it. After
 * docs/decisions/answers-that-wait.md.
 *
 * Does not do: reading or writing the caller's memory at the end. Everything but the outcome is settled when the call begins.
 */
import { Errno } from './errno.ts';

/** What an operation returns whose outcome comes later; passed on unchanged to whoever made the call. */
export const PENDING = -1002;

/** How a call ends: its value (0 or more), or the refusal. */
export type Outcome = number | Errno;

/**
 * An operation that ends by calling `answer`: once, before it returns or at any time later, also while another call is
 * handled.
 */
export type Start = (answer: (outcome: Outcome) => void) => void;

/**
 * An operation for a caller that cannot wait: a program in the same process.
 * @param why what it would wait for, for people
 * @returns its value
 * @throws Errno its refusal; EAGAIN where it goes on after this
 */
export function answerAtOnce(why: string, start: Start): number {
  let outcome: Outcome | undefined;
  start((given) => {
    outcome = given;
  });
  if (outcome === undefined) {
    throw new Errno('EAGAIN', `${why}; the operation goes on, and a caller in process cannot wait`);
  }
  if (outcome instanceof Errno) throw outcome;
  return outcome;
}
