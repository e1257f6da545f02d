/**
 * /sys/module: the modules of the stack and their parameters.
 *
 * After drivers/vfio/vfio_main.c, drivers/vfio/pci/vfio_pci.c, drivers/vfio/vfio_iommu_type1.c, drivers/iommu/iommufd/device.c
 * (module_param) and kernel/params.c: true is Y, false is N.
 */
import { Errno } from '../../base/errno.ts';
import type { VfioParameters } from '../../vfio/state.ts';
import { booleanOrInvalid, unsignedOrInvalid } from './parse.ts';
import { atOnce, fixed, over, readable, writable, type Attribute, type Directory } from './tree.ts';

/** Values of parameters, by "module.name". */
export type Parameters = Map<string, boolean | bigint>;

type Declaration = { readonly value: boolean | bigint; readonly writable: boolean };
type Module = {
  readonly version?: string;
  readonly parameters: Readonly<Record<string, Declaration>>;
};

const off = (canWrite = true): Declaration => ({ value: false, writable: canWrite });
const DMA_ENTRY_LIMIT = 65_535n;

const MODULES: Readonly<Record<string, Module>> = {
  vfio: { version: '0.3', parameters: { enable_unsafe_noiommu_mode: off() } },
  vfio_pci: {
    parameters: {
      disable_denylist: off(false),
      disable_idle_d3: off(),
      enable_sriov: off(),
      nointxmask: off(),
    },
  },
  vfio_iommu_type1: {
    version: '0.2',
    parameters: {
      allow_unsafe_interrupts: off(),
      disable_hugepages: off(),
      dma_entry_limit: { value: DMA_ENTRY_LIMIT, writable: true },
    },
  },
  iommufd: { parameters: { allow_unsafe_interrupts: off() } },
};

export function initialParameters(): Parameters {
  return new Map(
    Object.entries(MODULES).flatMap(([module, { parameters }]) =>
      Object.entries(parameters).map(([name, { value }]) => [`${module}.${name}`, value] as const),
    ),
  );
}

/** What VFIO sees of them, at every moment. */
export function vfioParameters(values: Parameters): VfioParameters {
  const isOn = (key: string): boolean => values.get(key) === true;
  return {
    get noIommu() {
      return isOn('vfio.enable_unsafe_noiommu_mode');
    },
    get unsafeInterrupts() {
      return isOn('vfio_iommu_type1.allow_unsafe_interrupts');
    },
    get entryLimit() {
      return Number(values.get('vfio_iommu_type1.dma_entry_limit') ?? DMA_ENTRY_LIMIT);
    },
    get smallPages() {
      return isOn('vfio_iommu_type1.disable_hugepages');
    },
  };
}

/** @param drivers names of drivers that are modules of their own, under the name of their module */
export function modulesDirectory(parameters: Parameters): Directory {
  return over(
    Object.fromEntries(
      Object.entries(MODULES).map(([name, module]) => [
        name,
        moduleDirectory(name, module, parameters),
      ]),
    ),
    /^vfio|^iommufd$/,
  );
}

function moduleDirectory(
  module: string,
  { version, parameters }: Module,
  values: Parameters,
): Directory {
  return fixed({
    ...(version === undefined ? {} : { version: readable(() => `${version}\n`) }),
    parameters: fixed(
      Object.fromEntries(
        Object.entries(parameters).map(([name, declared]) => [
          name,
          parameterAttribute(values, `${module}.${name}`, declared),
        ]),
      ),
    ),
  });
}

function parameterAttribute(values: Parameters, key: string, declared: Declaration): Attribute {
  const show = (): string => {
    const value = values.get(key) ?? declared.value;
    return `${typeof value === 'bigint' ? String(value) : value ? 'Y' : 'N'}\n`;
  };
  if (!declared.writable) return readable(show);
  const store = atOnce((text) => {
    values.set(key, typeof declared.value === 'bigint' ? count(text) : booleanOrInvalid(text));
  });
  return writable(store, { show });
}

const LARGEST_UINT = 0xffff_ffffn;

function count(text: string): bigint {
  const value = unsignedOrInvalid(text);
  if (value > LARGEST_UINT) throw new Errno('EINVAL', `${value} is above ${LARGEST_UINT}`);
  return value;
}
