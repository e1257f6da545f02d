/**
 * uiommu as a library: /dev/iommu of an imaginary machine in this process, for unit tests of programs that use it
 * (docs/library.md). No supervisor, no other process, no root: calls are functions, and every one is over when it returns.
 */
export { ERRNO, Errno, type ErrnoCode } from './base/errno.ts';
export { UiommuError } from './base/error.ts';
export { InputError } from './base/input-error.ts';
export type { CallEvent, TraceValue } from './base/trace.ts';
export type { Backing, Capability, FileMemory, MmapGrant, OpenFile, Task } from './base/task.ts';
export { Kernel, type KernelEvents } from './kernel/kernel.ts';
/** The fields of a struct by name, as the trace shows them: what a CallEvent's bytes mean. */
export { describeCall } from './uapi/describe.ts';
export { boot, bootMachine } from './kernel/boot.ts';
export type { PciBootOptions as BootOptions } from './kernel/pci-machine.ts';
export { loadMachine } from './iommu/load-machine.ts';
/** Texts of the built-in machines, by name. */
export { BUILTIN_MACHINES } from './machine/builtin.ts';
export { SparseBacking } from './base/sparse-backing.ts';
export { BufferMemory } from './client/buffer-memory.ts';
export {
  ClientFile,
  InProcessClient,
  type InProcessClientOptions,
  type IoctlName,
  type IoctlStruct,
} from './client/in-process.ts';
/** Structs, flags and numbers of include/uapi/linux/iommufd.h under their C names. */
export * as iommufd from './uapi/iommufd.ts';
/** The same of the mock driver, drivers/iommu/iommufd/iommufd_test.h. */
export * as mock from './uapi/iommufd-test.ts';
/** The same of include/uapi/linux/vfio.h. */
export * as vfio from './uapi/vfio.ts';
