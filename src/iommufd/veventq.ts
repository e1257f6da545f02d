/**
 * VEVENTQ: a queue of events of a vIOMMU for its guest, of limited depth.
 *
 * What does not fit is lost, and a single marker at the tail says so with the current sequence number; a later event that
 * fits takes the marker's place. Sequence numbers count lost events too.
 * Users: the table, and its open file. It holds its vIOMMU.
 *
 * After drivers/iommu/iommufd/eventq.c (IOMMUFD_OBJ_VEVENTQ) and iommufd_vevent_handler of iommufd_private.h.
 */
import { Errno } from '../base/errno.ts';
import type { ReadBuffer } from '../base/task.ts';
import {
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VEVENTQ_TYPE_DEFAULT,
  iommufd_vevent_header,
  iommu_veventq_alloc,
} from '../uapi/iommufd.ts';
import { EventQueue } from './eventq.ts';

import type { Ucmd } from './ucmd.ts';
import { Viommu } from './viommu.ts';
import { reservedSet, unknownFlags } from '../uapi/refusals.ts';

// VEVENTQ_MAX_DEPTH
const MAX_DEPTH = 2 ** 19;
const MAX_SEQUENCE = 2 ** 31 - 1;

/** An event, or with no data the marker of lost ones. */
type Vevent = { readonly sequence: number; readonly data: Uint8Array | undefined };

export class Veventq extends EventQueue {
  override readonly type = 'VEVENTQ';
  readonly viommu: Viommu;
  /** IOMMU_VEVENTQ_TYPE_* */
  readonly kind: number;
  readonly depth: number;
  #events: Vevent[] = [];
  #stored = 0;
  #sequence = 0;

  constructor(viommu: Viommu, kind: number, depth: number) {
    super(viommu.context);
    this.viommu = viommu;
    this.kind = kind;
    this.depth = depth;
    viommu.users++;
    viommu.veventqs.push(this);
  }

  override get isReadable(): boolean {
    return this.#events.length > 0;
  }

  /**
   * Queues an event, or notes that it was lost; ENOMEM, and noted then too. After iommufd_viommu_report_event.
   */
  report(data: Uint8Array): void {
    try {
      this.context.environment.faults.alloc('event');
    } catch (error) {
      this.#note(data, false);
      throw error;
    }
    this.#note(data, this.#stored < this.depth);
  }

  #note(data: Uint8Array, fits: boolean): void {
    if (this.#events.at(-1)?.data === undefined) this.#events.pop();
    this.#events.push({ sequence: this.#sequence, data: fits ? data.slice() : undefined });
    if (fits) this.#stored++;
    this.#sequence = this.#sequence === MAX_SEQUENCE ? 0 : this.#sequence + 1;
    this.arrived();
  }

  /** Whole records; nothing when there are none. EINVAL for less than the first one, EFAULT, and it stays there. */
  override read(buffer: ReadBuffer): number {
    const header = iommufd_vevent_header.size;
    const count = buffer.length;
    if (count < header)
      throw new Errno('EINVAL', `${count} bytes are too few for the header of an event`);
    let done = 0;
    for (;;) {
      const [event] = this.#events;
      if (event === undefined || header > count - done) break;
      const length = header + (event.data?.length ?? 0);
      if (length > count - done) {
        if (done === 0)
          throw new Errno('EINVAL', `${count} bytes are too few for an event of ${length}`);
        break;
      }
      try {
        this.#copy(event, buffer, done);
      } catch (error) {
        if (done === 0) throw error;
        break;
      }
      this.#events.shift();
      if (event.data !== undefined) this.#stored--;
      done += length;
    }
    this.taken();
    return done;
  }

  #copy({ data, sequence }: Vevent, buffer: ReadBuffer, at: number): void {
    // The marker of lost events is read from a copy.
    if (data === undefined)
      this.context.environment.faults.alloc('copy of the marker of lost events');
    const flags = data === undefined ? IOMMU_VEVENTQ_FLAG_LOST_EVENTS : 0;
    const header = new Uint8Array(iommufd_vevent_header.size);
    iommufd_vevent_header.encode({ flags, sequence }, header);
    buffer.put(at, header);
    if (data !== undefined && data.length > 0) buffer.put(at + header.length, data);
  }

  override destroy(): void {
    this.#events = [];
    this.viommu.veventqs.splice(this.viommu.veventqs.indexOf(this), 1);
    this.viommu.users--;
  }
}

export function veventqAlloc({
  context,
  task,
  cmd,
  checkRespond,
  respond,
}: Ucmd<iommu_veventq_alloc>): undefined {
  if (cmd.flags !== 0) throw unknownFlags(iommu_veventq_alloc, cmd.flags);
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  if (cmd.type === IOMMU_VEVENTQ_TYPE_DEFAULT)
    throw new Errno('EOPNOTSUPP', 'type 0 is not a type of event queue');
  if (cmd.veventq_depth === 0 || cmd.veventq_depth > MAX_DEPTH) {
    throw new Errno('EINVAL', `depth ${cmd.veventq_depth} is not between 1 and ${MAX_DEPTH}`);
  }
  const viommu = context.objects.get(Viommu, cmd.viommu_id);
  const other = viommu.veventqs.find(({ kind }) => kind === cmd.type);
  if (other !== undefined)
    throw new Errno('EEXIST', `${String(viommu)} has ${String(other)} of this type already`);
  context.objects.create(new Veventq(viommu, cmd.type, cmd.veventq_depth), (queue) => {
    cmd.out_veventq_id = queue.id;
    cmd.out_veventq_fd = queue.openFile(
      { task, checkRespond },
      'event queue',
      'iommufd-viommu-event',
    );
    respond();
  });
}

/** Reports an event to the queue of its type; EOPNOTSUPP if the client made none. */
export function reportEvent(viommu: Viommu, kind: number, data: Uint8Array): void {
  const queue = viommu.veventqs.find((candidate) => candidate.kind === kind);
  if (queue === undefined) {
    throw new Errno('EOPNOTSUPP', `${String(viommu)} has no event queue of type ${kind}`);
  }
  queue.report(data);
}
