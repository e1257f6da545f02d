/**
 * Hot reset: resetting a whole bus with everything on it, when the caller shows that all of it is in the hands of one user. Through a
 * group, the proof is an open file of each group; through device nodes, that all devices belong to one IOMMUFD.
 *
 * After drivers/vfio/pci/vfio_pci_core.c (vfio_pci_dev_set_*, hot reset ioctls).
 */
import { Errno } from '../../base/errno.ts';
import type { Task } from '../../base/task.ts';
import type { PciDevice } from '../../machine/pci/device.ts';
import { D0 } from '../../machine/pci/managed-function.ts';
import { canResetBus, functionsBehind, tryResetBus } from '../../machine/pci/reset.ts';
import {
  VFIO_PCI_DEVID_NOT_OWNED,
  VFIO_PCI_DEVID_OWNED,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
  VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED,
} from '../../uapi/vfio.ts';
import { GroupFile } from '../group-file.ts';
import type { IommufdContext } from '../iommufd.ts';
import type { VfioPciDevice } from './device.ts';

/** A function that a hot reset hits. */
export type Affected = { readonly pci: PciDevice; readonly id: number };

/** Functions that a reset of the device's bus hits. ENODEV where it cannot be reset. */
export function affectedFunctions({ pci }: VfioPciDevice): PciDevice[] {
  if (!canResetBus(pci.bus)) {
    throw new Errno('ENODEV', `${pci.name} is on root bus ${pci.bus.name}, which cannot be reset`);
  }
  return functionsBehind(pci.bus);
}

/**
 * What HOT_RESET_INFO says: by group, or by device ID for a device that was opened through its own node.
 * @throws Errno EPERM for a function without group
 */
export function describeAffected(
  device: VfioPciDevice,
  functions: readonly PciDevice[],
): { flags: number; affected: Affected[] } {
  const { vfio } = device;
  if (vfio?.cdevOpened !== true) {
    return { flags: 0, affected: functions.map((pci) => ({ pci, id: groupIdOf(device, pci) })) };
  }
  const context = vfio.binding?.context;
  const affected = functions.map((pci) => {
    const member = device.set?.find(pci);
    return { pci, id: member === undefined ? VFIO_PCI_DEVID_NOT_OWNED : devIdOf(member, context) };
  });
  const owned = affected.every(({ id }) => id !== VFIO_PCI_DEVID_NOT_OWNED);
  return {
    flags: VFIO_PCI_HOT_RESET_FLAG_DEV_ID | (owned ? VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED : 0),
    affected,
  };
}

function groupIdOf({ functions }: VfioPciDevice, pci: PciDevice): number {
  const id = functions.groupId(pci);
  if (id === undefined) throw new Errno('EPERM', `${pci.name} has no IOMMU group`);
  return id;
}

/** ID in the context; OWNED for an unbound device of a group that the context owns. After vfio_iommufd_get_dev_id. */
function devIdOf({ vfio }: VfioPciDevice, context: IommufdContext | undefined): number {
  const binding = vfio?.binding;
  if (binding !== undefined && binding.context === context) return binding.id;
  const group = vfio?.iommu.group;
  const owned = group !== undefined && context?.hasGroup(group) === true;
  return owned ? VFIO_PCI_DEVID_OWNED : VFIO_PCI_DEVID_NOT_OWNED;
}

/** What shows that a device is in the caller's hands. */
type Proof = (member: VfioPciDevice) => boolean;

/**
 * HOT_RESET by group files. EINVAL for more of them than functions or for other files, EBADF, and as {@link resetSet}.
 */
export function hotResetByGroups(device: VfioPciDevice, task: Task, fds: readonly number[]): void {
  const files = fds.map((fd) => {
    const file = task.file(fd);
    if (file instanceof GroupFile) return file;
    throw new Errno(
      'EINVAL',
      `fd ${fd} is ${file?.name ?? 'a file of the host'}, not a VFIO group`,
    );
  });
  resetSet(device, (member) => files.some(({ group }) => group === member.vfio?.group));
}

/** HOT_RESET of a device that was opened through its own node. */
export function hotResetByIommufd(device: VfioPciDevice): void {
  const context = device.vfio?.binding?.context;
  resetSet(device, (member) => devIdOf(member, context) !== VFIO_PCI_DEVID_NOT_OWNED);
}

/**
 * Resets the bus of a device set. EINVAL unless everything on it is bound to vfio-pci and shown to be the caller's; ENOTTY where the
 * link does not come back.
 */
function resetSet(device: VfioPciDevice, proof: Proof): void {
  const members = device.set?.members ?? [];
  const outside = foreigner(device);
  if (outside !== undefined) {
    throw new Errno('EINVAL', `${outside.name} would be reset too and is not bound to vfio-pci`);
  }
  for (const member of members) member.wake();
  try {
    for (const member of members) {
      if (!proof(member)) {
        throw new Errno('EINVAL', `${member.name} would be reset too and is not the caller's`);
      }
      member.zap();
    }
    for (const member of members) member.setPowerState(D0);
    tryResetBus(device.pci.bus, device.functions);
  } finally {
    for (const member of [...members].reverse()) member.unzap();
    for (const member of members) member.idle();
  }
}

/** A function that the reset hits and that is not of the set. */
function foreigner(device: VfioPciDevice): PciDevice | undefined {
  return functionsBehind(device.pci.bus).find((pci) => device.set?.find(pci) === undefined);
}

/**
 * A device was closed: where nobody uses any other one of its set and one of them was not reset since, the bus is.
 * After vfio_pci_dev_set_try_reset.
 */
export function tryResetSet(device: VfioPciDevice): void {
  const members = device.set?.members ?? [];
  const others = members.filter((member) => member !== device && member.isOpen);
  if (others.length > 0 || !members.some(({ needsReset }) => needsReset)) return;
  if (!canResetBus(device.pci.bus) || foreigner(device) !== undefined) return;
  for (const member of members) member.wake();
  let done = true;
  try {
    tryResetBus(device.pci.bus, device.functions);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    done = false;
  }
  for (const member of members) {
    if (done) member.needsReset = false;
    member.idle();
  }
}
