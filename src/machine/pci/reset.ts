/**
 * Which ways there are to reset one function without its neighbours.
 *
 * Linux makes the list when it finds the device and asks each method again when it is used. The secondary bus reset is in
 * the list of a function that was alone on its bus when it was found, and works while it is alone.
 *
 * After drivers/pci/pci.c: pci_init_reset_methods, __pci_reset_function_locked. Left out: methods of firmware and of
 * hotplug slots, vendor methods, and quirks that forbid one.
 */
import { EXPRESS_DEVICE_CAPABILITIES, FUNCTION_LEVEL_RESET } from './reset-registers.ts';
import { Errno } from '../../base/errno.ts';
import { EXPRESS } from './capabilities.ts';
import type { PciBus, PciDevice } from './device.ts';
import { linkSpeeds } from './link.ts';
import {
  AF_CAPABILITIES,
  AF_FLR,
  AF_TP,
  CAP_AF,
  CAP_PM,
  PM_CONTROL,
  PM_NO_SOFT_RESET,
} from './reset-registers.ts';

const GEN_2 = 2;
const LINK_ACTIVE_REPORTING = 0x10_0000;
const LINK_ACTIVE = 0x2000;

export type ResetMethod = 'flr' | 'af_flr' | 'pm' | 'bus';

/** In the order in which Linux prefers them. */
export const RESET_METHODS: readonly ResetMethod[] = ['flr', 'af_flr', 'pm', 'bus'];

const OWN_METHODS: readonly (readonly [ResetMethod, (pci: PciDevice) => boolean])[] = [
  ['flr', hasFlr],
  ['af_flr', hasAfFlr],
  ['pm', losesStateInD3],
];

/** What a function offers when it is found: of the others on its bus, those count that were found before it. */
export function resetMethods(pci: PciDevice): ResetMethod[] {
  const own = OWN_METHODS.filter(([, probe]) => probe(pci)).map(([method]) => method);
  const [first] = pci.bus.devices.values();
  return pci.bus.self !== undefined && first === pci ? [...own, 'bus'] : own;
}

/** Whether a method could be chosen now. */
export function offersMethod(pci: PciDevice, method: ResetMethod): boolean {
  if (method === 'bus') return isAloneOnBus(pci);
  return OWN_METHODS.some(([each, probe]) => each === method && probe(pci));
}

/**
 * Resets a function by the first of these methods that works.
 * @throws Errno ENOTTY if none does
 */
export function resetFunction(pci: PciDevice, methods: readonly ResetMethod[]): void {
  const works = methods.some(
    (method) => offersMethod(pci, method) && (method !== 'bus' || linkComesBack(pci.bus)),
  );
  if (works) return;
  const tried =
    methods.length === 0 ? 'it has no reset method' : `none of ${methods.join(', ')} works now`;
  throw new Errno('ENOTTY', `${pci.name} cannot be reset: ${tried}`);
}

/**
 * Resets everything behind a bridge.
 * @throws Errno ENOTTY where the link does not come back although everything was reset
 */
export function resetBehind(bridge: PciDevice): void {
  const { subordinate } = bridge;
  if (subordinate === undefined || linkComesBack(subordinate)) return;
  throw new Errno('ENOTTY', `the link below ${bridge.name} did not become active after the reset`);
}

/** Whether one of the methods that were found would work now. */
export function canReset(pci: PciDevice, methods: readonly ResetMethod[]): boolean {
  const own = OWN_METHODS.some(([method, probe]) => methods.includes(method) && probe(pci));
  return own || (methods.includes('bus') && isAloneOnBus(pci));
}

function hasFlr({ config, expressOffset }: PciDevice): boolean {
  if (expressOffset === 0) return false;
  return (config.u32(expressOffset + EXPRESS_DEVICE_CAPABILITIES) & FUNCTION_LEVEL_RESET) !== 0;
}

function hasAfFlr({ config }: PciDevice): boolean {
  const offset = config.findCapability(CAP_AF);
  const wanted = AF_TP | AF_FLR;
  return offset !== 0 && (config.u8(offset + AF_CAPABILITIES) & wanted) === wanted;
}

function losesStateInD3({ config }: PciDevice): boolean {
  const offset = config.findCapability(CAP_PM);
  return offset !== 0 && (config.u16(offset + PM_CONTROL) & PM_NO_SOFT_RESET) === 0;
}

/** Has a power management capability. */
export function hasPowerManagement({ config }: PciDevice): boolean {
  return config.findCapability(CAP_PM) !== 0;
}

/**
 * After a reset of the bus Linux waits for the link, if a function wants time after losing power (those with power management
 * do), and below a port faster than 5 GT/s only for the link itself.
 */
function linkComesBack({ self, devices }: PciBus): boolean {
  if (self === undefined || !self.isExpress || !self.isDownstream) return true;
  if (![...devices.values()].some(hasPowerManagement)) return true;
  if ((linkSpeeds(self).at(-1) ?? 0) <= GEN_2) return true;
  const { config, expressOffset } = self;
  if ((config.u32(expressOffset + EXPRESS.LINK_CAPABILITIES) & LINK_ACTIVE_REPORTING) === 0)
    return true;
  return (config.u16(expressOffset + EXPRESS.LINK_STATUS) & LINK_ACTIVE) !== 0;
}

function isAloneOnBus(pci: PciDevice): boolean {
  const { bus } = pci;
  if (bus.self === undefined) return false;
  return [...bus.devices.values()].every((other) => other === pci) && pci.subordinate === undefined;
}
