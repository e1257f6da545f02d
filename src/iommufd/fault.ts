/**
 * FAULT: a queue of page faults that devices ran into, to be answered by the client.
 *
 * A fault group is delivered as a whole, gets its cookie when it is read, and waits for the answer under that cookie. When
 * the attachment that it came through ends, it is answered as invalid on the client's behalf.
 * Users: the table, its open file, each HWPT that uses it.
 *
 * After drivers/iommu/iommufd/eventq.c (IOMMUFD_OBJ_FAULT) and drivers/iommu/io-pgfault.c.
 */
import { Errno } from '../base/errno.ts';
import { hex } from '../base/position.ts';
import type { ReadBuffer, WriteBuffer } from '../base/task.ts';
import type { AttachHandle } from '../iommu/group.ts';
import {
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMUFD_PAGE_RESP_SUCCESS,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
  iommu_fault_alloc,
} from '../uapi/iommufd.ts';
import type { IommufdAttachHandle } from './device.ts';
import { EventQueue } from './eventq.ts';

import type { Ucmd } from './ucmd.ts';
import { unknownFlags } from '../uapi/refusals.ts';

/** A page fault as a device reports it. */
export type PageFault = {
  /** IOMMU_PGFAULT_FLAGS_* */
  readonly flags: number;
  readonly pasid: number;
  readonly grpid: number;
  /** IOMMU_PGFAULT_PERM_* */
  readonly perm: number;
  readonly addr: bigint;
};

/** Faults that are answered together. */
export type FaultGroup = {
  readonly handle: IommufdAttachHandle;
  readonly faults: readonly PageFault[];
  /** Tells the device; `valid` when it may try again. */
  respond(valid: boolean): void;
};

const MAX_COOKIE = 0xffff_ffff;

export class Fault extends EventQueue {
  override readonly type = 'FAULT';
  #waiting: FaultGroup[] = [];
  readonly #read = new Map<number, FaultGroup>();
  #lowestCookie = 1;

  override get isReadable(): boolean {
    return this.#waiting.length > 0;
  }

  deliver(group: FaultGroup): void {
    this.#waiting.push(group);
    this.arrived();
  }

  /**
   * Whole groups in the order in which they came; nothing when there are none. One that cannot be copied stays where it
   * is. ESPIPE, EINVAL, EFAULT.
   */
  override read(buffer: ReadBuffer): number {
    const { size } = iommu_hwpt_pgfault;
    const count = buffer.length;
    if (count % size !== 0)
      throw new Errno('ESPIPE', `${count} is not a multiple of the ${size} bytes of a fault`);
    let done = 0;
    for (;;) {
      const [group] = this.#waiting;
      if (group === undefined) break;
      const length = group.faults.length * size;
      if (done >= count || length > count - done) {
        if (done === 0)
          throw new Errno(
            'EINVAL',
            `${count} bytes are too few for the first fault group of ${length}`,
          );
        break;
      }
      try {
        this.#copy(group, buffer, done);
      } catch (error) {
        // What was read before has its cookies, and must reach the client.
        if (done === 0) throw error;
        break;
      }
      this.#waiting.shift();
      done += length;
    }
    this.taken();
    return done;
  }

  /** Answers by cookie; stops at the first bad one. ESPIPE, EINVAL, EFAULT. @returns bytes taken */
  override write(buffer: WriteBuffer): number {
    const { size } = iommu_hwpt_page_response;
    const count = buffer.length;
    if (count % size !== 0)
      throw new Errno('ESPIPE', `${count} is not a multiple of the ${size} bytes of an answer`);
    let done = 0;
    try {
      for (; done < count; done += size) this.#answer(buffer.take(done, size));
    } catch (error) {
      if (done === 0) throw error;
    }
    return done;
  }

  /** An attachment has ended: whatever came through it is answered as invalid. After iommufd_auto_response_faults. */
  answerAll(handle: AttachHandle): void {
    const ended = this.#waiting.filter((group) => group.handle === handle);
    this.#waiting = this.#waiting.filter((group) => group.handle !== handle);
    for (const [cookie, group] of this.#read) {
      if (group.handle !== handle) continue;
      this.#forget(cookie);
      ended.push(group);
    }
    for (const group of ended) group.respond(false);
    if (ended.length > 0) this.taken();
  }

  override destroy(): void {
    for (const group of [...this.#waiting, ...this.#read.values()]) group.respond(false);
    this.#waiting = [];
    this.#read.clear();
  }

  #answer(bytes: Uint8Array): void {
    const { cookie, code } = iommu_hwpt_page_response.decode(bytes);
    if (code !== IOMMUFD_PAGE_RESP_SUCCESS && code !== IOMMUFD_PAGE_RESP_INVALID) {
      throw new Errno('EINVAL', `answer code ${code} is neither success nor invalid`);
    }
    const group = this.#read.get(cookie);
    if (group === undefined) {
      // The kernel keeps cookie 0 back by an entry of its own, which an answer to it takes out (xa_erase).
      if (cookie === 0 && this.#read.size > 0) this.#lowestCookie = 0;
      throw new Errno('EINVAL', `no fault waits under cookie ${hex(cookie)}`);
    }
    this.#forget(cookie);
    group.respond(code === IOMMUFD_PAGE_RESP_SUCCESS);
  }

  #copy(group: FaultGroup, buffer: ReadBuffer, at: number): void {
    const cookie = this.#keep(group);
    try {
      buffer.put(at, this.#compose(group, cookie));
    } catch (error) {
      this.#forget(cookie);
      throw error;
    }
  }

  #keep(group: FaultGroup): number {
    this.context.environment.faults.alloc('fault cookie');
    let cookie = this.#lowestCookie;
    while (this.#read.has(cookie)) cookie++;
    if (cookie > MAX_COOKIE) throw new Errno('EBUSY', 'no fault cookie is left');
    this.#lowestCookie = cookie + 1;
    this.#read.set(cookie, group);
    return cookie;
  }

  #forget(cookie: number): void {
    this.#read.delete(cookie);
    if (cookie < this.#lowestCookie) this.#lowestCookie = cookie;
  }

  #compose({ handle, faults }: FaultGroup, cookie: number): Uint8Array {
    const { size } = iommu_hwpt_pgfault;
    const bytes = new Uint8Array(faults.length * size);
    faults.forEach((fault, index) => {
      const record = iommu_hwpt_pgfault.make({ ...fault, dev_id: handle.device.id, cookie });
      iommu_hwpt_pgfault.encode(record, bytes, index * size);
    });
    return bytes;
  }
}

export function faultAlloc({
  context,
  task,
  cmd,
  checkRespond,
  respond,
}: Ucmd<iommu_fault_alloc>): undefined {
  if (cmd.flags !== 0) throw unknownFlags(iommu_fault_alloc, cmd.flags);
  context.objects.create(new Fault(context), (fault) => {
    cmd.out_fault_id = fault.id;
    cmd.out_fault_fd = fault.openFile({ task, checkRespond }, 'fault queue', 'iommufd-pgfault');
    respond();
  });
}
