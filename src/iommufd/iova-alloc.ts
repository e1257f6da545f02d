/**
 * Finding free IOVAs: first fit within the allowed ranges, between reservations and areas.
 *
 * The alignment of the source address is kept up to a huge page, so that large leaves stay possible; IOVA 0 is never
 * chosen. The comparisons are Linux's to the last off-by-one: a hole whose candidate is its last byte does not fit.
 *
 * After iopt_alloc_iova and __alloc_iova_check_range of drivers/iommu/iommufd/io_pagetable.c.
 */
import { Errno } from '../base/errno.ts';
import {
  MAX_ADDRESS,
  PAGE_BYTES,
  firstOf,
  hex,
  lastOf,
  offsetOf,
  pageOf,
  spanOf,
} from '../base/position.ts';
import type { RangeMap, Span } from '../base/range-map.ts';
import type { Reservations } from './reservations.ts';

const PAGE = BigInt(PAGE_BYTES);
/** HPAGE_SIZE of x86-64 with transparent huge pages. */
const HUGE_PAGE = 2n ** 21n;

type Space = {
  readonly areas: RangeMap<Span>;
  readonly reserved: Reservations;
  /** ascending, disjoint; empty for everything */
  readonly allowed: readonly Span[];
  /** iova_alignment */
  readonly alignment: number;
};

type Request = { readonly length: bigint; readonly alignment: bigint; readonly pageOffset: bigint };

/**
 * A free range for `length` bytes whose source starts at `address`.
 * @returns its first IOVA; throws EOVERFLOW, EINVAL (source less aligned than the IOAS needs), ENOSPC
 */
export function allocIova(space: Space, address: bigint, length: bigint): bigint {
  if (length === 0n || length >= MAX_ADDRESS / 2n) {
    throw new Errno(
      'EOVERFLOW',
      `no IOVA is chosen for ${hex(length)} bytes, the length is too large`,
    );
  }
  const natural = roundUpToPowerOfTwo(length);
  const kept = address === 0n ? natural : min(natural, address & -address);
  const alignment = min(kept, HUGE_PAGE);
  if (alignment < BigInt(space.alignment)) {
    throw new Errno(
      'EINVAL',
      `the source address ${hex(address)} is aligned to ${hex(alignment)} bytes, this IOAS needs ${hex(space.alignment)}`,
    );
  }
  const request = { length, alignment, pageOffset: address % PAGE };
  for (const range of windows(space.allowed)) {
    const start = fit(range.first, range.last, request);
    if (start === undefined) continue;
    const found = searchHoles(space, { first: start, last: range.last }, request);
    if (found !== undefined) return found;
  }
  throw new Errno(
    'ENOSPC',
    `no free range of ${hex(length)} bytes with alignment ${hex(alignment)} is left`,
  );
}

type Range = { readonly first: bigint; readonly last: bigint };

function windows(allowed: readonly Span[]): Range[] {
  const first = PAGE;
  const last = MAX_ADDRESS - PAGE;
  if (allowed.length === 0) return [{ first, last }];
  return joined(allowed)
    .map((range) => ({ first: max(range.first, first), last: min(range.last, last) }))
    .filter((range) => range.first <= range.last);
}

/** Ranges without a gap between them count as one (interval_tree_span_iter). */
function joined(spans: readonly Span[]): Range[] {
  const ranges: Range[] = [];
  for (const span of spans) {
    const previous = ranges.at(-1);
    if (previous === undefined || previous.last + 1n !== firstOf(span)) {
      ranges.push({ first: firstOf(span), last: lastOf(span) });
    } else {
      ranges[ranges.length - 1] = { first: previous.first, last: lastOf(span) };
    }
  }
  return ranges;
}

/** The aligned start within [first, last] if the request fits there (__alloc_iova_check_range). */
function fit(first: bigint, last: bigint, request: Request): bigint | undefined {
  const { length, alignment, pageOffset } = request;
  const raised = first + alignment - 1n;
  if (raised > MAX_ADDRESS) return undefined;
  const start = (raised & -alignment) | pageOffset;
  return start >= last || last - start < length - 1n ? undefined : start;
}

function searchHoles(space: Space, range: Range, request: Request): bigint | undefined {
  let at = range.first;
  while (at <= range.last) {
    const used = nextUsed(space, at, request);
    const end = used === undefined ? range.last : min(used.first - 1n, range.last);
    if (at <= end) {
      const start = fit(at, end, request);
      if (start !== undefined) return start;
    }
    if (used === undefined) return undefined;
    at = used.last + 1n;
  }
  return undefined;
}

/**
 * The next range at or after `at` that is taken. Areas with too little room before them are skipped in one step, as one
 * range from `at` to the end of the last of them, so that a million of them cost no walk.
 */
function nextUsed(space: Space, at: bigint, request: Request): Range | undefined {
  const reserved = nextReserved(space.reserved, at);
  const area = nextArea(space.areas, at, request);
  if (area === undefined) return reserved;
  if (reserved === undefined) return area;
  return area.first <= reserved.first ? area : reserved;
}

function nextReserved(reserved: Reservations, at: bigint): Range | undefined {
  const found = reserved.firstOverlap(spanOf(at, MAX_ADDRESS));
  return found && { first: firstOf(found.span), last: lastOf(found.span) };
}

function nextArea(areas: RangeMap<Span>, at: bigint, request: Request): Range | undefined {
  const next = areas.ceiling(pageOf(at), offsetOf(at));
  if (next === undefined) return undefined;
  if (firstOf(next) > at) return { first: firstOf(next), last: lastOf(next) };
  const roomy = areas.nextWideGap(next.lastPage, Number(request.length / PAGE));
  const previous =
    roomy === undefined ? areas.floor(pageOf(MAX_ADDRESS), 4095) : areas.before(roomy);
  const end = previous === undefined || lastOf(previous) < lastOf(next) ? next : previous;
  return { first: firstOf(next), last: lastOf(end) };
}

function roundUpToPowerOfTwo(value: bigint): bigint {
  return 1n << BigInt((value - 1n).toString(2).length - (value === 1n ? 1 : 0));
}

function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

function max(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}
