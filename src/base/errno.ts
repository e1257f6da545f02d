/**
 * Errno: an expected refusal. It carries the number that the ABI shows to a program, and the reason that a person reads
 * (rule, values, culprit). Anything else that is thrown below the supervisor is a bug and ends the run.
 *
 * Numbers: Linux x86-64, include/uapi/asm-generic/errno-base.h and errno.h. ENOTSUPP and other internal numbers of the
 * kernel never reach a program and have no place here.
 */
import { UiommuError } from './error.ts';

export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  ESPIPE: 29,
  EROFS: 30,
  ERANGE: 34,
  EDEADLK: 35,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  EBADE: 52,
  ENODATA: 61,
  EOVERFLOW: 75,
  EBADFD: 77,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ENOBUFS: 105,
  EPROBE_DEFER: 517,
} as const;

export type ErrnoCode = keyof typeof ERRNO;

// Refusals are part of normal operation (a fuzzer makes millions): collecting a stack costs five times the rest. Where a
// person will read it, whoever made the call adds the stack of its caller (attributeTo).
const NO_STACK = 0;

export class Errno extends UiommuError {
  override readonly name = 'Errno';
  readonly code: ErrnoCode;
  /** the rule that refused, the values, the culprit: what a trace shows */
  readonly reason: string;
  /** C name of the call that was refused, once that is known: then the message begins with it */
  call: string | undefined;

  /**
   * @param code what the program sees
   * @param reason what a person reads; no period at the end
   */
  constructor(code: ErrnoCode, reason: string) {
    const limit = Error.stackTraceLimit;
    Error.stackTraceLimit = NO_STACK;
    super(reason);
    Error.stackTraceLimit = limit;
    this.code = code;
    this.reason = reason;
  }

  /**
   * Names the call and gives the error the stack of whoever made it, so that an uncaught refusal shows the line of the
   * program and none of the engine.
   * @param from the function whose caller made the call
   */
  attributeTo(call: string | undefined, from: (...args: never[]) => unknown): void {
    if (call !== undefined && this.call === undefined) {
      this.call = call;
      this.message = `${call}: ${this.reason}`;
    }
    Error.captureStackTrace(this, from);
  }

  /** The positive number of {@link code}. */
  get number(): number {
    return ERRNO[this.code];
  }
}

const BY_NUMBER = new Map<number, ErrnoCode>(
  Object.entries(ERRNO).map(([code, number]) => [number, code as ErrnoCode]),
);

/** The name of a positive errno number; undefined for one that is not in the table. */
export function errnoName(number: number): ErrnoCode | undefined {
  return BY_NUMBER.get(number);
}
