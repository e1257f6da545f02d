/**
 * The ioctls of a device under vfio-pci: info, interrupts, resets, ioeventfds, each with Linux's order of checks.
 *
 * After drivers/vfio/pci/vfio_pci_core.c and vfio_set_irqs_validate_and_prepare of drivers/vfio/vfio_main.c.
 */
import { Errno } from '../../base/errno.ts';
import type { Task } from '../../base/task.ts';
import { unknownFlags } from '../../uapi/refusals.ts';
import { VFIO_IOCTLS as spec } from '../../uapi/vfio-ioctls.ts';
import type { vfio_irq_info } from '../../uapi/vfio.ts';
import {
  VFIO_DEVICE_FLAGS_CAPS,
  VFIO_DEVICE_IOEVENTFD_SIZE_MASK,
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_REGION_INFO_FLAG_CAPS,
  vfio_device_info,
  vfio_device_ioeventfd,
  vfio_irq_set,
  vfio_pci_dependent_device,
  vfio_pci_hot_reset,
  vfio_pci_hot_reset_info,
  vfio_region_info,
} from '../../uapi/vfio.ts';
import { addAtomicCompletion } from './atomic.ts';
import { CapabilityChain } from '../capability-chain.ts';
import { featureCall } from '../feature.ts';
import { IoctlTable, op, type Vcmd } from '../vcmd.ts';
import type { VfioPciDevice } from './device.ts';
import { pciFeature } from './features.ts';
import { describeRegion, regionOf } from './region-info.ts';
import {
  affectedFunctions,
  describeAffected,
  hotResetByGroups,
  hotResetByIommufd,
  type Affected,
} from './reset.ts';

/** What a device under vfio-pci takes; everything else is ENOTTY. */
export const PCI_IOCTLS = new IoctlTable<VfioPciDevice>('device', [
  op(spec.VFIO_DEVICE_GET_INFO, getInfo),
  op(spec.VFIO_DEVICE_GET_REGION_INFO, getRegionInfo),
  op(spec.VFIO_DEVICE_GET_IRQ_INFO, getIrqInfo),
  op(spec.VFIO_DEVICE_SET_IRQS, setIrqs),
  op(spec.VFIO_DEVICE_RESET, (device: VfioPciDevice) => {
    device.reset();
    return 0;
  }),
  op(spec.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, getHotResetInfo),
  op(spec.VFIO_DEVICE_PCI_HOT_RESET, hotReset),
  op(spec.VFIO_DEVICE_IOEVENTFD, setIoEventfd),
  op(spec.VFIO_DEVICE_FEATURE, (device: VfioPciDevice, vcmd) =>
    pciFeature(device, featureCall(vcmd.read())),
  ),
]);

function getInfo(device: VfioPciDevice, vcmd: Vcmd<typeof vfio_device_info.fields>): number {
  const given = vcmd.read();
  const { value, argsz } = given;
  const chain = new CapabilityChain();
  addAtomicCompletion(chain, device.managed);
  value.flags = device.flags;
  value.num_regions = VFIO_PCI_NUM_REGIONS;
  value.num_irqs = VFIO_PCI_NUM_IRQS;
  value.cap_offset = 0;
  if (chain.size > 0) {
    value.flags |= VFIO_DEVICE_FLAGS_CAPS;
    putChain(given, chain, vfio_device_info.size);
  }
  given.respond(Math.min(argsz, vfio_device_info.size));
  return 0;
}

/** Behind the struct if the client has room for it; else the client is told how much it takes. */
function putChain(
  given: {
    readonly task: Task;
    readonly address: bigint;
    readonly value: { argsz: number; cap_offset: number };
  },
  chain: CapabilityChain,
  start: number,
): void {
  const { task, address, value } = given;
  value.cap_offset = 0;
  if (value.argsz < start + chain.size) {
    value.argsz = start + chain.size;
    return;
  }
  task.memory.copyOut(address + BigInt(start), chain.bytes(start));
  value.cap_offset = start;
}

function getRegionInfo(device: VfioPciDevice, vcmd: Vcmd<typeof vfio_region_info.fields>): number {
  const given = vcmd.read();
  const { value } = given;
  const region = describeRegion(device, value.index);
  value.flags = region.flags;
  value.size = BigInt(region.size);
  value.offset = region.offset;
  if (region.chain.size > 0) {
    value.flags |= VFIO_REGION_INFO_FLAG_CAPS;
    putChain(given, region.chain, vfio_region_info.size);
  }
  given.respond();
  return 0;
}

/** How many interrupts an index has. */
function irqCount({ managed, open }: VfioPciDevice, index: number): number {
  switch (index) {
    case VFIO_PCI_INTX_IRQ_INDEX:
      return open.config.hasPin ? 1 : 0;
    case VFIO_PCI_MSI_IRQ_INDEX:
      return managed.messages.count('msi');
    case VFIO_PCI_MSIX_IRQ_INDEX:
      return managed.messages.count('msix');
    default:
      return index < VFIO_PCI_NUM_IRQS ? 1 : 0;
  }
}

function getIrqInfo(device: VfioPciDevice, vcmd: Vcmd<typeof vfio_irq_info.fields>): number {
  const given = vcmd.read();
  const { value } = given;
  const { index } = value;
  if (index >= VFIO_PCI_NUM_IRQS) throw new Errno('EINVAL', `there is no interrupt index ${index}`);
  const count = irqCount(device, index);
  value.flags = VFIO_IRQ_INFO_EVENTFD;
  // Vectors can be added while MSI-X is enabled, if there are any.
  const dynamic = index === VFIO_PCI_MSIX_IRQ_INDEX && count > 0;
  if (index === VFIO_PCI_INTX_IRQ_INDEX) {
    value.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
  } else if (!dynamic) value.flags |= VFIO_IRQ_INFO_NORESIZE;
  value.count = count;
  given.respond();
  return 0;
}

const U32_MAX = 0xffff_ffff;

function setIrqs(device: VfioPciDevice, vcmd: Vcmd<typeof vfio_irq_set.fields>): number {
  const { value, argsz } = vcmd.read();
  checkIrqSet(value, irqCount(device, value.index));
  const head = vfio_irq_set.endOf('count');
  const bytes = irqDataSize(value.flags) * value.count;
  if (bytes > 0 && argsz - head < bytes) {
    throw new Errno('EINVAL', `argsz ${argsz} ends before the data, which takes ${bytes}`);
  }
  const data = new Uint8Array(bytes);
  if (bytes > 0) vcmd.task.memory.copyIn(vcmd.argument + BigInt(head), data);
  const { flags, index, start, count } = value;
  const call = { flags, index, start, count, data: new DataView(data.buffer) };
  device.interrupts.set(vcmd.task, call);
  return 0;
}

function checkIrqSet({ index, flags, start, count }: vfio_irq_set, most: number): void {
  const known = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK;
  if (index >= VFIO_PCI_NUM_IRQS) throw new Errno('EINVAL', `there is no interrupt index ${index}`);
  if (count >= U32_MAX - start) throw new Errno('EINVAL', `count ${count} is too large`);
  if ((flags & ~known) !== 0) throw unknownFlags(vfio_irq_set, flags, known, 'EINVAL');
  if (start >= most || start + count > most) {
    throw new Errno(
      'EINVAL',
      `start ${start} and count ${count}: index ${index} has ${most} interrupts`,
    );
  }
  const type = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
  if (irqDataSize(flags) === 0 && type !== VFIO_IRQ_SET_DATA_NONE) {
    throw new Errno('EINVAL', 'exactly one of DATA_NONE, DATA_BOOL and DATA_EVENTFD must be set');
  }
}

/** Bytes of data for each interrupt; 0 for NONE and for what is not allowed. */
function irqDataSize(flags: number): number {
  const type = flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
  if (type === VFIO_IRQ_SET_DATA_BOOL) return 1;
  return type === VFIO_IRQ_SET_DATA_EVENTFD ? 4 : 0;
}

function getHotResetInfo(
  device: VfioPciDevice,
  vcmd: Vcmd<typeof vfio_pci_hot_reset_info.fields>,
): number {
  const given = vcmd.read();
  const { value, argsz } = given;
  value.flags = 0;
  const functions = affectedFunctions(device);
  const head = vfio_pci_hot_reset_info.endOf('count');
  value.count = functions.length;
  if (functions.length > Math.floor((argsz - head) / vfio_pci_dependent_device.size)) {
    given.respond();
    throw new Errno('ENOSPC', `argsz ${argsz} has no room for ${functions.length} functions`);
  }
  const { flags, affected } = describeAffected(device, functions);
  value.flags = flags;
  vcmd.task.memory.copyOut(vcmd.argument + BigInt(head), encodeAffected(affected));
  given.respond();
  return 0;
}

function encodeAffected(affected: readonly Affected[]): Uint8Array {
  const { size } = vfio_pci_dependent_device;
  const bytes = new Uint8Array(size * affected.length);
  const view = new DataView(bytes.buffer);
  affected.forEach(({ pci: { address }, id }, i) => {
    const at = i * size;
    view.setInt32(at + vfio_pci_dependent_device.offsetOf('id'), id, true);
    view.setUint16(at + vfio_pci_dependent_device.offsetOf('segment'), address.domain, true);
    view.setUint8(at + vfio_pci_dependent_device.offsetOf('bus'), address.bus);
    view.setUint8(at + vfio_pci_dependent_device.offsetOf('devfn'), address.devfn);
  });
  return bytes;
}

function hotReset(device: VfioPciDevice, vcmd: Vcmd<typeof vfio_pci_hot_reset.fields>): number {
  const { value } = vcmd.read();
  if (value.flags !== 0) throw unknownFlags(vfio_pci_hot_reset, value.flags, 0, 'EINVAL');
  const byNode = device.vfio?.cdevOpened === true;
  if ((value.count !== 0) === byNode) {
    throw new Errno(
      'EINVAL',
      byNode
        ? `${device.name} was opened by its own node: count must be 0`
        : `${device.name} was opened through its group: group fds must be given`,
    );
  }
  const affected = affectedFunctions(device);
  if (byNode) {
    hotResetByIommufd(device);
    return 0;
  }
  if (value.count > affected.length) {
    throw new Errno('EINVAL', `${value.count} groups for ${affected.length} functions`);
  }
  const bytes = new Uint8Array(4 * value.count);
  const head = vfio_pci_hot_reset.endOf('count');
  vcmd.task.memory.copyIn(vcmd.argument + BigInt(head), bytes);
  const view = new DataView(bytes.buffer);
  const fds = Array.from({ length: value.count }, (_, i) => view.getInt32(4 * i, true));
  hotResetByGroups(device, vcmd.task, fds);
  return 0;
}

function setIoEventfd(
  device: VfioPciDevice,
  vcmd: Vcmd<typeof vfio_device_ioeventfd.fields>,
): number {
  const { value } = vcmd.read();
  const { flags, offset, data, fd } = value;
  const known = VFIO_DEVICE_IOEVENTFD_SIZE_MASK;
  if ((flags & ~known) !== 0) throw unknownFlags(vfio_device_ioeventfd, flags, known, 'EINVAL');
  if (![1, 2, 4, 8].includes(flags)) throw new Errno('EINVAL', 'exactly one width must be set');
  if (fd < -1) throw new Errno('EINVAL', `${fd} is not a valid fd`);
  const { index, position } = regionOf(offset);
  const write = { bar: index, offset: position, count: flags, value: data };
  device.open.ioeventfds.set(vcmd.task, write, fd);
  return 0;
}
