/**
 * What the root buses of the PC decode: ports, and memory between RAM and the I/O APIC and above it. Firmware describes these
 * windows to Linux, and both assign addresses inside them.
 *
 * The machine has 1 GiB of RAM below them; 256 MiB are left out for configuration space.
 */
import { RESOURCE_FLAGS, type Resource } from './bar.ts';

const { IO, MEMORY } = RESOURCE_FLAGS;

/** Below the space for configuration, below the I/O APIC, and above 4 GiB. */
export const MEMORY_WINDOWS = {
  low: { start: 0x4000_0000n, last: 0xafff_ffffn, flags: MEMORY },
  middle: { start: 0xc000_0000n, last: 0xfebf_ffffn, flags: MEMORY },
  high: { start: 0x1_0000_0000n, last: 0x3ff_ffff_ffffn, flags: MEMORY },
} as const satisfies Readonly<Record<string, Resource>>;

export const ROOT_WINDOWS: readonly Resource[] = [
  { start: 0n, last: 0xcf7n, flags: IO },
  { start: 0xd00n, last: 0xffffn, flags: IO },
  { start: 0xa_0000n, last: 0xb_ffffn, flags: MEMORY },
  MEMORY_WINDOWS.low,
  MEMORY_WINDOWS.middle,
  MEMORY_WINDOWS.high,
];
