/**
 * IOMMUs and their groups in sysfs: /sys/kernel/iommu_groups, /sys/class/iommu and the units' own directories.
 *
 * After drivers/iommu/iommu.c (iommu_group_show_type, iommu_group_show_resv_regions), drivers/iommu/iommu-sysfs.c and
 * drivers/iommu/intel/iommu.c (intel_iommu_attrs).
 */
import { defaultDomainWord, storeDefaultDomainType, type IommuGroup } from '../../iommu/group.ts';
import { groupReservedRegions } from '../../iommu/reserved-regions.ts';
import type { Iommu, VtdRegisters } from '../../machine/machine.ts';
import type { SysfsContext } from './context.ts';
import { CLASSES, devicePath, GROUPS, VIRTUAL } from './paths.ts';
import {
  atOnce,
  Directory,
  fixed,
  linkTo,
  readable,
  writable,
  type Entry,
  type Named,
} from './tree.ts';
import { ueventAttribute } from './uevent-attribute.ts';

export function groupsDirectory(context: SysfsContext): Directory {
  const { groups } = context.system;
  return new Directory({
    list: () => groups.list().map((group) => [String(group.id), groupDirectory(context, group)]),
    find: (name) => {
      const group = /^(?:0|[1-9]\d*)$/.test(name) ? groups.get(Number(name)) : undefined;
      return group && groupDirectory(context, group);
    },
  });
}

function groupDirectory({ system }: SysfsContext, group: IommuGroup): Directory {
  const path = `${GROUPS}/${group.id}/devices`;
  const devices = new Directory({
    list: () =>
      group.members.flatMap(({ name }): Named[] => {
        const known = system.function(name);
        return known === undefined ? [] : [[name, linkTo(path, devicePath(known.pci))]];
      }),
  });
  return fixed({
    devices,
    reserved_regions: readable(() => reservedText(group)),
    type: writable(
      atOnce((text) => {
        storeDefaultDomainType(group, text);
      }),
      { show: () => `${defaultDomainWord(group)}\n` },
    ),
    ...(group.name === undefined ? {} : { name: readable(() => `${group.name ?? ''}\n`) }),
  });
}

const address = (value: bigint): string => `0x${value.toString(16).padStart(16, '0')}`;

function reservedText(group: IommuGroup): string {
  return groupReservedRegions(group)
    .map(({ start, last, type }) => {
      const shown = type === 'sw-msi' ? 'msi' : type;
      return `${address(start)} ${address(last)} ${shown}\n`;
    })
    .join('');
}

/** /sys/class/iommu. */
export function iommuClass({ system }: SysfsContext): Directory {
  return new Directory({
    list: () =>
      system.machine.iommus.map(({ name }) => [
        name,
        linkTo(`${CLASSES}/iommu`, `${VIRTUAL}/iommu/${name}`),
      ]),
  });
}

/** /sys/devices/virtual/iommu. */
export function iommusDirectory(context: SysfsContext): Directory {
  return new Directory({
    list: () =>
      context.system.machine.iommus.map((iommu) => [iommu.name, iommuDirectory(context, iommu)]),
  });
}

function iommuDirectory({ system }: SysfsContext, iommu: Iommu): Directory {
  const path = `${VIRTUAL}/iommu/${iommu.name}`;
  const devices = new Directory({
    list: () =>
      [...system.functions]
        .filter(
          ({ pci, device }) =>
            device.iommu.group !== undefined && system.machine.iommuOf(pci) === iommu,
        )
        .map(({ pci }): Named => [pci.name, linkTo(`${path}/devices`, devicePath(pci))]),
  });
  const entries: Record<string, Entry> = {
    devices,
    subsystem: linkTo(path, `${CLASSES}/iommu`),
    uevent: ueventAttribute(
      () => undefined,
      () => [],
    ),
  };
  if (iommu.kind === 'intel') {
    entries['intel-iommu'] = fixed(vtdAttributes(system, iommu.registers ?? USUAL_UNIT));
  }
  return fixed(entries);
}

/** The registers of a described unit: 48-bit addresses, 4K, 2M and 1G pages, interrupt remapping, coherent. */
const USUAL_UNIT: VtdRegisters = {
  version: '1:0',
  capabilities: 0xd2_008c_222f_0686n,
  extended: 0xf0_0fcan,
};
const UNIT_ADDRESS = 'fed90000';
/** bits 2:0 of the capabilities: 16 bits of domain identifiers and more */
const DOMAINS_FIELD = 7n;

function vtdAttributes(
  system: SysfsContext['system'],
  { version, capabilities, extended }: VtdRegisters,
): Record<string, Entry> {
  const supported = 1n << (4n + 2n * (capabilities & DOMAINS_FIELD));
  return {
    version: readable(() => `${version}\n`),
    address: readable(() => `${UNIT_ADDRESS}\n`),
    cap: readable(() => `${capabilities.toString(16)}\n`),
    ecap: readable(() => `${extended.toString(16)}\n`),
    domains_supported: readable(() => `${supported}\n`),
    domains_used: readable(() => `${domainsUsed(system)}\n`),
  };
}

// Each page table that something is attached to has an identifier; identity shares one that is not counted.
function domainsUsed({ groups }: SysfsContext['system']): number {
  const domains = new Set(
    groups
      .list()
      .flatMap(({ subgroups }) => subgroups.map(({ domain }) => domain))
      .filter(
        (domain) => domain !== undefined && domain.kind !== 'identity' && domain.kind !== 'blocked',
      ),
  );
  return domains.size;
}
