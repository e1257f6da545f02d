/**
 * What must be true of a machine's iommufd between any two calls, for `--check`, tests and the model: each rule is stated
 * once and looked at over the whole state. A violation is a bug of uiommu, never of a client.
 *
 * Rules: docs/objects.md (edges), io-pagetable.ts, pages.ts and S23 of the behaviour that this follows.
 */
import { firstOf, isBefore, lastOf, overlaps, showSpan } from '../base/position.ts';
import type { Span } from '../base/range-map.ts';
import { isClaimed } from '../iommu/ownership.ts';
import { verifyGroup } from '../iommu/verify-group.ts';
import { Access } from './access.ts';
import type { Area } from './area.ts';
import type { Context } from './context.ts';
import { IommufdDevice } from './device.ts';
import { EventQueue } from './eventq.ts';
import type { HwPagetable } from './hw-pagetable.ts';
import { HwptNested, HwptPaging } from './hw-pagetable.ts';
import { HwQueue } from './hw-queue.ts';
import type { IoPagetable } from './io-pagetable.ts';
import { Ioas } from './ioas.ts';
import type { Iommufd } from './iommufd.ts';
import type { IommufdObject } from './object.ts';
import type { Pages } from '../pinning/pages.ts';
import { Vdevice } from './vdevice.ts';
import { Veventq } from './veventq.ts';
import { Viommu } from './viommu.ts';

/** @returns one line per violated rule; empty if all is well */
export function violations(iommufd: Iommufd): string[] {
  const found: string[] = [];
  const uses = new Map<Pages, Area[]>();
  for (const context of iommufd.contexts) {
    checkUsers(context, found);
    checkOwnership(context, found);
    for (const object of context.objects.live()) {
      if (!(object instanceof Ioas)) continue;
      checkIopt(object.iopt, String(object), found);
      for (const area of object.iopt.areas)
        uses.set(area.pages, [...(uses.get(area.pages) ?? []), area]);
    }
  }
  for (const [pages, areas] of uses) checkPages(pages, areas, found);
  found.push(...iommufd.environment.groups.list().flatMap((group) => verifyGroup(group) ?? []));
  return found;
}

/** Throws Error with all violations, if there are any. */
export function assertInvariants(iommufd: Iommufd): void {
  const found = violations(iommufd);
  if (found.length > 0) throw new Error(`invariants broken:\n  ${found.join('\n  ')}`);
}

/** Users equal the edges of the object graph, plus one for the table. */
function checkUsers(context: Context, found: string[]): void {
  const objects = context.objects.live();
  const edges = new Map<IommufdObject, number>(objects.map((object) => [object, 1]));
  for (const object of objects) {
    for (const held of heldBy(object)) edges.set(held, (edges.get(held) ?? 0) + 1);
  }
  for (const object of objects) {
    const expected = edges.get(object) ?? 0;
    // Mappings of a vIOMMU's window are known to the supervisor alone.
    const windows = object instanceof Viommu ? object.context.windows.mappedBy(object) : 0;
    if (object.users !== expected + windows) {
      found.push(
        `${String(object)} of ${context.name} has ${object.users} users, ${expected + windows} edges point at it`,
      );
    }
  }
}

/** The objects that one object holds, each as often as it holds it, itself included where its maker does. */
function heldBy(object: IommufdObject): IommufdObject[] {
  if (object instanceof HwptPaging) return [object.ioas, ...faultOf(object)];
  if (object instanceof HwptNested) return [object.viommu ?? object.parent, ...faultOf(object)];
  if (object instanceof IommufdDevice) return heldByDevice(object);
  if (object instanceof Access) return [object, ...(object.ioas ? [object.ioas] : [])];
  if (object instanceof Viommu) return [object.hwpt];
  if (object instanceof Vdevice) return [object.viommu];
  if (object instanceof HwQueue)
    return [object.viommu, ...(object.dependsOn ? [object.dependsOn] : [])];
  if (object instanceof EventQueue) return heldByQueue(object);
  return [];
}

function faultOf({ fault }: HwPagetable): IommufdObject[] {
  return fault === undefined ? [] : [fault];
}

/** Each attachment holds the device (its driver must not unbind) and the HWPT. */
function heldByDevice(device: IommufdDevice): IommufdObject[] {
  const attached = [...device.attachments.values()].filter(({ devices }) => devices.has(device.id));
  return [device, ...attached.flatMap(({ hwpt }) => [device, hwpt])];
}

function heldByQueue(queue: EventQueue): IommufdObject[] {
  const viommu = queue instanceof Veventq ? [queue.viommu] : [];
  return queue.isOpen ? [queue, ...viommu] : viommu;
}

/** A bound device's group is owned by the context, and reaches what the context attached it to, or nothing. */
function checkOwnership(context: Context, found: string[]): void {
  for (const device of context.objects.live()) {
    if (!(device instanceof IommufdDevice)) continue;
    const { iommu } = device;
    const group = iommu.requireGroup();
    if (!isClaimed(group) || group.owner !== context) {
      found.push(
        `group ${group.id} of ${iommu.name} is not owned by ${context.name}, to which it is bound`,
      );
    }
    const attached = device.attachments.get(0);
    const expected = attached?.hwpt.domain ?? group.blockingDomain;
    if (device.isAttached(0) && iommu.attached !== expected) {
      found.push(
        `${iommu.name} is on ${iommu.attached?.name ?? 'no domain'}, not on ${expected?.name ?? 'none'}`,
      );
    }
  }
}

function checkIopt(iopt: IoPagetable, name: string, found: string[]): void {
  const areas = [...iopt.areas];
  disjoint(areas, `areas of ${name}`, found);
  disjoint(iopt.allowed, `allowed ranges of ${name}`, found);
  for (const { span, why } of iopt.reserved.all) {
    const area = iopt.firstArea(span);
    if (area !== undefined) found.push(`${name}: ${String(area)} lies in what ${why} reserves`);
    const allowed = iopt.allowed.find((range) => overlaps(range, span));
    if (allowed !== undefined)
      found.push(`${name}: allowed ${showSpan(allowed)} lies in what ${why} reserves`);
  }
  for (const area of areas) {
    for (const { minPageSize, name: domain } of iopt.domains) {
      if (!area.isAligned(minPageSize))
        found.push(`${name}: ${String(area)} is not aligned to ${minPageSize}, for ${domain}`);
    }
    if (area.filled !== iopt.domains.length > 0) {
      found.push(
        `${name}: ${String(area)} is ${area.filled ? '' : 'not '}filled with ${iopt.domains.length} domains`,
      );
    }
  }
  for (const domain of iopt.domains)
    checkDomain(areas, domain.table, `${name}, ${domain.name}`, found);
}

/** A domain shows exactly what the areas stand for, byte for byte at the ends of every piece. */
function checkDomain(
  areas: readonly Area[],
  table: { translate(page: number, offset: number): number; spans(): Iterable<Span> },
  name: string,
  found: string[],
): void {
  const shown = [...table.spans()];
  disjoint(shown, `extents of ${name}`, found);
  const covered = shown.reduce((sum, span) => sum + lastOf(span) - firstOf(span) + 1n, 0n);
  const wanted = areas
    .filter(({ pages }) => !pages.isRevoked)
    .reduce((sum, area) => sum + lastOf(area) - firstOf(area) + 1n, 0n);
  if (covered !== wanted) found.push(`${name} maps ${covered} bytes, the areas have ${wanted}`);
  for (const area of areas) {
    if (area.pages.isRevoked) continue;
    const ends = [
      table.translate(area.firstPage, area.firstOffset),
      table.translate(area.lastPage, area.lastOffset),
    ];
    if (ends.includes(-1)) found.push(`${name} does not map the ends of ${String(area)}`);
  }
}

/** Every pin has an owner: a filled area over the page, or an access; and the payer was charged for each page once. */
function checkPages(pages: Pages, areas: readonly Area[], found: string[]): void {
  const name = `pages of ${areas.map(String).join(', ')}`;
  if (pages.users !== areas.length) found.push(`${name} have ${pages.users} users`);
  let pinned = 0;
  for (const { first, last, users } of pages.pinnedRanges) {
    pinned += last - first + 1;
    const fills = areas.filter(
      (area) => area.holdsPages && area.firstIndex <= first && last <= area.lastIndex,
    ).length;
    const accesses = areas.reduce((sum, area) => sum + area.accesses, 0);
    if (users < fills || users > fills + accesses) {
      found.push(
        `${name}: ${users} users of indexes ${first} to ${last}, ${fills} filled areas and ${accesses} accesses`,
      );
    }
  }
  if (!pages.isDmaBuf && pinned !== pages.pinned)
    found.push(`${name}: ${pinned} pinned, ${pages.pinned} charged`);
}

function disjoint(spans: readonly Span[], name: string, found: string[]): void {
  spans.forEach((span, i) => {
    const previous = spans[i - 1];
    if (previous === undefined || isBefore(previous, span)) return;
    found.push(`${name}: ${showSpan(previous)} and ${showSpan(span)} overlap or are out of order`);
  });
}
