/**
 * What Linux does with the registers of functions that it finds on a running system: each gets the first place that is free in
 * a window of its bus, whatever address the register had. The largest alignment of a bus goes first.
 *
 * Not here: windows that are too small are not moved, and what fits nowhere stays without a place.
 *
 * After drivers/pci/setup-bus.c (pci_assign_unassigned_bus_resources, pdev_sort_resources), drivers/pci/setup-res.c
 * (__pci_assign_resource), drivers/pci/bus.c (pci_bus_alloc_resource) and arch/x86/pci/i386.c (pcibios_align_resource).
 */
import { ROOT_WINDOWS } from './address-map.ts';
import { RESOURCE, RESOURCE_FLAGS, resourceSize, type Resource } from './bar.ts';
import type { PciBus, PciDevice } from './device.ts';

const FIRST_PORT = 0x1000n;
const FIRST_MEMORY = 0x1000_0000n;
const ISA_CARDS_END = 0x10_0000n;
const FOUR_GIB = 1n << 32n;
/** ports whose bits 8 or 9 are set may be aliases of ISA cards' */
const ISA_ALIASES = 0x300n;
const ISA_STEP = 0x400n;

const { IO, MEMORY, MEMORY_64, PREFETCH } = RESOURCE_FLAGS;
const CLASS_HOST_BRIDGE = 0x0600;

type Wanted = {
  readonly pci: PciDevice;
  readonly index: number;
  readonly resource: Resource;
  readonly size: bigint;
};

/** @param found functions that have just been found, with what was read from their registers */
export function placeResources(found: readonly PciDevice[]): void {
  for (const bus of new Set(found.map((pci) => pci.bus))) {
    const wanted = found.filter((pci) => pci.bus === bus).flatMap(wantedBy);
    const placing = new Set(wanted.map(({ pci, index }) => key(pci, index)));
    for (const { pci, index, resource, size } of inOrder(wanted)) {
      const taken = occupied(bus).filter(
        ({ pci: owner, index: at }) => !placing.has(key(owner, at)),
      );
      const start = findPlace(
        bus,
        { ...resource, size },
        taken.map((each) => each.resource),
      );
      pci.moveResource(index, start);
      placing.delete(key(pci, index));
    }
  }
}

function key(pci: PciDevice, index: number): string {
  return `${pci.name} ${index}`;
}

function wantedBy(pci: PciDevice): Wanted[] {
  if (pci.classCode >> 8 === CLASS_HOST_BRIDGE) return [];
  return pci.resources
    .slice(0, RESOURCE.IOV)
    .map((resource, index) => ({ pci, index, resource, size: resourceSize(resource) }))
    .filter(({ size }) => size > 0n);
}

// Stable: equal alignments stay in the order of functions and registers.
function inOrder(wanted: readonly Wanted[]): Wanted[] {
  return [...wanted].sort((a, b) => Number(b.size > a.size) - Number(b.size < a.size));
}

type Owned = { readonly pci: PciDevice; readonly index: number; readonly resource: Resource };

/** What functions of a bus have, the windows of its bridges included. */
function occupied(bus: PciBus): Owned[] {
  return [...bus.devices.values()].flatMap((pci) =>
    pci.resources
      .map((resource, index) => ({ pci, index, resource }))
      .filter(({ resource: { flags } }) => flags !== 0 && (flags & RESOURCE_FLAGS.UNSET) === 0),
  );
}

type Size = Resource & { readonly size: bigint };

/** The exact kind of window first, then ever less exact ones. */
function findPlace(bus: PciBus, wanted: Size, taken: readonly Resource[]): bigint | undefined {
  const both = PREFETCH | MEMORY_64;
  const masks = [both];
  if ((wanted.flags & both) === both) masks.push(PREFETCH);
  if ((wanted.flags & both) !== 0) masks.push(0);
  for (const mask of masks) {
    const windows = windowsOf(bus).filter((window) => suits(window, wanted, mask));
    const high =
      (wanted.flags & MEMORY_64) === 0 ? [] : windows.filter(({ last }) => last >= FOUR_GIB);
    const low = windows.filter(({ start }) => start < FOUR_GIB);
    for (const window of [...high, ...low]) {
      const start = firstFit(window, wanted, taken);
      if (start !== undefined) return start;
    }
  }
  return undefined;
}

function windowsOf({ self }: PciBus): readonly Resource[] {
  return self === undefined
    ? ROOT_WINDOWS
    : self.resources.slice(RESOURCE.WINDOWS).filter(({ flags }) => flags !== 0);
}

function suits({ flags }: Resource, wanted: Resource, mask: number): boolean {
  if (((flags ^ wanted.flags) & (mask | IO | MEMORY)) !== 0) return false;
  return (flags & PREFETCH) === 0 || (wanted.flags & PREFETCH) !== 0;
}

function firstFit(
  window: Resource,
  { size, flags }: Size,
  taken: readonly Resource[],
): bigint | undefined {
  const isPort = (flags & IO) !== 0;
  const least = window.start > 0n ? window.start : isPort ? FIRST_PORT : FIRST_MEMORY;
  const others = taken.filter((each) => ((each.flags ^ flags) & (IO | MEMORY)) === 0);
  for (let at = least; ;) {
    at = adjusted(alignUp(at, size), isPort);
    const last = at + size - 1n;
    if (last > window.last) return undefined;
    const start = at;
    const conflict = others.find((each) => each.start <= last && each.last >= start);
    if (conflict === undefined) return start;
    at = conflict.last + 1n;
  }
}

function alignUp(value: bigint, alignment: bigint): bigint {
  return ((value + alignment - 1n) / alignment) * alignment;
}

function adjusted(start: bigint, isPort: boolean): bigint {
  if (!isPort) return start < ISA_CARDS_END ? ISA_CARDS_END : start;
  return (start & ISA_ALIASES) === 0n ? start : alignUp(start, ISA_STEP);
}
