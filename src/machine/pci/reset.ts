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
import type { PciDevice } from './device.ts';
import {
  AF_CAPABILITIES,
  AF_FLR,
  AF_TP,
  CAP_AF,
  CAP_PM,
  PM_CONTROL,
  PM_NO_SOFT_RESET,
} from './reset-registers.ts';

export type ResetMethod = 'flr' | 'af_flr' | 'pm' | 'bus';

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

function isAloneOnBus(pci: PciDevice): boolean {
  const { bus } = pci;
  if (bus.self === undefined) return false;
  return [...bus.devices.values()].every((other) => other === pci) && pci.subordinate === undefined;
}
