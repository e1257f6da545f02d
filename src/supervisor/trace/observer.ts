/** Who wants to know about calls: trace and summary. Absent when nobody looks, so that calls need not describe themselves. */
import type { ErrnoCode } from '../../base/errno.ts';
import type { CallRecord } from '../../base/trace.ts';

/** One call of a client that had to do with a file or a name of ours. */
export type CallEvent = CallRecord & {
  readonly pid: number;
  readonly tid: number;
  /** "ioctl", "openat" */
  readonly syscall: string;
  /** arguments that are no struct, as they are to be read: "3</dev/iommu>", "\"/dev/iommu\"" */
  readonly arguments: readonly string[];
  readonly result: number;
  /** name of the file behind the result, where that is a new file number */
  readonly opened?: string;
  readonly error?: ErrnoCode;
  readonly reason?: string;
  readonly microseconds: number;
};

export type Observer = {
  call(event: CallEvent): void;
  /** Last use of an open file has gone. */
  released(name: string): void;
};
