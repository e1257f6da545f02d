/** Reserved regions and sizes of a machine file. */
import type { ReservedRegion } from '../pci/device.ts';
import { mapsOf, textOf, type MapValue, type Problems } from './reader.ts';

const UNITS: Readonly<Record<string, bigint>> = {
  K: 1n << 10n,
  M: 1n << 20n,
  G: 1n << 30n,
  T: 1n << 40n,
};
const LAST_ADDRESS = (1n << 64n) - 1n;

/** "4096", "0x1000", "4K" in bytes. */
export function readSize(written: string): bigint {
  const unit = UNITS[written.slice(-1)];
  return unit === undefined ? BigInt(written) : BigInt(written.slice(0, -1)) * unit;
}

/** The regions under `key`; what is wrong with them goes to `problems`. */
export function readRegions(value: MapValue, key: string, problems: Problems): ReservedRegion[] {
  return mapsOf(value, key).map((region) => {
    const start = BigInt(textOf(region, 'start') ?? '0');
    const last = textOf(region, 'last');
    const size = textOf(region, 'size');
    if ((last === undefined) === (size === undefined)) {
      problems.add(region.at, 'expected either "last" or "size" beside "start"');
    }
    const end = last === undefined ? start + readSize(size ?? '1') - 1n : BigInt(last);
    if (end < start || end > LAST_ADDRESS) {
      const [from, to] = [start.toString(16), end.toString(16)];
      problems.add(
        region.at,
        `the region 0x${from}..0x${to} is none; expected start <= last below 2^64`,
      );
    }
    return {
      start,
      last: end,
      type: (textOf(region, 'type') ?? 'reserved') as ReservedRegion['type'],
    };
  });
}
