/**
 * Structs of VFIO's ioctls between the client's memory and ours. Unlike IOMMUFD, VFIO reads only up to the last field that a
 * call needs, compares `argsz` with that, and ignores what a longer struct says beyond; each ioctl has its own minimum.
 *
 * Invariant: bytes that were not read from the client count as 0.
 */
import { Errno } from './errno.ts';
import type { Fields, Static, Struct } from './struct.ts';
import type { Task } from './task.ts';

/** A struct that a client passed: decoded, missing fields 0, and the way to write it back. */
export class Argument<F extends Fields> {
  readonly task: Task;
  /** of the struct in client memory */
  readonly address: bigint;
  readonly value: Static<Struct<F>>;
  readonly #struct: Struct<F>;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #hasSize: boolean;
  #read = 0;

  /**
   * @param from the caller, and the address of the struct
   * @param struct its declaration; one that begins with `argsz` is checked against it
   * @param last the last field that this call needs
   * @throws Errno EFAULT, or EINVAL where `argsz` says that the field is not there
   */
  constructor(
    from: { readonly task: Task; readonly address: bigint },
    struct: Struct<F>,
    last: keyof F & string,
  ) {
    this.task = from.task;
    this.address = from.address;
    this.#struct = struct;
    this.#bytes = new Uint8Array(struct.size);
    this.#view = new DataView(this.#bytes.buffer);
    this.#hasSize = Object.keys(struct.fields)[0] === 'argsz';
    this.#copyIn(last);
    this.value = struct.decode(this.#view);
    this.#requireSize(last);
  }

  /** What the client says of the size of its struct, in bytes. */
  get argsz(): number {
    return this.#view.getUint32(0, true);
  }

  #copyIn(last: keyof F & string): void {
    const end = this.#struct.endOf(last);
    this.task.memory.copyIn(
      this.address + BigInt(this.#read),
      this.#bytes.subarray(this.#read, end),
    );
    this.#read = end;
    const { record } = this.task;
    if (record === undefined) return;
    record.struct = this.#struct;
    record.input = this.#bytes.slice();
  }

  #requireSize(last: string): void {
    const needed = this.#struct.endOf(last);
    if (this.#hasSize && this.argsz < needed) {
      throw new Errno(
        'EINVAL',
        `argsz ${this.argsz} of ${this.#struct.name} ends before ${last}, which takes ${needed}`,
      );
    }
  }

  /** Reads on, to the end of `last`: EINVAL if argsz does not reach it, EFAULT. */
  extendTo(last: keyof F & string): void {
    this.#requireSize(last);
    this.#copyIn(last);
    Object.assign(this.value as object, this.#struct.decode(this.#view));
  }

  /** Writes one field of 32 bits back. EFAULT. */
  writeBack(field: keyof F & string, value: number): void {
    const offset = this.#struct.offsetOf(field);
    this.#view.setUint32(offset, value, true);
    this.#copyOut(offset, offset + 4);
  }

  /** Writes the struct as `value` has it now back. @param end how much of it, in bytes; up to what was read unless given. EFAULT */
  respond(end = this.#read): void {
    this.#struct.encode(this.value, this.#view);
    this.#copyOut(0, end);
  }

  #copyOut(start: number, end: number): void {
    this.task.memory.copyOut(this.address + BigInt(start), this.#bytes.subarray(start, end));
    const { record } = this.task;
    if (record !== undefined) record.output = this.#bytes.slice();
  }
}
