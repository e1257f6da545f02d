/**
 * What one call says about itself: the event that text, JSON and other renderings are made from. The engine names the call
 * and its struct; who runs the call adds process, result, reason and duration. Bytes are kept as they were and decoded by
 * whoever renders them (uapi/describe.ts), so that a run without a trace pays nothing.
 */
import type { ErrnoCode } from './errno.ts';
import type { Struct } from './struct.ts';

export type CallRecord = {
  /** "IOMMU_IOAS_MAP"; absent until the number was recognised */
  call?: string;
  /** layout of the argument */
  struct?: Struct;
  /** the argument as the client gave it, as far as it is known */
  input?: Uint8Array;
  /** the argument as it was written back; absent if it was not */
  output?: Uint8Array;
  /** what Linux would say in its log of a call that succeeded: a warning for people */
  warning?: string;
};

/** One call of a client that had to do with an emulated file or name. */
export type CallEvent = CallRecord & {
  readonly pid: number;
  readonly tid: number;
  /** "ioctl", "openat" */
  readonly syscall: string;
  /** arguments that are not a struct, as they are to be read: "3</dev/iommu>", "\"/dev/iommu\"" */
  readonly arguments: readonly string[];
  /** what the call returned; -1 for a refusal */
  readonly result: number;
  /** name of the file behind the result, where that is a new fd */
  readonly opened?: string;
  readonly error?: ErrnoCode;
  readonly reason?: string;
};

/** A decoded field: names for flags and enumerated values, nested structs and arrays likewise. */
export type TraceValue =
  | number
  | bigint
  | string
  | boolean
  | readonly TraceValue[]
  | { readonly [field: string]: TraceValue };
