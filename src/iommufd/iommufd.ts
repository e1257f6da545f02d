/**
 * Iommufd: the driver of /dev/iommu on one machine. Makes a context for each open and knows all that are alive, which is
 * what the leak check and `--check` look at.
 *
 * After drivers/iommu/iommufd/main.c (iommufd_fops_open).
 */
import type { Faults } from '../base/faults.ts';
import type { Backing, Task } from '../base/task.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { GroupTable } from '../iommu/group.ts';
import { PAGE_SIZE, type PhysicalMemory } from '../machine/memory.ts';
import { Accounting } from '../pinning/accounting.ts';
import { Context, type Environment } from './context.ts';
import { IommufdFile } from './file.ts';
import { assertInvariants } from './invariants.ts';
import { MmapWindows } from './mmap-windows.ts';
import { MockIommu, type AllocMemory } from './selftest/mock-iommu.ts';
import { convertSyzkallerIova } from './selftest/syzkaller.ts';

export type IommufdOptions = {
  readonly physical: PhysicalMemory;
  readonly groups: GroupTable;
  readonly faults: Faults;
  /** the machine has the mock driver and its IOMMU_TEST_CMD */
  readonly mock: boolean;
  /** memory of drivers that clients can map; plain buffers, which only this process sees, unless given */
  readonly alloc?: AllocMemory;
  /** built with CONFIG_VFIO_NOIOMMU and CONFIG_IOMMUFD_NOIOMMU */
  readonly noIommu?: boolean;
  /** look at all invariants after every ioctl (`--check`); a violation throws Error */
  readonly check?: boolean;
  /** allow_unsafe_interrupts of the module */
  readonly unsafeInterrupts?: boolean;
};

export class Iommufd {
  readonly environment: Environment;
  readonly #contexts = new Set<Context>();
  readonly #leaks: string[] = [];
  readonly #afterCall: (() => void) | undefined;
  #opened = 0;

  constructor(options: IommufdOptions) {
    const { physical, groups, faults, mock } = options;
    const iommu = mock ? new MockIommu(groups, options.alloc ?? plainMemory) : undefined;
    this.#afterCall =
      options.check === true
        ? () => {
            assertInvariants(this);
          }
        : undefined;
    this.environment = {
      physical,
      groups,
      faults,
      accounting: new Accounting(),
      allowUnsafeInterrupts: options.unsafeInterrupts ?? false,
      noIommu: options.noIommu ?? false,
      ...(iommu && {
        mock: iommu,
        convertCopy: convertSyzkallerIova,
        viommuDriver: (device: IommuDevice, type: number) => iommu.viommuMaker(device, type),
      }),
    };
  }

  /** open(2) by a process. @param name for people, in refusals */
  open(
    { pid }: Pick<Task, 'pid'>,
    name = `iommufd ${this.#opened + 1} of process ${pid}`,
  ): IommufdFile {
    this.environment.faults.alloc('iommufd context');
    this.#opened++;
    const context = new Context(name, this.environment, {
      windows: new MmapWindows(),
      onRelease: (leaked) => {
        this.#contexts.delete(context);
        this.#leaks.push(
          ...leaked.map((object) => `${String(object)} of ${name} could not be destroyed`),
        );
      },
    });
    this.#contexts.add(context);
    return new IommufdFile(context, this.#afterCall);
  }

  /** Contexts that somebody still refers to. */
  get contexts(): readonly Context[] {
    return [...this.#contexts];
  }

  /** What is left where nothing should be, one line each: to be asked when every client is gone. */
  leaks(): string[] {
    const { physical, mock } = this.environment;
    const open = this.contexts.map(({ name }) => `${name} is still open`);
    const pins = physical.pinCountTotal;
    const devices = mock?.deviceCount ?? 0;
    return [
      ...this.#leaks,
      ...open,
      ...(pins > 0 ? [`${pins} pins are left`] : []),
      ...(devices > 0 ? [`${devices} mock devices are left`] : []),
    ];
  }
}

/** Memory of drivers as a buffer of this process. */
export function plainMemory(name: string, size: number): Backing {
  const bytes = new Uint8Array(size);
  return {
    name,
    unit: 2 ** Math.ceil(Math.log2(size / PAGE_SIZE)),
    read: (offset, into) => {
      into.set(bytes.subarray(offset, offset + into.length));
    },
    write: (offset, from) => {
      bytes.set(from, offset);
    },
  };
}
