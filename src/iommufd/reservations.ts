/**
 * Reservations: IOVAs that nothing can be mapped to, each with the owner that asked for it (a device's reserved region, a
 * domain's aperture, a test). They may overlap; they vanish by owner.
 *
 * There are few (devices have some, domains two), so this is a sorted list.
 * After the reserved_itree of drivers/iommu/iommufd/io_pagetable.c.
 */
import { MAX_ADDRESS, firstOf, isBefore, lastOf, overlaps, spanOf } from '../base/position.ts';
import type { Span } from '../base/range-map.ts';

export type Reservation = {
  readonly span: Span;
  readonly owner: object | undefined;
  /** for people: who wants these IOVAs, and why */
  readonly why: string;
};

export class Reservations {
  #list: Reservation[] = [];

  add(reservation: Reservation): void {
    const at = this.#list.findIndex(({ span }) => startsAfter(span, reservation.span));
    this.#list.splice(at === -1 ? this.#list.length : at, 0, reservation);
  }

  removeOwner(owner: object | undefined): void {
    if (this.#list.length === 0) return;
    this.#list = this.#list.filter((reservation) => reservation.owner !== owner);
  }

  /** The reservation with the lowest start that overlaps. */
  firstOverlap(span: Span): Reservation | undefined {
    for (const reservation of this.#list) {
      if (isBefore(span, reservation.span)) return undefined;
      if (overlaps(reservation.span, span)) return reservation;
    }
    return undefined;
  }

  /** The free ranges between them, over the whole address space. */
  holes(): Span[] {
    const holes: Span[] = [];
    let next = 0n;
    for (const { span } of this.#list) {
      const first = firstOf(span);
      if (first > next) holes.push(spanOf(next, first - 1n));
      if (lastOf(span) >= next) next = lastOf(span) + 1n;
    }
    if (next <= MAX_ADDRESS) holes.push(spanOf(next, MAX_ADDRESS));
    return holes;
  }

  get all(): readonly Reservation[] {
    return this.#list;
  }
}

function startsAfter(a: Span, b: Span): boolean {
  return (
    a.firstPage > b.firstPage || (a.firstPage === b.firstPage && a.firstOffset > b.firstOffset)
  );
}
