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
import type { Context } from './context.ts';

export type Ucmd<T> = {
  readonly context: Context;
  readonly task: Task;
  /** the client's struct; what the handler writes here `respond` hands back */
  readonly cmd: T;
  /** Writes the struct back; EFAULT. */
  readonly respond: () => void;
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

const CHUNK = 65_536;

/** Ties the declaration of an ioctl to its handler. */
export function op<F extends Fields>(
  spec: IoctlSpec<F>,
  handler: (ucmd: Ucmd<Static<Struct<F>>>) => number | undefined,
): Op {
  return {
    spec: spec,
    execute: (context, task, argument) => {
      if (task.record !== undefined) task.record.call = spec.name;
      return handler(new Call(spec, context, task, argument)) ?? 0;
    },
  };
}

class Call<F extends Fields> implements Ucmd<Static<Struct<F>>> {
  readonly context: Context;
  readonly task: Task;
  readonly cmd: Static<Struct<F>>;
  readonly #spec: IoctlSpec<F>;
  readonly #address: bigint;
  readonly #userSize: number;
  readonly #bytes: Uint8Array;

  constructor(spec: IoctlSpec<F>, context: Context, task: Task, address: bigint) {
    this.#spec = spec;
    this.context = context;
    this.task = task;
    this.#address = address;
    const bytes = new Uint8Array(spec.struct.size);
    this.#userSize = copyStruct(spec, task, address, bytes);
    this.#bytes = bytes;
    if (task.record !== undefined) {
      task.record.struct = spec.struct;
      task.record.input = bytes.slice();
    }
    this.cmd = spec.struct.decode(bytes);
  }

  readonly respond = (): void => {
    const { struct } = this.#spec;
    struct.encode(this.cmd, this.#bytes);
    const known = Math.min(this.#userSize, struct.size);
    this.task.memory.copyOut(
      this.#address,
      known === struct.size ? this.#bytes : this.#bytes.subarray(0, known),
    );
    if (this.task.record !== undefined) this.task.record.output = this.#bytes.slice();
  };

  respondField(field: string): void {
    const { struct } = this.#spec;
    struct.encode(this.cmd, this.#bytes);
    const offset = struct.offsetOf(field);
    const bytes = this.#bytes.subarray(offset, struct.endOf(field));
    this.task.memory.copyOut(this.#address + BigInt(offset), bytes);
    if (this.task.record !== undefined) this.task.record.output = this.#bytes.slice();
  }
}

/**
 * Fills `bytes` with the client's struct, zero-extended.
 * @returns the size that the client gave; EFAULT, EINVAL (too short), E2BIG (something unknown in the rest)
 */
function copyStruct(spec: Layout, task: Task, address: bigint, bytes: Uint8Array): number {
  const whole = tryCopy(task, address, bytes);
  // A struct that ends before unreadable memory is fine: only then does its size say how much to read.
  if (!whole) task.memory.copyIn(address, bytes.subarray(0, 4));
  const userSize = new DataView(bytes.buffer).getUint32(0, true);
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
    checkZero(spec, task, { from: address + BigInt(known), length: userSize - known });
  return userSize;
}

function tryCopy(task: Task, address: bigint, bytes: Uint8Array): boolean {
  try {
    task.memory.copyIn(address, bytes);
    return true;
  } catch (error) {
    if (error instanceof Errno) return false;
    throw error;
  }
}

function checkZero(
  spec: Layout,
  task: Task,
  rest: { readonly from: bigint; readonly length: number },
): void {
  for (let done = 0; done < rest.length; done += CHUNK) {
    const bytes = new Uint8Array(Math.min(CHUNK, rest.length - done));
    task.memory.copyIn(rest.from + BigInt(done), bytes);
    if (bytes.some((byte) => byte !== 0)) {
      throw new Errno(
        'E2BIG',
        `there is something beyond the ${spec.struct.size} bytes of ${spec.name} that are known`,
      );
    }
  }
}
