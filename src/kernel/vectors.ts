/**
 * Interrupt numbers of message-signalled interrupts: the lowest free ones above those of the I/O APIC and of the IOMMUs, which
 * take one each for their faults.
 *
 * After kernel/irq/irqdesc.c (irq_alloc_descs) and arch/x86.
 */
import { CAP_MSI, CAP_MSIX } from '../machine/pci/capabilities.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import type { PciFunction } from './pci-function.ts';

const IO_APIC_PINS = 24;

export class Vectors {
  readonly #first: number;
  readonly #used = new Set<number>();

  /** @param iommus how many there are */
  constructor(iommus: number) {
    this.#first = IO_APIC_PINS + iommus;
  }

  take(known: PciFunction, count: number): void {
    const numbers: number[] = [];
    for (let number = this.#first; numbers.length < count; number++) {
      if (!this.#used.has(number)) numbers.push(number);
    }
    for (const number of numbers) this.#used.add(number);
    known.vectors = numbers;
  }

  free(known: PciFunction): void {
    for (const number of known.vectors) this.#used.delete(number);
    known.vectors = [];
  }
}

/** How a function's messages are signalled when a driver may choose: MSI-X before MSI; undefined for INTx alone. */
export function messageKind({ config }: PciDevice): 'msix' | 'msi' | undefined {
  if (config.findCapability(CAP_MSIX) !== 0) return 'msix';
  return config.findCapability(CAP_MSI) === 0 ? undefined : 'msi';
}
