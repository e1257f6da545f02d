/**
 * Fault injection: every place where Linux could run out of memory, or where its own fail_iommufd hook may refuse, asks
 * here first. Nothing fails unless somebody armed a countdown, as /proc/self/task/TID/fail-nth does
 * (lib/fault-inject.c): the Nth place that is passed from then on refuses once.
 */
import { Errno, type ErrnoCode } from './errno.ts';

export class Faults {
  #countdown = 0;
  #fired: string | undefined;

  /** Makes the `nth` failure point from now on refuse, once; 0 disarms. */
  arm(nth: number): void {
    this.#countdown = nth;
    this.#fired = undefined;
  }

  /** What is left of the countdown: 0 when disarmed or after the refusal. */
  get remaining(): number {
    return this.#countdown;
  }

  /** The point that refused since the last {@link arm}; undefined if none did. */
  get fired(): string | undefined {
    return this.#fired;
  }

  /** A place where Linux allocates memory for `what`; ENOMEM when its turn has come. */
  alloc(what: string): void {
    if (this.#countdown !== 0) this.#pass('ENOMEM', what);
  }

  /** A place where Linux has a failure hook of its own (iommufd_should_fail) that answers `code`. */
  point(code: ErrnoCode, what: string): void {
    if (this.#countdown !== 0) this.#pass(code, what);
  }

  #pass(code: ErrnoCode, what: string): void {
    this.#countdown--;
    if (this.#countdown !== 0) return;
    this.#fired = what;
    throw new Errno(code, `injected failure: ${what}`);
  }
}
