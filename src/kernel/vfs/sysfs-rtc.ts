/**
 * What every PC has below its bridge to ISA: the real-time clock, which firmware describes as PNP0B00.
 *
 * Only its names; programs read the time elsewhere, and its memory reads as zeros.
 *
 * After drivers/rtc/rtc-cmos.c and drivers/nvmem/core.c.
 */
import { devpathOf } from './paths.ts';
import { atOnce, fixed, linkTo, readable, writable, type Directory } from './tree.ts';
import type { Uevents } from './uevent.ts';
import { ueventAttribute } from './uevent-attribute.ts';

export const RTC_NAME = 'PNP0B00:00';
const MODALIAS = 'acpi:PNP0B00:';
/** of the 256 bytes, those that are not the clock's own */
const NVRAM_BYTES = 242;

/** @param bridge path of the bridge to ISA */
export function rtcDirectory(bridge: string, uevents: Uevents): Directory {
  const path = `${bridge}/${RTC_NAME}`;
  let override: string | undefined;
  return fixed({
    driver: linkTo(path, '/sys/bus/platform/drivers/rtc_cmos'),
    driver_override: writable(
      atOnce((text) => {
        const [value = ''] = text.split(/[\0\n]/, 1);
        override = value === '' ? undefined : value;
      }),
      { show: () => `${override ?? '(null)'}\n` },
    ),
    modalias: readable(() => `${MODALIAS}\n`),
    subsystem: linkTo(path, '/sys/bus/platform'),
    uevent: ueventAttribute(
      (action, synthetic) => {
        const keys = [...synthetic, 'DRIVER=rtc_cmos', `MODALIAS=${MODALIAS}`];
        uevents.emit({ action, devpath: devpathOf(path), subsystem: 'platform', keys });
      },
      () => ['DRIVER=rtc_cmos', `MODALIAS=${MODALIAS}`],
    ),
    cmos_nvram0: nvramDirectory(`${path}/cmos_nvram0`),
  });
}

function nvramDirectory(path: string): Directory {
  return fixed({
    force_ro: readable(() => '0\n', 0o644),
    nvmem: {
      kind: 'attribute',
      mode: 0o644,
      size: NVRAM_BYTES,
      read: (offset, length) => new Uint8Array(Math.max(0, Math.min(length, NVRAM_BYTES - offset))),
    },
    subsystem: linkTo(path, '/sys/bus/nvmem'),
    type: readable(() => 'Unknown\n'),
    uevent: readable(() => '', 0o644),
  });
}
