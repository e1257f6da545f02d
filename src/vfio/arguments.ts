/**
 * Structs of VFIO's ioctls between the client's memory and us. Unlike IOMMUFD, VFIO reads only as far as it needs to, looks at
 * `argsz` then, and ignores what a longer struct says beyond; each ioctl has its own minimum.
 */
import { Errno } from '../base/errno.ts';
import type { Fields, Static, Struct } from '../base/struct.ts';
import type { Task } from '../base/task.ts';

/** A struct that a client handed over: decoded, missing fields 0, and the way to write fields back. */
export class Argument<F extends Fields> {
  readonly value: Static<Struct<F>>;
  readonly #task: Task;
  readonly #address: bigint;
  readonly #struct: Struct<F>;
  readonly #bytes: Uint8Array;

  /**
   * @param task the caller
   * @param address of the struct
   * @param struct its declaration
   * @param last the last field that this call needs
   * @throws Errno EFAULT, or EINVAL where `argsz` says that the field is not there
   */
  constructor(task: Task, address: bigint, struct: Struct<F>, last: keyof F & string) {
    this.#task = task;
    this.#address = address;
    this.#struct = struct;
    this.#bytes = new Uint8Array(struct.size);
    const needed = struct.endOf(last);
    task.memory.copyIn(address, this.#bytes.subarray(0, needed));
    this.value = struct.decode(this.#bytes);
    this.#requireSize(needed, last);
    this.#note();
  }

  #argsz(): number {
    return new DataView(this.#bytes.buffer).getUint32(0, true);
  }

  #requireSize(needed: number, last: string): void {
    if (this.#argsz() < needed) {
      throw new Errno('EINVAL', `argsz is ${this.#argsz()}, up to ${last} it takes ${needed}`);
    }
  }

  #note(): void {
    const { record } = this.#task;
    if (record === undefined) return;
    record.struct = this.#struct;
    record.input = this.#bytes.slice();
  }

  /** Reads on, to the end of `last`: EINVAL if argsz does not reach it, EFAULT. */
  extendTo(last: keyof F & string): void {
    const needed = this.#struct.endOf(last);
    this.#requireSize(needed, last);
    this.#task.memory.copyIn(this.#address, this.#bytes.subarray(0, needed));
    Object.assign(this.value as object, this.#struct.decode(this.#bytes));
    this.#note();
  }

  /** Writes one field back. EFAULT. */
  writeBack(field: keyof F & string, value: number): void {
    const { record } = this.#task;
    const offset = this.#struct.offsetOf(field);
    new DataView(this.#bytes.buffer).setUint32(offset, value, true);
    this.#task.memory.copyOut(
      this.#address + BigInt(offset),
      this.#bytes.subarray(offset, offset + 4),
    );
    if (record !== undefined) record.output = this.#bytes.slice();
  }
}
