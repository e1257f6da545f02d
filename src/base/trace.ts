/**
 * What one call says about itself: the event that text, JSON and other renderings are made from. The engine fills in
 * `call` and the fields; who runs the call adds process, result, reason and duration.
 */

/** A decoded struct: C field names with their values, nested structs and arrays likewise. */
export type TraceValue =
  | number
  | bigint
  | string
  | boolean
  | readonly TraceValue[]
  | { readonly [field: string]: TraceValue };

export type CallRecord = {
  /** "IOMMU_IOAS_MAP"; absent until the number was recognised */
  call?: string;
  /** name of the struct that the fields come from */
  struct?: string;
  /** fields as the client gave them */
  input?: Readonly<Record<string, TraceValue>>;
  /** fields as they were written back; absent if nothing was */
  output?: Readonly<Record<string, TraceValue>>;
};
