/**
 * uiommu/machine: machines without booting them. Reading and writing machine files, the PCI devices of a machine, the groups that
 * Linux would form of them.
 */
export { loadMachine } from './iommu/load-machine.ts';
export { GroupView } from './iommu/group-view.ts';
export { BUILTIN_MACHINES } from './machine/builtin.ts';
export { parseDump as parseRecording } from './machine/file/recording.ts';
export { formatMachine } from './machine/file/write.ts';
export { Machine } from './machine/machine.ts';
export type { PciDevice } from './machine/pci/device.ts';
