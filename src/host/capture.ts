/**
 * A capture: the machine file of a running system, made to be sent to somebody else. Device serial numbers are blanked
 * unless they are asked for.
 */
import { formatMachine } from '../machine/file/write.ts';
import type { Machine } from '../machine/machine.ts';
import { EXT_SERIAL_NUMBER } from '../machine/pci/capabilities.ts';

export type CaptureOptions = {
  /** keep serial numbers */
  readonly serials: boolean;
  readonly kernel: string;
  readonly root: boolean;
};

const SERIAL_OFFSET = 4;
const SERIAL_BYTES = 8;

/** Blanks the device serial numbers in configuration space. @returns how many there were */
export function blankSerials(machine: Machine): number {
  let blanked = 0;
  for (const { config } of machine.devices) {
    const offset = config.findExtendedCapability(EXT_SERIAL_NUMBER);
    if (offset === 0) continue;
    config.bytes.fill(0, offset + SERIAL_OFFSET, offset + SERIAL_OFFSET + SERIAL_BYTES);
    blanked += 1;
  }
  return blanked;
}

/** The capture as JSON, a device a line. Changes `machine` (serial numbers) unless they are kept. */
export function captureText(machine: Machine, { serials, kernel, root }: CaptureOptions): string {
  const unreadable = [...machine.remarks];
  if (!serials) {
    const blanked = blankSerials(machine);
    if (blanked > 0)
      unreadable.push(
        `serial numbers of ${blanked} devices: left out on purpose (--serials keeps them)`,
      );
  }
  return formatMachine(machine, { kernel, readAs: root ? 'root' : 'user', unreadable });
}
