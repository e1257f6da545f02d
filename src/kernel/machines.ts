/** The machines that are built in, by name. */
import { Errno } from '../base/errno.ts';
import { Kernel, type DeviceNode } from './kernel.ts';

export type BootOptions = {
  /** look at all invariants after every call */
  readonly check?: boolean;
};

// include/uapi/linux/major.h, drivers/iommu/iommufd/main.c: a misc device with a dynamic minor number
const MISC_MAJOR = 10;
const IOMMU_MINOR = 125;
const IOMMU_MODE = 0o660;

const unfinished: DeviceNode = {
  major: MISC_MAJOR,
  minor: IOMMU_MINOR,
  mode: IOMMU_MODE,
  open: () => ({
    name: '/dev/iommu',
    ioctl: (task, command) => {
      if (task.record !== undefined) task.record.call = `0x${command.toString(16)}`;
      throw new Errno('ENOTTY', `0x${command.toString(16)} is no ioctl of /dev/iommu`);
    },
    release: () => undefined,
  }),
};

const BUILT_IN: ReadonlyMap<string, (options: BootOptions) => Kernel> = new Map([
  [
    'selftest',
    () =>
      new Kernel({
        nodes: new Map([['/dev/iommu', unfinished]]),
        memory: { pinnedPages: () => [], forget: () => undefined },
      }),
  ],
]);

export const BUILT_IN_MACHINES: readonly string[] = [...BUILT_IN.keys()];

/** Boots a built-in machine; undefined if there is none of that name. */
export function bootMachine(name: string, options: BootOptions = {}): Kernel | undefined {
  return BUILT_IN.get(name)?.(options);
}
