/**
 * No-iommu mode of VFIO: devices that no IOMMU translates, for programs that know physical addresses and are trusted with all
 * memory. Each such device gets a group of its own, made up, and its container maps nothing: it answers CHECK_EXTENSION and no
 * other call.
 *
 * Off unless enable_unsafe_noiommu_mode of the module vfio says otherwise; every open needs CAP_SYS_RAWIO. Real groups and made-up
 * ones do not mix in a container.
 *
 * After vfio_noiommu_ops of drivers/vfio/container.c and vfio_noiommu_group_alloc of drivers/vfio/group.c.
 */
import { Errno } from '../base/errno.ts';
import type { VfioCall } from '../uapi/vfio-ioctls.ts';
import { VFIO_NOIOMMU_IOMMU } from '../uapi/vfio.ts';
import type { ContainerIommu, VfioParameters } from './state.ts';
import { unknownIoctl } from './vcmd.ts';

/** What CHECK_EXTENSION of this driver says. @param enabled the module parameter */
export function noIommuExtension(extension: number, enabled: boolean): number {
  return enabled && extension === VFIO_NOIOMMU_IOMMU ? 1 : 0;
}

/** EPERM for callers without the capability. */
export function requireRawIo(allowed: boolean, what: string): void {
  if (allowed) return;
  throw new Errno('EPERM', `${what} without an IOMMU needs CAP_SYS_RAWIO`);
}

/** The IOMMU driver of a container of no-iommu groups. */
export class NoIommu implements ContainerIommu {
  readonly #parameters: VfioParameters;

  constructor(parameters: VfioParameters) {
    this.#parameters = parameters;
  }

  checkExtension(extension: number): number {
    return noIommuExtension(extension, this.#parameters.noIommu);
  }

  attachGroup(): void {
    // Nothing translates, so nothing is attached.
  }

  detachGroup(): void {
    // Nothing was attached.
  }

  ioctl({ command }: VfioCall): never {
    throw unknownIoctl('container', command);
  }

  release(): void {
    // Nothing is mapped.
  }
}
