/**
 * What the plain model consists of: objects as plain data, the machine, and what all rules need (see plain-model.ts).
 */
import type { ErrnoCode } from '../../src/base/errno.ts';

export const PAGE = 4096n;
export const MAX = 2n ** 64n - 1n;
export const HUGE = 2n ** 21n;
export const APERTURE = { first: 0x100_0000n, last: 0x7fff_ffffn };
export const MOCK_GRANULE = 2048n;
/** A process has pages it can write, then pages it can only read, then nothing. */
export const WRITABLE_PAGES = 16n;
export const READ_ONLY_PAGES = 4n;
/** Address of the first of them. */
export const MEMORY = 0x4000_0000n;

export class Refused extends Error {
  readonly code: ErrnoCode;
  constructor(code: ErrnoCode) {
    super(code);
    this.code = code;
  }
}

export function refuse(code: ErrnoCode, when: boolean): void {
  if (when) throw new Refused(code);
}

export type Range = { readonly first: bigint; readonly last: bigint };

export type PlainProcess = {
  readonly uid: number;
  /** pages it may have locked; undefined: nobody counts */
  readonly limit: number | undefined;
  alive: boolean;
};

/** Memory that was given by one call: `address` is the first byte, of `process`. */
export type PageSet = {
  readonly process: PlainProcess;
  readonly address: bigint;
  readonly writable: boolean;
};

/** `from` is the address of the first byte in the memory of the set's process. */
export type PlainArea = Range & {
  readonly set: PageSet;
  readonly from: bigint;
  readonly read: boolean;
  readonly write: boolean;
};

export type Held = { readonly area: PlainArea; readonly first: bigint; readonly last: bigint };
export type Item = {
  readonly number: number;
  readonly range: Range;
  readonly held: readonly Held[];
};

export type PlainIoas = {
  readonly kind: 'IOAS';
  areas: PlainArea[];
  reserved: (Range & { readonly owner: object | undefined })[];
  allowed: Range[];
  smallPages: boolean;
};
export type PlainHwpt = {
  readonly kind: 'HWPT_PAGING';
  readonly ioas: PlainIoas;
  automatic: boolean;
  readonly nestParent: boolean;
  readonly fault: PlainFault | undefined;
};
export type PlainNested = {
  readonly kind: 'HWPT_NESTED';
  readonly parent: PlainHwpt;
  readonly viommu: PlainViommu | undefined;
};
export type PlainTest = { readonly kind: 'SELFTEST'; readonly device: PlainDevice };
export type PlainDevice = { readonly kind: 'DEVICE'; hwpt: PlainHwpt | PlainNested };
export type PlainFault = { readonly kind: 'FAULT'; open: boolean };
export type PlainViommu = {
  readonly kind: 'VIOMMU';
  readonly hwpt: PlainHwpt;
  /** by index, what the mock driver believes to be there: a queue that goes empties the first, whichever it was */
  readonly queues: (PlainQueue | undefined)[];
};
export type PlainVdevice = {
  readonly kind: 'VDEVICE';
  readonly viommu: PlainViommu;
  readonly device: PlainDevice;
  readonly virtId: bigint;
};
export type PlainVeventq = {
  readonly kind: 'VEVENTQ';
  readonly viommu: PlainViommu;
  open: boolean;
};
export type PlainAccess = {
  readonly kind: 'ACCESS';
  ioas: PlainIoas;
  readonly pins: boolean;
  readonly internal: boolean;
  items: Item[];
  nextItem: number;
};
export type PlainQueue = {
  readonly kind: 'HW_QUEUE';
  readonly viommu: PlainViommu;
  /** it depends on that one */
  readonly previous: PlainQueue | undefined;
  readonly access: PlainAccess;
};
export type PlainObject =
  | PlainIoas
  | PlainHwpt
  | PlainNested
  | PlainTest
  | PlainDevice
  | PlainFault
  | PlainViommu
  | PlainVdevice
  | PlainVeventq
  | PlainAccess
  | PlainQueue;
export type Kind = PlainObject['kind'];
export type OfKind<K extends Kind> = Extract<PlainObject, { readonly kind: K }>;

/** Ascending, and ranges without a gap between them as one. */
export function joined(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => (a.first < b.first ? -1 : 1));
  const startsOne = ({ first }: Range): boolean => !ranges.some(({ last }) => last + 1n === first);
  const starts = sorted.filter(startsOne).map(({ first }) => first);
  return starts.map((first, i) => {
    const next = starts[i + 1];
    const last = sorted.filter((range) => next === undefined || range.first < next).at(-1)?.last;
    return { first, last: last ?? first };
  });
}

export function overlap(a: Range, b: Range): boolean {
  return a.first <= b.last && b.first <= a.last;
}

export function isMultiple(value: bigint, of: bigint): boolean {
  return value % of === 0n;
}

function pagesOf(first: bigint, last: bigint): bigint[] {
  const pages: bigint[] = [];
  for (let page = first / PAGE; page <= last / PAGE; page++) pages.push(page);
  return pages;
}

/** The part of an area within [first, last], and the pages behind it. */
export function pagesBehind(area: PlainArea, { first, last }: Range): bigint[] {
  const from = first > area.first ? first : area.first;
  const to = last < area.last ? last : area.last;
  return pagesOf(area.from + (from - area.first), area.from + (to - area.first));
}
