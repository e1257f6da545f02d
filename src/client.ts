/**
 * uiommu/client: typed calls on the real /dev/iommu, for programs that drive devices from Node. They run on a Linux that has it
 * and under `uiommu run`. Needs the optional package koffi.
 */
export { CallError, Ioas, Iommufd, allocatePages } from './client/iommufd.ts';
export type { MapAccess, MapOptions } from './client/iommufd.ts';
