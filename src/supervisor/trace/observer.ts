/** Who wants to know about calls: trace and summary. Absent when nobody looks, so that calls need not describe themselves. */
import type { CallEvent } from '../../base/trace.ts';

/** A call with the time that it took. */
export type TimedCall = CallEvent & { readonly microseconds: number };

export type Observer = {
  call(event: TimedCall): void;
  /** Last use of an open file has gone. */
  released(name: string): void;
};
