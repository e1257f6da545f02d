/**
 * DMA of a device: the one way in which a model reaches memory. A request is made only with bus mastering on; it carries the
 * device's requester ID, and its address is translated by the domain that the device, or the PASID, is attached to at that moment.
 * Permissions are checked page by page, written pages are marked dirty where the domain records that.
 *
 * A request that fails is answered to the device (zeros, dropped) and recorded as a fault with its reason. Writes to the window of
 * message-signalled interrupts are messages and not memory; they are never translated.
 *
 * Not here: page requests of devices (ATS, PRI), and who raises an interrupt from a message.
 *
 * VT-d specification 4.1, sections 3.4 and 7.1; PCI Express Base 6.0, section 2.2.
 */
import { Errno } from '../base/errno.ts';
import { PAGE_BYTES, addressOf, hex, offsetOf, pageOf } from '../base/position.ts';
import type { Backing } from '../base/task.ts';
import type { DmaPort } from '../machine/dma.ts';
import { MSI_WINDOW } from '../machine/machine.ts';
import type { PhysicalMemory } from '../machine/memory.ts';
import type { Domain, IommuDevice } from './domain.ts';
import { PROT_READ, PROT_WRITE } from './page-table.ts';
import { PagingDomain } from './paging-domain.ts';

export type DmaFaultReason =
  | 'no bus mastering'
  | 'blocked'
  | 'not mapped'
  | 'not readable'
  | 'not writeable'
  | 'interrupt window'
  | 'no memory';

/** A request that did not reach memory. */
export type DmaFault = {
  /** name of the device */
  readonly device: string;
  readonly requesterId: number;
  readonly pasid: number | undefined;
  /** as the device gave it */
  readonly address: bigint;
  readonly write: boolean;
  readonly reason: DmaFaultReason;
  /** for people: what the device was attached to, and what is there */
  readonly text: string;
};

/** Where requests come from. */
export type DmaSource = {
  readonly iommu: IommuDevice;
  readonly requesterId: number;
  /** the Bus Master Enable bit, at the moment of a request */
  busMaster(): boolean;
};

/** What requests meet on their way. */
export type DmaPath = {
  readonly physical: PhysicalMemory;
  /** A fault is recorded here. */
  report(fault: DmaFault): void;
  /** Takes a write to the interrupt window; without, such a write is a fault. */
  message?(requesterId: number, address: bigint, bytes: Uint8Array): void;
};

/** Bytes of a request that follow one another in one backing. */
type Piece = {
  readonly backing: Backing;
  readonly at: number;
  readonly done: number;
  length: number;
};

type Request = {
  readonly address: bigint;
  readonly bytes: Uint8Array;
  readonly write: boolean;
  readonly pasid: number | undefined;
};

/** What refuses a page of a request. */
class Refused {
  readonly reason: DmaFaultReason;
  readonly text: string;

  constructor(reason: DmaFaultReason, text: string) {
    this.reason = reason;
    this.text = text;
  }
}

type Place = { readonly backing: Backing; readonly offset: number };

export class DeviceDma implements DmaPort {
  readonly #source: DmaSource;
  readonly #path: DmaPath;

  constructor(source: DmaSource, path: DmaPath) {
    this.#source = source;
    this.#path = path;
  }

  read(address: bigint, into: Uint8Array, pasid?: number): boolean {
    into.fill(0);
    return this.#transfer({ address, bytes: into, write: false, pasid });
  }

  write(address: bigint, bytes: Uint8Array, pasid?: number): boolean {
    const path = this.#path;
    const isMessage =
      pasid === undefined && isInWindow(address) && this.#source.busMaster() && bytes.length > 0;
    if (!isMessage || path.message === undefined) {
      return this.#transfer({ address, bytes, write: true, pasid });
    }
    path.message(this.#source.requesterId, address, bytes);
    return true;
  }

  #transfer(request: Request): boolean {
    const { address, bytes } = request;
    let whole = true;
    let piece: Piece | undefined;
    for (let done = 0; done < bytes.length;) {
      const at = BigInt.asUintN(64, address + BigInt(done));
      const length = Math.min(PAGE_BYTES - offsetOf(at), bytes.length - done);
      const place = this.#place(request, at);
      if (place instanceof Refused) {
        this.#report(request, at, place);
        whole = false;
      } else if (piece?.backing === place.backing && piece.at + piece.length === place.offset) {
        piece.length += length;
        done += length;
        continue;
      }
      whole = this.#move(request, piece) && whole;
      piece =
        place instanceof Refused
          ? undefined
          : { backing: place.backing, at: place.offset, done, length };
      done += length;
    }
    return this.#move(request, piece) && whole;
  }

  /** Copies what was found in one piece. @returns whether the memory was there */
  #move(request: Request, piece: Piece | undefined): boolean {
    if (piece === undefined) return true;
    const { backing, at, done, length } = piece;
    const part = request.bytes.subarray(done, done + length);
    try {
      if (request.write) backing.write(at, part);
      else backing.read(at, part);
      return true;
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      if (!request.write) part.fill(0);
      const text = `${backing.name} is not there any more: ${error.message}`;
      const address = BigInt.asUintN(64, request.address + BigInt(done));
      this.#report(request, address, new Refused('no memory', text));
      return false;
    }
  }

  /** The byte behind an address of a request, for the rest of its page. */
  #place(request: Request, address: bigint): Place | Refused {
    const { iommu } = this.#source;
    if (!this.#source.busMaster()) {
      return new Refused('no bus mastering', `bus mastering of ${iommu.name} is off`);
    }
    if (isInWindow(address) && request.pasid === undefined) {
      return new Refused('interrupt window', `${hex(address)} is for interrupts, not memory`);
    }
    if (iommu.group?.untranslated === true) return this.#physical(address);
    const domain = request.pasid === undefined ? iommu.attached : iommu.pasids.get(request.pasid);
    if (domain === undefined && (request.pasid !== undefined || iommu.group !== undefined)) {
      return new Refused('blocked', `nothing is attached for this request of ${iommu.name}`);
    }
    if (domain === undefined || domain.kind === 'identity') return this.#physical(address);
    return translate(domain, request, address);
  }

  #physical(address: bigint): Place | Refused {
    const found = this.#path.physical.locate(pageOf(address));
    if (found === undefined) {
      return new Refused('no memory', `no memory is at physical address ${hex(address)}`);
    }
    return { backing: found.backing, offset: found.page * PAGE_BYTES + offsetOf(address) };
  }

  #report({ write, pasid }: Request, address: bigint, { reason, text }: Refused): void {
    const { iommu, requesterId } = this.#source;
    this.#path.report({ device: iommu.name, requesterId, pasid, address, write, reason, text });
  }
}

function translate(domain: Domain, { write }: Request, address: bigint): Place | Refused {
  if (!(domain instanceof PagingDomain)) {
    return new Refused('blocked', `${domain.name} translates no address`);
  }
  const page = pageOf(address);
  const offset = offsetOf(address);
  const found = domain.table.walk(page, offset);
  if (found === undefined) {
    return new Refused('not mapped', `nothing is mapped at IOVA ${hex(address)} in ${domain.name}`);
  }
  const needed = write ? PROT_WRITE : PROT_READ;
  if ((found.prot & needed) === 0) {
    const [reason, what] = write
      ? (['not writeable', 'written'] as const)
      : (['not readable', 'read'] as const);
    return new Refused(
      reason,
      `page ${hex(addressOf(page, 0))} of ${domain.name} cannot be ${what} by the device`,
    );
  }
  if (write && domain.dirtyTracking) domain.table.setDirty(page, offset);
  return { backing: found.backing, offset: found.offset };
}

function isInWindow(address: bigint): boolean {
  return MSI_WINDOW.start <= address && address <= MSI_WINDOW.last;
}
