/**
 * Which model answers for a function: the one for its ids, else memory that keeps what is written.
 */
import type { DmaPort } from '../dma.ts';
import { describedBits, recordedBits } from '../pci/register-bits.ts';
import { resourceSize } from '../pci/bar.ts';
import type { PciDevice } from '../pci/device.ts';
import { FunctionHardware, type MakeModel } from '../pci/hardware.ts';
import { ManagedFunction } from '../pci/managed-function.ts';
import { resetMethods } from '../pci/reset.ts';
import { EduModel } from './edu/device.ts';
import { EDU_ID } from './edu/spec.ts';
import { MemoryModel } from './memory.ts';

function isEdu({ vendor, device }: PciDevice): boolean {
  return vendor === EDU_ID.vendor && device === EDU_ID.device;
}

function modelOf(pci: PciDevice, dma: DmaPort): MakeModel {
  if (isEdu(pci)) return (interrupts) => new EduModel(interrupts, dma);
  const size = (bar: number): number => {
    const resource = pci.resources[bar];
    return resource === undefined ? 0 : Number(resourceSize(resource));
  };
  return () => new MemoryModel(pci.name, size);
}

/**
 * A function of the machine, with its hardware, as Linux finds it.
 * @param dma what its model reads and writes memory by
 */
export function manage(pci: PciDevice, dma: DmaPort): ManagedFunction {
  const { registers, rom, irq } = pci.facts;
  const bits =
    registers === undefined
      ? describedBits(pci.config, pci.isVirtualFunction ? {} : pci.facts)
      : recordedBits(pci.config, registers.ones, registers.zeros);
  const hardware = new FunctionHardware(pci.config, bits, modelOf(pci, dma));
  return new ManagedFunction({
    pci,
    hardware,
    resetMethods: resetMethods(pci),
    rom,
    wired: irq !== 0,
  });
}
