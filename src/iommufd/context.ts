/**
 * Context: everything that belongs to one open of /dev/iommu (struct iommufd_ctx).
 *
 * It lives as long as somebody refers to it: the open file, each event-queue file, each access, each bound device that
 * is not a mock. Then all objects are destroyed, leaves first.
 *
 * Environment: what all contexts of a machine share.
 */
import type { Faults } from '../base/faults.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { DmaOwner, IommuGroup, GroupTable } from '../iommu/group.ts';
import type { PhysicalMemory } from '../machine/memory.ts';
import type { Accounting, Payer } from '../pinning/accounting.ts';
import type { Source } from '../pinning/pages.ts';
import type { iommu_ioas_copy } from '../uapi/iommufd.ts';
import type { Ioas } from './ioas.ts';
import type { IommufdGroup } from './iommufd-group.ts';
import type { MmapWindows } from './mmap-windows.ts';
import { ObjectTable, type IommufdObject } from './object.ts';
import type { ViommuMaker } from './viommu.ts';
import type { MockIommu } from './selftest/mock-iommu.ts';

export type Environment = {
  readonly physical: PhysicalMemory;
  readonly accounting: Accounting;
  readonly faults: Faults;
  readonly groups: GroupTable;
  /** present on machines that have the mock driver */
  readonly mock?: MockIommu;
  /** a test driver's own reading of source IOVAs in IOMMU_IOAS_COPY; changes the struct */
  convertCopy?(context: Context, cmd: iommu_ioas_copy): void;
  /** bind to devices whose interrupts cannot be isolated (module parameter allow_unsafe_interrupts) */
  readonly allowUnsafeInterrupts?: boolean;
  /** how a vIOMMU of a type is made for a device; undefined where its IOMMU has none */
  viommuDriver?(device: IommuDevice, type: number): ViommuMaker | undefined;
  /** noiommu devices may be bound (CONFIG_IOMMUFD_NOIOMMU, CONFIG_VFIO_NOIOMMU) */
  readonly noIommu?: boolean;
};

export class Context implements DmaOwner {
  readonly name: string;
  readonly environment: Environment;
  readonly objects: ObjectTable;
  readonly groups = new Map<IommuGroup, IommufdGroup>();
  readonly windows: MmapWindows;
  /** 'mm' only where set by IOMMU_OPTION_RLIMIT_MODE */
  accountMode: 'user' | 'mm' = 'user';
  /** of the page set that was made last */
  payer: Payer | undefined;
  /** of the page set that was made last from memory of a process */
  source: Source | undefined;
  /** the IOAS that VFIO's ioctls act on */
  vfioIoas: Ioas | undefined;
  /** a noiommu group uses the context as its container */
  noIommuMode = false;
  #references = 1;
  readonly #onRelease: (leaked: readonly IommufdObject[]) => void;

  /** @param onRelease told once everything is gone, with what could not be destroyed */
  constructor(
    name: string,
    environment: Environment,
    parts: {
      readonly windows: MmapWindows;
      readonly onRelease: (leaked: readonly IommufdObject[]) => void;
    },
  ) {
    this.name = name;
    this.environment = environment;
    this.windows = parts.windows;
    this.#onRelease = parts.onRelease;
    this.objects = new ObjectTable(environment.faults, (object) => {
      if (object === this.vfioIoas) this.vfioIoas = undefined;
    });
  }

  /** Keeps the context alive beyond its open file. */
  get(): this {
    this.#references++;
    return this;
  }

  put(): void {
    this.#references--;
    if (this.#references > 0) return;
    this.#onRelease(this.objects.destroyAll());
  }

  get isReleased(): boolean {
    return this.#references === 0;
  }
}
