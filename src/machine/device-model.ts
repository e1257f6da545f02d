/**
 * What answers behind the BARs of a function: a device model. Pure: registers and state, moved by accesses alone; it interrupts and
 * reaches memory only through what it was given.
 *
 * A BAR that is plain memory says so, and is then read, written and mapped without the model.
 */
import type { Backing } from '../base/task.ts';

export type DeviceModel = {
  /** The memory behind a BAR that keeps what is written; undefined where the model answers each access. */
  memory(bar: number): Backing | undefined;
  /**
   * An access of 1, 2, 4 or 8 bytes, aligned to its size.
   * @param offset in the BAR
   */
  read(bar: number, offset: number, bytes: number): bigint;
  write(bar: number, offset: number, bytes: number, value: bigint): void;
  /** The function is reset; its configuration space has been. */
  reset(): void;
};
