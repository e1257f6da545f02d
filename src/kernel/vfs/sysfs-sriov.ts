/**
 * SR-IOV in sysfs: what a physical function shows and takes, and the links between it and its virtual functions.
 *
 * After drivers/pci/iov.c (sriov_numvfs_store and its neighbours, pci_iov_sysfs_link).
 */
import { Errno } from '../../base/errno.ts';
import { SRIOV } from '../../machine/pci/capabilities.ts';
import { sriovState } from '../../machine/pci/sriov.ts';
import type { PciFunction } from '../pci-function.ts';
import type { SysfsContext } from './context.ts';
import { booleanOrInvalid, unsigned } from './parse.ts';
import { devicePath } from './paths.ts';
import { atOnce, linkTo, readable, writable, type Named } from './tree.ts';

const MOST_FUNCTIONS = 0xffffn;

export function sriovEntries(context: SysfsContext, known: PciFunction): Named[] {
  const { pci } = known;
  if (pci.physfn !== undefined) {
    return [
      ['physfn', linkTo(devicePath(pci), devicePath(pci.physfn))],
      ['sriov_vf_msix_count', writable(atOnce(refuseVectors))],
    ];
  }
  if (pci.sriovOffset === 0) return [];
  const register = (offset: number): number => pci.config.u16(pci.sriovOffset + offset);
  return [
    ['sriov_totalvfs', readable(() => `${sriovState(pci).total}\n`)],
    [
      'sriov_numvfs',
      writable(
        atOnce((text) => {
          storeCount(context, known, Number(unsigned(text, MOST_FUNCTIONS)));
        }),
        { show: () => `${sriovState(pci).enabled}\n` },
      ),
    ],
    ['sriov_offset', readable(() => `${register(SRIOV.FIRST_OFFSET)}\n`)],
    ['sriov_stride', readable(() => `${register(SRIOV.STRIDE)}\n`)],
    ['sriov_vf_device', readable(() => `${register(SRIOV.VF_DEVICE).toString(16)}\n`)],
    [
      'sriov_drivers_autoprobe',
      writable(
        atOnce((text) => {
          known.vfAutoprobe = booleanOrInvalid(text);
        }),
        { show: () => `${Number(known.vfAutoprobe)}\n` },
      ),
    ],
    // A number that only drivers which can share out their vectors report.
    ['sriov_vf_total_msix', readable(() => '0\n')],
    ...context.system.machine
      .virtualFunctions(pci)
      .map((vf, index): Named => [`virtfn${index}`, linkTo(devicePath(pci), devicePath(vf))]),
  ];
}

function refuseVectors(): void {
  throw new Errno('EOPNOTSUPP', 'the driver of the physical function does not share out vectors');
}

function storeCount({ system }: SysfsContext, known: PciFunction, count: number): void {
  const { pci, device } = known;
  const { total, enabled } = sriovState(pci);
  if (count > total) {
    throw new Errno(
      'ERANGE',
      `${pci.name} has ${total} virtual functions, ${count} were asked for`,
    );
  }
  if (count === enabled) return;
  if (device.driver?.configuresSriov?.() !== true) {
    const driver = device.driver?.name ?? 'no driver';
    throw new Errno('ENOENT', `${driver} does not enable virtual functions of ${pci.name}`);
  }
  system.setVirtualFunctions(pci.name, count);
}
