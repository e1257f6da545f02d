/**
 * A PCI function with what Linux keeps about it beside its driver: how often it was enabled, its reset methods, and what
 * sysfs lets an administrator set.
 *
 * Invariant: `enableCount` counts everybody who enabled the function, drivers and writes to `enable` alike; the bridge above was
 * enabled with the first one, unless it was already, and stays so.
 *
 * After struct pci_dev, and pci_enable_device_flags, pci_enable_bridge, pci_disable_device of drivers/pci/pci.c.
 */
import { CAP_MSI, CAP_MSIX } from '../machine/pci/capabilities.ts';
import { REGISTER } from '../machine/pci/config-space.ts';
import { barAfterWrite, barFlags, barWords, RESOURCE, RESOURCE_FLAGS } from '../machine/pci/bar.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { hasPowerManagement, resetMethods, type ResetMethod } from '../machine/pci/reset.ts';
import { CAP_PM, PM_CONTROL } from '../machine/pci/reset-registers.ts';
import type { BusDevice } from './driver-state.ts';

export type PciFunction = {
  readonly pci: PciDevice;
  readonly device: BusDevice;
  /** found when the device was, unless an administrator chose; which of them work is asked when it is reset */
  resetMethods: readonly ResetMethod[];
  /** there was a way to reset it when it was found: only then sysfs has `reset` and `reset_method` */
  readonly resettable: boolean;
  enableCount: number;
  /** of streaming and coherent DMA; drivers widen it for good */
  dmaMaskBits: number;
  /** since it was found, a driver was bound to it */
  everBound: boolean;
  /** no driver of the kernel uses it, so it sleeps; only what has a power management capability can */
  suspended: boolean;
  /** interrupt numbers of its vectors, as long as a driver has them */
  vectors: readonly number[];
  brokenParity: boolean;
  msiAllowed: boolean;
  d3coldAllowed: boolean;
  /** -1: on none */
  numaNode: number;
  romEnabled: boolean;
  /** drivers are looked for when its virtual functions appear */
  vfAutoprobe: boolean;
};

/** bits of a 32-bit DMA mask, which every function starts with */
const DMA_MASK_BITS = 32;

export function newPciFunction(pci: PciDevice, device: BusDevice): PciFunction {
  const methods = resetMethods(pci);
  return {
    pci,
    device,
    resetMethods: methods,
    resettable: methods.length > 0,
    enableCount: 0,
    dmaMaskBits: DMA_MASK_BITS,
    everBound: false,
    suspended: false,
    vectors: [],
    brokenParity: false,
    msiAllowed: true,
    d3coldAllowed: hasPowerManagement(pci),
    numaNode: -1,
    romEnabled: false,
    vfAutoprobe: true,
  };
}

const COMMAND_IO = 1;
const COMMAND_MEMORY = 2;
const COMMAND_MASTER = 4;

/** pci_enable_device: its registers decode, once for all who ask, and so do the bridges above. */
export function enableFunction(
  known: PciFunction,
  bridgeOf: (known: PciFunction) => PciFunction | undefined,
): void {
  known.enableCount++;
  if (known.enableCount > 1) return;
  const bridge = bridgeOf(known);
  if (bridge?.enableCount === 0) enableFunction(bridge, bridgeOf);
  const { config, resources } = known.pci;
  let command = config.u16(REGISTER.COMMAND);
  for (const { flags } of resources.slice(0, RESOURCE.ROM)) {
    if ((flags & RESOURCE_FLAGS.IO) !== 0) command |= COMMAND_IO;
    if ((flags & RESOURCE_FLAGS.MEMORY) !== 0) command |= COMMAND_MEMORY;
  }
  config.setU16(REGISTER.COMMAND, command);
}

/** pci_disable_device: with the last who asked, bus mastering goes; decoding stays. */
export function disableFunction(known: PciFunction): void {
  known.enableCount--;
  if (known.enableCount > 0) return;
  const { config } = known.pci;
  config.setU16(REGISTER.COMMAND, config.u16(REGISTER.COMMAND) & ~COMMAND_MASTER);
}

/** A driver gives its messages back: MSI and MSI-X off, and with them the pin works again. After pci_free_irq_vectors. */
export function disableMessages({ pci: { config } }: PciFunction): void {
  const clear = (capability: number, enable: number): boolean => {
    const at = config.findCapability(capability) + MESSAGE_CONTROL;
    if (at === MESSAGE_CONTROL || (config.u16(at) & enable) === 0) return false;
    config.setU16(at, config.u16(at) & ~enable);
    return true;
  };
  const msi = clear(CAP_MSI, MSI_ENABLE);
  const msix = clear(CAP_MSIX, MSIX_ENABLE);
  if (!msi && !msix) return;
  config.setU16(REGISTER.COMMAND, config.u16(REGISTER.COMMAND) & ~COMMAND_INTX_DISABLE);
}

const MESSAGE_CONTROL = 2;
const MSI_ENABLE = 0x0001;
const MSIX_ENABLE = 0x8000;
const COMMAND_INTX_DISABLE = 0x400;

/**
 * A write of a program to configuration space, inside one double word. What sticks is what hardware lets software change in the
 * header: the command, BARs and ROM above their sizes, cache line size and interrupt line; elsewhere nothing does.
 */
export function writeConfig({ pci }: PciFunction, offset: number, written: Uint8Array): void {
  const { config } = pci;
  for (const [index, byte] of written.entries()) {
    const at = offset + index;
    const mask = writableBits(pci, at);
    config.setU8(at, (config.u8(at) & ~mask) | (byte & mask));
  }
}

const COMMAND_BITS = [0x47, 0x05];
const WHOLE_BYTES: readonly number[] = [REGISTER.CACHE_LINE, REGISTER.INTERRUPT_LINE];

function writableBits(pci: PciDevice, offset: number): number {
  if (offset === REGISTER.COMMAND || offset === REGISTER.COMMAND + 1) {
    return COMMAND_BITS[offset - REGISTER.COMMAND] ?? 0;
  }
  if (WHOLE_BYTES.includes(offset)) return 0xff;
  const shift = 8 * (offset % 4);
  for (const bar of pci.facts.bars ?? []) {
    const word = (offset - (offset % 4) - REGISTER.BAR0) / 4 - bar.index;
    if (word === 0 || (word === 1 && barWords(bar) === 2)) {
      const ones = barAfterWrite(bar, word, 0xffff_ffff);
      const flags = word === 0 ? barFlags(bar) : 0;
      return ((ones & ~flags) >>> shift) & 0xff;
    }
  }
  return 0;
}

/** Where the power state is, in the low bits of the control register of power management. */
const STATE_MASK = 3;
const D3_HOT = 3;

/**
 * Puts a function that nobody uses to sleep (D3hot), or wakes it (D0). Nothing happens to one that cannot.
 * After vfio_pci_core_register_device and runtime power management.
 */
export function setSuspended(known: PciFunction, suspended: boolean): void {
  const { config } = known.pci;
  const offset = config.findCapability(CAP_PM);
  if (offset === 0) return;
  known.suspended = suspended;
  const control = config.u16(offset + PM_CONTROL) & ~STATE_MASK;
  config.setU16(offset + PM_CONTROL, suspended ? control | D3_HOT : control);
}

/** As sysfs prints it. */
export function powerState({ suspended }: PciFunction): string {
  return suspended ? 'D3hot' : 'D0';
}
