/**
 * A picture of everything that a machine's iommufd keeps, as plain data: what a call that fails must leave as it was. Two
 * states that no client and no device can tell apart have the same picture: neighbouring pins with the same users count as
 * one, and so do extents that continue each other.
 */
import { firstOf, hex, lastOf, showSpan } from '../base/position.ts';
import { Access } from '../iommufd/access.ts';
import type { Context } from '../iommufd/context.ts';
import { IommufdDevice } from '../iommufd/device.ts';
import { EventQueue } from '../iommufd/eventq.ts';
import { HwPagetable, HwptNested, HwptPaging } from '../iommufd/hw-pagetable.ts';
import { HwQueue } from '../iommufd/hw-queue.ts';
import type { IoPagetable } from '../iommufd/io-pagetable.ts';
import { Ioas } from '../iommufd/ioas.ts';
import type { IommufdObject } from '../iommufd/object.ts';
import type { Pages } from '../pinning/pages.ts';
import { Viommu } from '../iommufd/viommu.ts';
import type { PagingDomain } from '../iommu/paging-domain.ts';
import type { Lab } from './lab.ts';

type Picture = Readonly<Record<string, unknown>>;

/** Names things that have none, in the order in which they are met. */
class Names {
  readonly #names = new Map<object, string>();
  readonly all: Pages[] = [];

  of(pages: Pages): string {
    const known = this.#names.get(pages);
    if (known !== undefined) return known;
    const name = `pages ${this.#names.size}`;
    this.#names.set(pages, name);
    this.all.push(pages);
    return name;
  }
}

export function snapshot(lab: Lab): Picture {
  const names = new Names();
  const { iommufd, clients } = lab;
  const { accounting, mock } = iommufd.environment;
  const contexts = iommufd.contexts.map((context) => contextPicture(context, names));
  return {
    contexts,
    pages: names.all.map((pages) => pagesPicture(pages, names)),
    devices: mock?.deviceCount,
    clients: clients.map(({ memory, uid, descriptors }) => ({
      descriptors,
      locked: [accounting.lockedBy(uid), memory.lockedPages, memory.pinnedPages],
    })),
  };
}

function contextPicture(context: Context, names: Names): Picture {
  const { objects, groups, accountMode, vfioIoas, noIommuMode } = context;
  return {
    name: context.name,
    accountMode,
    noIommuMode,
    vfioIoas: vfioIoas?.id,
    objects: objects.live().map((object) => ({
      name: String(object),
      users: object.users,
      ...objectPicture(object, names),
    })),
    groups: [...groups.values()].map(({ group, attached }) => ({
      id: group.id,
      owned: group.owner === context,
      attached: [...attached].map(([pasid, { hwpt, devices }]) => ({
        pasid,
        hwpt: String(hwpt),
        devices: [...devices.keys()],
      })),
    })),
  };
}

function objectPicture(object: IommufdObject, names: Names): Picture {
  if (object instanceof Ioas) return ioptPicture(object, names);
  if (object instanceof HwPagetable) return hwptPicture(object);
  if (object instanceof IommufdDevice) {
    const { iommu, vdevice } = object;
    const handles = [...iommu.requireGroup().subgroupOf(iommu).pasidArray];
    return {
      on: iommu.attached?.name,
      vdevice: vdevice?.id,
      handles: handles.map(([pasid, { domain }]) => [pasid, domain.name]),
    };
  }
  if (object instanceof Access) return { ioas: object.ioas?.id };
  if (object instanceof Viommu) {
    const { vdevices, veventqs } = object;
    return {
      vdevices: [...vdevices].map(([id, vdevice]) => [hex(id), vdevice.id]),
      veventqs: veventqs.map(({ id }) => id),
      mapped: object.context.windows.mappedBy(object),
    };
  }
  if (object instanceof EventQueue) return { open: object.isOpen, readable: object.isReadable };
  if (object instanceof HwQueue) return { dependsOn: object.dependsOn?.id };
  return {};
}

function hwptPicture(hwpt: HwPagetable): Picture {
  const { fault, pasidCompatible } = hwpt;
  const common = { fault: fault?.id, pasidCompatible, domain: hwpt.domain.name };
  if (hwpt instanceof HwptPaging) return { ...common, automatic: hwpt.automatic };
  return hwpt instanceof HwptNested ? { ...common, on: hwpt.viommu?.id ?? hwpt.parent.id } : common;
}

function ioptPicture({ iopt, hwpts }: Ioas, names: Names): Picture {
  const { areas, reserved, allowed, alignment, largePagesOff, domains, accesses } = iopt;
  return {
    hwpts: hwpts.map(({ id }) => id),
    areas: [...areas].map((area) => ({
      span: showSpan(area),
      prot: area.prot,
      from: [area.firstIndex, area.pageOffset],
      pages: names.of(area.pages),
      filled: area.filled,
      accesses: area.accesses,
      locks: area.locks,
      preventAccess: area.preventAccess,
    })),
    reserved: reserved.all.map(({ span, why }) => `${showSpan(span)} ${why}`),
    allowed: allowed.map(showSpan),
    alignment,
    largePagesOff,
    accesses: accesses.size,
    domains: domains.map((domain) => domainPicture(domain, iopt)),
  };
}

/** Where each area begins and ends in physical memory, and what the table holds in all. */
function domainPicture({ name, table }: PagingDomain, { areas }: IoPagetable): Picture {
  let bytes = 0n;
  for (const span of table.spans()) bytes += lastOf(span) - firstOf(span) + 1n;
  return {
    name,
    bytes,
    ends: [...areas].map((area) => [
      table.translate(area.firstPage, area.firstOffset),
      table.translate(area.lastPage, area.lastOffset),
    ]),
  };
}

function pagesPicture(pages: Pages, names: Names): Picture {
  const pins: { first: number; last: number; users: number }[] = [];
  for (const { first, last, users } of pages.pinnedRanges) {
    const previous = pins.at(-1);
    if (previous?.users === users && previous.last + 1 === first) previous.last = last;
    else pins.push({ first, last, users });
  }
  return {
    name: names.of(pages),
    source: pages.source.kind,
    users: pages.users,
    pinned: pages.pinned,
    payer: [pages.payer.mode, pages.payer.uid],
    revoked: pages.isRevoked,
    pins,
  };
}
