/**
 * A PCI function with what Linux keeps about it beside its driver: how often it was enabled, its reset methods, and what
 * sysfs lets an administrator set.
 *
 * Invariant: `enableCount` counts everybody who enabled the function, drivers and writes to `enable` alike; the bridge above was
 * enabled with the first one, unless it was already, and stays so.
 *
 * After struct pci_dev, and pci_enable_device_flags, pci_enable_bridge, pci_disable_device of drivers/pci/pci.c.
 */
import { DeviceDma, type DmaPath, type DmaSource } from '../iommu/dma.ts';
import { manage } from '../machine/devices/models.ts';
import { CAP_MSI, CAP_MSIX } from '../machine/pci/capabilities.ts';
import { REGISTER } from '../machine/pci/config-space.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { D3_HOT, type ManagedFunction } from '../machine/pci/managed-function.ts';
import { COMMAND } from '../machine/pci/pci-regs.ts';
import { hasPowerManagement } from '../machine/pci/reset.ts';
import type { BusDevice } from './driver-state.ts';

export type PciFunction = {
  readonly pci: PciDevice;
  readonly device: BusDevice;
  /** registers, power, messages, resets */
  readonly managed: ManagedFunction;
  /** there was a way to reset it when it was found: only then sysfs has `reset` and `reset_method` */
  readonly resettable: boolean;
  /** of streaming and coherent DMA; drivers widen it for good */
  dmaMaskBits: number;
  /** since it was found, a driver was bound to it */
  everBound: boolean;
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

/** @param path what its DMA meets on its way */
export function newPciFunction(pci: PciDevice, device: BusDevice, path: DmaPath): PciFunction {
  const source: DmaSource = {
    iommu: device.iommu,
    requesterId: (pci.bus.number << 8) | pci.devfn,
    busMaster: () => (pci.config.u16(REGISTER.COMMAND) & COMMAND.MASTER) !== 0,
  };
  const managed = manage(pci, new DeviceDma(source, path));
  return {
    pci,
    device,
    managed,
    resettable: managed.resetMethods.length > 0,
    dmaMaskBits: DMA_MASK_BITS,
    everBound: false,
    vectors: [],
    brokenParity: false,
    msiAllowed: true,
    d3coldAllowed: hasPowerManagement(pci),
    numaNode: -1,
    romEnabled: false,
    vfAutoprobe: true,
  };
}

/** pci_enable_device: its registers decode, once for all who ask, and so do the bridges above. */
export function enableFunction(
  known: PciFunction,
  bridgeOf: (known: PciFunction) => PciFunction | undefined,
): void {
  const { managed } = known;
  if (managed.enableCount === 0) {
    const bridge = bridgeOf(known);
    if (bridge?.managed.enableCount === 0) enableFunction(bridge, bridgeOf);
  }
  managed.enable();
}

/** pci_disable_device: with the last who asked, bus mastering goes; decoding stays. */
export function disableFunction({ managed }: PciFunction): void {
  managed.disable();
}

/** A driver has its interrupts as messages: MSI-X before MSI, and the pin is silent. After pci_alloc_irq_vectors. */
export function enableMessages({ pci: { config } }: PciFunction): void {
  const msix = config.findCapability(CAP_MSIX);
  const at = (msix === 0 ? config.findCapability(CAP_MSI) : msix) + MESSAGE_CONTROL;
  if (at === MESSAGE_CONTROL) return;
  config.setU16(at, config.u16(at) | (msix === 0 ? MSI_ENABLE : MSIX_ENABLE));
  config.setU16(REGISTER.COMMAND, config.u16(REGISTER.COMMAND) | COMMAND_INTX_DISABLE);
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

/** As sysfs prints it. */
export function powerState({ managed }: PciFunction): string {
  return managed.powerState === D3_HOT ? 'D3hot' : `D${managed.powerState}`;
}
