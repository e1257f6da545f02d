/**
 * What firmware does before Linux starts: gives every base address register a place, and every bridge windows around those of
 * the functions behind it. Registers that have an address already keep it, and so do the windows above them.
 *
 * Windows get room to spare as long as there is room for that (2 MiB of memory, 4 KiB of ports behind every bridge), so that
 * something can be plugged in later; on big machines they are as large as needed. Prefetchable 64-bit registers move above
 * 4 GiB if everything does not fit below. What fits nowhere stays at 0.
 *
 * Invariants: a range is a multiple of its size, inside the window of each bridge above it, and overlaps no other.
 *
 * After PCI-to-PCI Bridge Architecture 1.2 section 3.2.5; the order (largest alignment first, below the I/O APIC) is that of
 * common PC firmware.
 */
import { MEMORY_WINDOWS } from './address-map.ts';
import {
  barAddress,
  barCount,
  setBarAddress,
  setVfBarAddress,
  type Bar,
  type Resource,
} from './bar.ts';
import { HEADER_BRIDGE, REGISTER } from './config-space.ts';
import type { PciBus, PciDevice } from './device.ts';
import { sriovState } from './sriov.ts';

type Space = 'io' | 'memory' | 'prefetch';
const SPACES: readonly Space[] = ['io', 'memory', 'prefetch'];

const GRANULE: Readonly<Record<Space, bigint>> = {
  io: 0x1000n,
  memory: 0x10_0000n,
  prefetch: 0x10_0000n,
};
const SPARE: Readonly<Record<Space, bigint>> = {
  io: 0x1000n,
  memory: 0x20_0000n,
  prefetch: 0x20_0000n,
};

type Region = Pick<Resource, 'start' | 'last'>;

/** Each kind has a region of its own; ports below 0x1000 are the computer's. */
const REGIONS: Readonly<Record<Space, Region>> = {
  io: { start: 0x1000n, last: 0xffffn },
  memory: MEMORY_WINDOWS.middle,
  prefetch: MEMORY_WINDOWS.low,
};
const FOUR_GIB = 1n << 32n;

/** Something that wants a place: a register, or a bridge with what is behind it. */
type Request = {
  readonly size: bigint;
  readonly alignment: bigint;
  /** all of it may lie above 4 GiB */
  readonly wide: boolean;
  place(start: bigint): void;
};

type Pass = { readonly spare: boolean; readonly high: boolean };

/** From the most comfortable to the one that saves most. */
const PASSES: readonly Pass[] = [
  { spare: true, high: false },
  { spare: true, high: true },
  { spare: false, high: true },
];

/** Gives every function of the machine its addresses; nothing happens if one has an address already. */
export function assignAddresses(buses: Iterable<PciBus>): void {
  const roots = [...buses].filter(({ isRoot }) => isRoot);
  if (roots.some((root) => [...everything(root)].some(isPlaced))) return;
  for (const space of SPACES) {
    const pass = PASSES.find((each) => fits(space, requests(roots, space, each), each));
    const last = PASSES.at(-1) ?? { spare: false, high: true };
    place(space, requests(roots, space, pass ?? last), pass ?? last);
  }
}

function* everything(bus: PciBus): Generator<PciDevice> {
  for (const device of bus.devices.values()) {
    yield device;
    if (device.subordinate !== undefined) yield* everything(device.subordinate);
  }
}

function isPlaced(device: PciDevice): boolean {
  const { config } = device;
  const windowed =
    config.headerType === HEADER_BRIDGE &&
    [REGISTER.MEMORY_BASE, REGISTER.PREFETCH_BASE, REGISTER.IO_BASE].some(
      (offset) => config.u16(offset) !== 0,
    );
  return windowed || barsOf(device).some((bar) => barAddress(config, bar) !== 0n);
}

function barsOf({ config, facts }: PciDevice): Bar[] {
  return (facts.bars ?? []).filter(({ index }) => index < barCount(config));
}

function spaceOf({ kind, prefetchable }: Bar): Space {
  if (kind === 'io') return 'io';
  return prefetchable ? 'prefetch' : 'memory';
}

function requests(roots: readonly PciBus[], space: Space, pass: Pass): Request[] {
  return roots.flatMap((root) => onBus(root, space, pass));
}

function onBus(bus: PciBus, space: Space, pass: Pass): Request[] {
  return [...bus.devices.values()].flatMap((device) => [
    ...barsOf(device)
      .filter((bar) => spaceOf(bar) === space)
      .map((bar) => barRequest(device, bar)),
    ...(device.facts.vfBars ?? [])
      .filter((bar) => spaceOf(bar) === space)
      .map((bar) => vfBarRequest(device, bar)),
    ...(device.subordinate === undefined || device.config.headerType !== HEADER_BRIDGE
      ? []
      : [bridgeRequest(device, device.subordinate, { space, pass })]),
  ]);
}

function barRequest({ config }: PciDevice, bar: Bar): Request {
  return {
    size: bar.size,
    alignment: bar.size,
    wide: bar.kind === 'memory64',
    place: (start) => {
      setBarAddress(config, bar, start);
    },
  };
}

/** Room for all virtual functions that there can be. */
function vfBarRequest(device: PciDevice, bar: Bar): Request {
  const total = BigInt(Math.max(1, sriovState(device).total));
  return {
    size: bar.size * total,
    alignment: bar.size,
    wide: bar.kind === 'memory64',
    place: (start) => {
      setVfBarAddress(device.config, bar, start);
    },
  };
}

function bridgeRequest(
  bridge: PciDevice,
  behind: PciBus,
  { space, pass }: { readonly space: Space; readonly pass: Pass },
): Request {
  const inside = inOrder(onBus(behind, space, pass));
  const used = inside.reduce((end, request) => alignUp(end, request.alignment) + request.size, 0n);
  const wanted = pass.spare && used < SPARE[space] ? SPARE[space] : used;
  const size = alignUp(wanted, GRANULE[space]);
  const alignment = inside.reduce(
    (most, request) => (request.alignment > most ? request.alignment : most),
    GRANULE[space],
  );
  return {
    size,
    alignment,
    wide: inside.every((request) => request.wide),
    place: (start) => {
      setWindow(bridge, space, size === 0n ? undefined : { start, last: start + size - 1n });
      let next = start;
      for (const request of inside) {
        next = alignUp(next, request.alignment);
        request.place(next);
        next += request.size;
      }
    },
  };
}

function alignUp(value: bigint, alignment: bigint): bigint {
  return ((value + alignment - 1n) / alignment) * alignment;
}

// Largest alignment first leaves no holes; equal ones stay in the order of their functions.
function inOrder(wanted: readonly Request[]): Request[] {
  return [...wanted].sort(
    (a, b) => Number(b.alignment > a.alignment) - Number(b.alignment < a.alignment),
  );
}

function split(space: Space, wanted: readonly Request[], { high }: Pass): [Request[], Request[]] {
  const up = (request: Request): boolean => high && space === 'prefetch' && request.wide;
  return [wanted.filter((each) => !up(each)), wanted.filter(up)];
}

function total(wanted: readonly Request[]): bigint {
  return inOrder(wanted).reduce((end, each) => alignUp(end, each.alignment) + each.size, 0n);
}

function fits(space: Space, wanted: readonly Request[], pass: Pass): boolean {
  const { start, last } = REGIONS[space];
  const [low] = split(space, wanted, pass);
  return total(low) <= last - start + 1n;
}

function place(space: Space, wanted: readonly Request[], pass: Pass): void {
  const [low, high] = split(space, wanted, pass);
  fill(REGIONS[space], low);
  fill(MEMORY_WINDOWS.high, high);
}

function fill({ start, last }: Region, wanted: readonly Request[]): void {
  let next = start;
  for (const request of inOrder(wanted)) {
    const at = alignUp(next, request.alignment);
    if (at + request.size - 1n > last) continue;
    request.place(at);
    next = at + request.size;
  }
}

const TYPE_64 = 1;

/** @param window undefined switches it off: its base is above its limit */
function setWindow({ config }: PciDevice, space: Space, window: Region | undefined): void {
  const start = window?.start ?? GRANULE[space];
  const last = window === undefined ? 0n : window.last + 1n - GRANULE[space];
  if (space === 'io') {
    config.setU8(REGISTER.IO_BASE, Number((start >> 8n) & 0xf0n));
    config.setU8(REGISTER.IO_LIMIT, Number((last >> 8n) & 0xf0n));
    return;
  }
  const high = (value: bigint): number => Number((value >> 16n) & 0xfff0n);
  if (space === 'memory') {
    config.setU16(REGISTER.MEMORY_BASE, high(start));
    config.setU16(REGISTER.MEMORY_LIMIT, high(last));
    return;
  }
  config.setU16(REGISTER.PREFETCH_BASE, high(start) | TYPE_64);
  config.setU16(REGISTER.PREFETCH_LIMIT, high(last) | TYPE_64);
  config.setU32(REGISTER.PREFETCH_BASE_UPPER, Number(start / FOUR_GIB));
  config.setU32(REGISTER.PREFETCH_LIMIT_UPPER, Number(last / FOUR_GIB));
}
