/**
 * Ways to reset one function without its neighbours, and whole buses.
 *
 * Linux makes the list when it finds the device and asks each method again when it is used. The secondary bus reset is in the list of
 * a function that was alone on its bus when it was found, and works while it is alone.
 *
 * After drivers/pci/pci.c: pci_init_reset_methods, __pci_reset_function_locked, pci_try_reset_function, pci_reset_bus,
 * pci_bridge_wait_for_secondary_bus. Left out: methods of firmware and of hotplug slots (a slot's reset is its bus's), vendor methods,
 * and quirks that forbid one.
 */
import { Errno } from '../../base/errno.ts';
import type { PciBus, PciDevice } from './device.ts';
import { linkSpeeds } from './link.ts';
import { D0, D3_HOT, type ManagedFunction } from './managed-function.ts';
import { AF, CAP, EXP, PM } from './pci-regs.ts';

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

function hasFlr({ config, expressOffset }: PciDevice): boolean {
  if (expressOffset === 0) return false;
  return (config.u32(expressOffset + EXP.DEVICE_CAP) & EXP.FLR_CAPABLE) !== 0;
}

function hasAfFlr({ config }: PciDevice): boolean {
  const offset = config.findCapability(CAP.AF);
  const wanted = AF.TP | AF.FLR;
  return offset !== 0 && (config.u8(offset + AF.CAP) & wanted) === wanted;
}

function losesStateInD3({ config }: PciDevice): boolean {
  const offset = config.findCapability(CAP.PM);
  return offset !== 0 && (config.u16(offset + PM.CONTROL) & PM.NO_SOFT_RESET) === 0;
}

/** Has a power management capability. */
export function hasPowerManagement({ config }: PciDevice): boolean {
  return config.findCapability(CAP.PM) !== 0;
}

function isAloneOnBus(pci: PciDevice): boolean {
  const { bus } = pci;
  if (bus.self === undefined) return false;
  return [...bus.devices.values()].every((other) => other === pci) && pci.subordinate === undefined;
}

/** What a reset asks for: the functions of a bus, as Linux keeps them, and their IOMMU groups. */
export type Functions = {
  managed(pci: PciDevice): ManagedFunction | undefined;
  /** undefined for a function without group */
  groupId(pci: PciDevice): number | undefined;
};

/**
 * Resets one function by the first of its methods that works; its registers are saved before and restored after it.
 * @throws Errno ENOTTY if none works
 */
export function tryResetFunction(managed: ManagedFunction, functions: Functions): void {
  if (managed.resetMethods.length === 0) {
    throw new Errno('ENOTTY', `${managed.pci.name} has no reset method`);
  }
  saveAndDisable(managed);
  try {
    resetFunction(managed, functions);
  } finally {
    managed.restore();
  }
}

function saveAndDisable(managed: ManagedFunction): void {
  managed.setPowerState(D0);
  managed.save();
  managed.quiesce();
}

/** Resets one function without saving anything. After __pci_reset_function_locked. ENOTTY, EINVAL. */
export function resetFunction(managed: ManagedFunction, functions: Functions): void {
  const { pci } = managed;
  for (const method of managed.resetMethods) {
    if (method === 'flr' && hasFlr(pci)) {
      managed.registers.update16(pci.expressOffset + EXP.DEVICE_CONTROL, EXP.FLR, EXP.FLR);
      return;
    }
    if (method === 'af_flr' && hasAfFlr(pci)) {
      managed.registers.write(pci.config.findCapability(CAP.AF) + AF.CONTROL, 1, AF.START);
      return;
    }
    if (method === 'pm' && losesStateInD3(pci)) {
      resetByPower(managed);
      return;
    }
    if (method === 'bus' && isAloneOnBus(pci) && resetSecondaryBus(pci.bus, functions)) return;
  }
  throw new Errno('ENOTTY', `none of ${managed.resetMethods.join(', ')} resets ${pci.name} now`);
}

function resetByPower(managed: ManagedFunction): void {
  if (managed.powerState !== D0) throw new Errno('EINVAL', `${managed.pci.name} is not in D0`);
  const at = managed.pmOffset + PM.CONTROL;
  const control = managed.config.u16(at) & ~PM.STATE;
  managed.registers.write(at, 2, control | D3_HOT);
  managed.registers.write(at, 2, control);
}

/** The bus can be reset by the bridge above it. */
export function canResetBus({ self }: PciBus): boolean {
  return self !== undefined;
}

/**
 * Resets everything on a bus and behind it, registers saved before and restored after it. After pci_reset_bus.
 * @throws Errno ENOTTY on a root bus, and where the link does not come back although everything was reset
 */
export function tryResetBus(bus: PciBus, functions: Functions): void {
  if (!canResetBus(bus)) throw new Errno('ENOTTY', `${bus.name} is a root bus`);
  const affected = functionsBehind(bus)
    .map((pci) => functions.managed(pci))
    .filter((managed) => managed !== undefined);
  affected.forEach(saveAndDisable);
  const linked = resetSecondaryBus(bus, functions);
  for (const managed of affected) managed.restore();
  if (!linked) throw linkDown(bus);
}

function linkDown(bus: PciBus): Errno {
  return new Errno(
    'ENOTTY',
    `the link below ${bus.self?.name ?? bus.name} did not become active after the reset (LNKSTA.DLLLA is 0)`,
  );
}

/** Every function on the bus and behind its bridges, in the order of pci_walk_bus. */
export function functionsBehind(bus: PciBus): PciDevice[] {
  return [...bus.devices.values()].flatMap((pci) =>
    pci.subordinate === undefined ? [pci] : [pci, ...functionsBehind(pci.subordinate)],
  );
}

/** @returns false where Linux waits for the link in vain */
function resetSecondaryBus(bus: PciBus, functions: Functions): boolean {
  for (const pci of functionsBehind(bus)) functions.managed(pci)?.hardware.reset();
  return linkComesBack(bus);
}

const GEN_2 = 2;

// After a reset of the bus Linux waits for the link, if a function wants time after losing power (those with power management do),
// and below a port faster than 5 GT/s only for the link itself.
function linkComesBack({ self, devices }: PciBus): boolean {
  if (self === undefined || !self.isExpress || !self.isDownstream) return true;
  if (![...devices.values()].some(hasPowerManagement)) return true;
  if ((linkSpeeds(self).at(-1) ?? 0) <= GEN_2) return true;
  const { config, expressOffset } = self;
  if ((config.u32(expressOffset + EXP.LINK_CAP) & EXP.LINK_ACTIVE_REPORTING) === 0) return true;
  return (config.u16(expressOffset + EXP.LINK_STATUS) & EXP.LINK_ACTIVE) !== 0;
}
