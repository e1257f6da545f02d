/**
 * Data that a client hands to the driver behind an object, with the size rules of ioctl structs.
 *
 * After iommu_copy_struct_from_user and iommu_copy_struct_from_full_user_array of include/linux/iommu.h, and
 * copy_struct_from_user of include/linux/uaccess.h.
 */
import { Errno } from '../base/errno.ts';
import { USER_END, hex } from '../base/position.ts';
import type { Fields, Static, Struct } from '../base/struct.ts';
import type { Task } from '../base/task.ts';
import type { UserData } from '../iommu/domain.ts';

/** Fills `bytes` from client memory. @returns false if any of it cannot be read */
export function tryCopy(task: Task, address: bigint, bytes: Uint8Array): boolean {
  try {
    task.memory.copyIn(address, bytes);
    return true;
  } catch (error) {
    if (error instanceof Errno) return false;
    throw error;
  }
}

/**
 * What lies beyond the part of a struct that is known: something there is E2BIG, unless unreadable memory comes before it:
 * EFAULT. After check_zeroed_user.
 */
export function checkZero(
  task: Task,
  rest: { readonly from: bigint; readonly length: number },
  struct: string,
): void {
  // All of it has to lie where a program can have memory (user_read_access_begin), before any of it is looked at.
  const end = rest.from + BigInt(rest.length);
  if (end > USER_END) throw new Errno('EFAULT', `${struct} reaches beyond ${hex(USER_END)}`);
  if (task.memory.isZero(rest.from, rest.length)) return;
  throw new Errno('E2BIG', `there is something beyond what is known of ${struct}`);
}

/** A piece of client memory as a driver sees it. */
export function clientData(
  task: Task,
  what: { readonly type: number; readonly address: bigint; readonly length: number },
): UserData & { copyOut(bytes: Uint8Array): void } {
  const { type, address, length } = what;
  return {
    type,
    length,
    copyIn: (into) => {
      task.memory.copyIn(address, into);
    },
    copyOut: (bytes) => {
      task.memory.copyOut(address, bytes);
    },
  };
}

/**
 * Decodes a driver's struct from client data: EINVAL for another type, for less than up to `last` and for more than the
 * struct, EFAULT. Missing fields are 0.
 */
export function copyStructIn<F extends Fields>(
  struct: Struct<F>,
  data: UserData,
  rule: { readonly type: number; readonly last: keyof F & string },
): Static<Struct<F>> {
  if (data.type !== rule.type) {
    throw new Errno('EINVAL', `data type ${data.type} is not ${rule.type} (${struct.name})`);
  }
  if (data.length < struct.endOf(rule.last)) {
    throw new Errno('EINVAL', `${data.length} bytes are too few for ${struct.name}`);
  }
  if (data.length > struct.size) {
    throw new Errno('EINVAL', `${data.length} bytes are more than ${struct.name} has`);
  }
  const bytes = new Uint8Array(struct.size);
  data.copyIn(bytes.subarray(0, data.length));
  return struct.decode(bytes);
}
