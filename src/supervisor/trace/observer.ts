/** Who wants to know about calls: trace and summary. Absent when nobody looks, so that calls need not describe themselves. */
import type { CallEvent, CallRecord } from '../../base/trace.ts';

/** A call with the time that it took. */
export type TimedCall = CallEvent & {
  /** from its arrival to its answer */
  readonly microseconds: number;
  /** its caller had ended when it was answered */
  readonly callerGone?: boolean;
};

/** A call that is answered later: a {@link TimedCall} follows. */
export type WaitingCall = Pick<
  CallEvent,
  keyof CallRecord | 'pid' | 'tid' | 'syscall' | 'arguments'
> & {
  /** what it waits for */
  readonly why: string;
};

export type Observer = {
  call(event: TimedCall): void;
  waiting(event: WaitingCall): void;
  /** Last use of an open file has gone. */
  released(name: string): void;
};
