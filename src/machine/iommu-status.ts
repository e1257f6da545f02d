/** Is there an IOMMU, and what does it do? Judged by what a machine shows, never by a kernel command line. */
import { isNoiommuGroup, type Machine } from './machine.ts';

export type IommuState =
  /** nothing translates and firmware describes nothing that could */
  | 'none'
  /** firmware describes one, the kernel does not use it */
  | 'off'
  /** groups exist; the kernel's own DMA goes straight to memory */
  | 'passthrough'
  /** groups exist; the kernel's own DMA goes through page tables */
  | 'translated'
  /** some groups one way, some the other */
  | 'mixed'
  /** groups exist, their types could not be read */
  | 'unknown'
  /** only groups that VFIO made up, without any translation */
  | 'noiommu';

export type IommuStatus = { readonly state: IommuState; readonly sentence: string };

/** @returns the state and one sentence that says what it means and rests on */
export function iommuStatus(machine: Machine): IommuStatus {
  if (machine.source === 'file' || machine.recordedGroups.size === 0) return byDescription(machine);
  const groups = [...machine.recordedGroups.values()];
  const real = groups.filter((group) => !isNoiommuGroup(group));
  if (real.length === 0) {
    return {
      state: 'noiommu',
      sentence:
        'No IOMMU: the groups are made up by VFIO (noiommu mode), every device can reach all memory.',
    };
  }
  const identity = real.filter(({ type }) => type === 'identity').length;
  const typed = real.filter(({ type }) => type !== '').length;
  const names = machine.iommus.map(({ name }) => name).join(', ');
  if (typed === 0) {
    return {
      state: 'unknown',
      sentence: `IOMMU ${names}: on; the types of its groups could not be read.`,
    };
  }
  if (identity === 0) {
    return {
      state: 'translated',
      sentence: `IOMMU ${names}: on, the kernel's own DMA is translated.`,
    };
  }
  if (identity === typed) {
    return {
      state: 'passthrough',
      sentence: `IOMMU ${names}: on in passthrough, the kernel's own DMA is not translated; assigned devices are.`,
    };
  }
  return {
    state: 'mixed',
    sentence: `IOMMU ${names}: on, the kernel's own DMA is translated for ${typed - identity} groups and passed through for ${identity}.`,
  };
}

function byDescription({ iommus, firmwareTables, deviceCount, source }: Machine): IommuStatus {
  const [first] = iommus;
  if (first !== undefined) {
    const words = iommus.map(({ name, kind, mode }) => `${name} (${kind}, ${mode})`).join(', ');
    const state = iommus.every(({ mode }) => mode === 'passthrough') ? 'passthrough' : 'translated';
    return { state, sentence: `IOMMU ${words}.` };
  }
  if (firmwareTables.length > 0) {
    return {
      state: 'off',
      sentence:
        `IOMMU: off. Firmware describes one (ACPI ${firmwareTables.join(', ')}), but the kernel does not use it: ` +
        'no device has a group.',
    };
  }
  const observed = source === 'host' || source === 'capture';
  return {
    state: 'none',
    sentence: observed
      ? `IOMMU: none. Neither the kernel nor firmware shows one, so none of the ${deviceCount} devices has a group.`
      : 'IOMMU: none.',
  };
}
