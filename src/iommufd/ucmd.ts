/**
 * Ucmd: one ioctl of /dev/iommu under way. Copies the client's struct in and out and holds the size rules that let old
 * programs run on new kernels and new ones on old kernels.
 *
 * A struct may be shorter than what is known here (the rest counts as zero) but not shorter than when the ioctl was first
 * released; it may be longer if the rest is zero. What is written back is what both sides know.
 *
 * After iommufd_fops_ioctl of drivers/iommu/iommufd/main.c and copy_struct_from_user of include/linux/uaccess.h.
 */
import { Errno } from '../base/errno.ts';
import type { Fields, Static, Struct } from '../base/struct.ts';
import type { Task } from '../base/task.ts';
import type { IoctlSpec } from '../uapi/ioctls.ts';
import { checkZero, tryCopy } from './client-data.ts';
import type { Context } from './context.ts';

export type Ucmd<T> = {
  readonly context: Context;
  readonly task: Task;
  /** the client's struct; what the handler writes here `respond` hands back */
  readonly cmd: T;
  /** Writes the struct back; EFAULT. */
  readonly respond: () => void;
  /** EFAULT if {@link respond} would fail: asked before what cannot be undone, a file in the client's table. */
  readonly checkRespond: () => void;
  /** Writes one field back, as IOMMU_OPTION does whatever size the client gave; EFAULT. */
  respondField(field: string): void;
};

/** A row of the ioctl table: what is known of the struct, and what the ioctl does. */
export type Op = {
  readonly spec: IoctlSpec;
  /** @returns what the ioctl answers */
  execute(context: Context, task: Task, argument: bigint): number;
};

/** What the size rules need of a row. */
type Layout = {
  readonly name: string;
  readonly minSize: number;
  readonly struct: { readonly size: number };
};

/** Ties the declaration of an ioctl to its handler. */
export function op<F extends Fields>(
  spec: IoctlSpec<F>,
  handler: (ucmd: Ucmd<Static<Struct<F>>>) => number | undefined,
): Op {
  // One call at a time, and nothing of its struct outlives it: making a buffer each time costs a tenth of a call.
  const buffer = new Buffered(spec.struct.size);
  return {
    spec: spec,
    execute: (context, task, argument) => {
      if (task.record !== undefined) task.record.call = spec.name;
      return handler(new Call(spec, buffer, { context, task, address: argument })) ?? 0;
    },
  };
}

/** Where the struct of a call lies. */
class Buffered {
  readonly bytes: Uint8Array;
  readonly view: DataView;

  constructor(size: number) {
    const buffer = new ArrayBuffer(size);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
  }
}

class Call<F extends Fields> implements Ucmd<Static<Struct<F>>> {
  readonly context: Context;
  readonly task: Task;
  readonly cmd: Static<Struct<F>>;
  readonly #spec: IoctlSpec<F>;
  readonly #address: bigint;
  readonly #userSize: number;
  readonly #buffer: Buffered;

  constructor(
    spec: IoctlSpec<F>,
    buffer: Buffered,
    from: { readonly context: Context; readonly task: Task; readonly address: bigint },
  ) {
    const { context, task, address } = from;
    this.#spec = spec;
    this.context = context;
    this.task = task;
    this.#address = address;
    this.#buffer = buffer;
    this.#userSize = copyStruct(spec, task, address, buffer);
    if (task.record !== undefined) {
      task.record.struct = spec.struct;
      task.record.input = buffer.bytes.slice();
    }
    this.cmd = spec.struct.decode(buffer.view);
  }

  readonly respond = (): void => {
    const { bytes, view } = this.#buffer;
    this.#spec.struct.encode(this.cmd, view);
    this.#copyOut();
    if (this.task.record !== undefined) this.task.record.output = bytes.slice();
  };

  readonly checkRespond = (): void => {
    this.#copyOut();
  };

  #copyOut(): void {
    const { bytes } = this.#buffer;
    const known = Math.min(this.#userSize, bytes.length);
    this.task.memory.copyOut(
      this.#address,
      known === bytes.length ? bytes : bytes.subarray(0, known),
    );
  }

  respondField(field: string): void {
    const { struct } = this.#spec;
    const { bytes, view } = this.#buffer;
    struct.encode(this.cmd, view);
    const offset = struct.offsetOf(field);
    this.task.memory.copyOut(
      this.#address + BigInt(offset),
      bytes.subarray(offset, struct.endOf(field)),
    );
    if (this.task.record !== undefined) this.task.record.output = bytes.slice();
  }
}

/**
 * Fills the buffer with the client's struct, zero-extended.
 * @returns the size that the client gave; EFAULT, EINVAL (too short), E2BIG (something unknown in the rest)
 */
function copyStruct(spec: Layout, task: Task, address: bigint, buffer: Buffered): number {
  const { bytes, view } = buffer;
  const whole = tryCopy(task, address, bytes);
  // A struct that ends before unreadable memory is fine: only then does its size say how much to read.
  if (!whole) task.memory.copyIn(address, bytes.subarray(0, 4));
  const userSize = view.getUint32(0, true);
  if (userSize < spec.minSize) {
    throw new Errno(
      'EINVAL',
      `size ${userSize} is below the ${spec.minSize} bytes that ${spec.name} needs`,
    );
  }
  const known = spec.struct.size;
  if (!whole) task.memory.copyIn(address, bytes.subarray(0, Math.min(userSize, known)));
  if (userSize < known) bytes.fill(0, userSize);
  else if (userSize > known)
    checkZero(task, { from: address + BigInt(known), length: userSize - known }, spec.name);
  return userSize;
}
