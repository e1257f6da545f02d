/**
 * Features of a device under vfio-pci: VF tokens, low power, dma-bufs.
 *
 * After drivers/vfio/pci/vfio_pci_core.c (vfio_pci_core_ioctl_feature).
 */
import { Errno } from '../../base/errno.ts';
import {
  VFIO_DEVICE_FEATURE_DMA_BUF,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
  VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP,
  VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
  VFIO_DEVICE_FEATURE_PCI_VF_TOKEN,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature_dma_buf,
  vfio_device_low_power_entry_with_wakeup,
  vfio_region_dma_range,
} from '../../uapi/vfio.ts';
import { checkFeature, type FeatureCall } from '../feature.ts';
import type { VfioPciDevice } from './device.ts';
import { UUID_BYTES } from './vf-token.ts';

/** @returns what the call answers; throws Errno ENOTTY for a feature that the device does not have */
export function pciFeature(device: VfioPciDevice, call: FeatureCall): number {
  switch (call.index) {
    case VFIO_DEVICE_FEATURE_PCI_VF_TOKEN:
      return setToken(device, call);
    case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY:
      if (checkFeature(call, VFIO_DEVICE_FEATURE_SET, 0)) device.enterLowPower(undefined);
      return 0;
    case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP:
      return enterWithWakeUp(device, call);
    case VFIO_DEVICE_FEATURE_LOW_POWER_EXIT:
      if (checkFeature(call, VFIO_DEVICE_FEATURE_SET, 0)) device.leaveLowPower();
      return 0;
    case VFIO_DEVICE_FEATURE_DMA_BUF:
      return exportDmaBuf(device, call);
    default:
      throw new Errno('ENOTTY', `${device.name} has no feature ${call.index}`);
  }
}

function setToken(device: VfioPciDevice, call: FeatureCall): number {
  const { tokens } = device;
  if (!tokens.has(device.pci)) {
    throw new Errno('ENOTTY', `${device.name} has no virtual functions, so it takes no token`);
  }
  if (!checkFeature(call, VFIO_DEVICE_FEATURE_SET, UUID_BYTES)) return 0;
  const uuid = new Uint8Array(UUID_BYTES);
  call.task.memory.copyIn(call.payload, uuid);
  tokens.set(device.pci, uuid);
  return 0;
}

function enterWithWakeUp(device: VfioPciDevice, call: FeatureCall): number {
  const struct = vfio_device_low_power_entry_with_wakeup;
  if (!checkFeature(call, VFIO_DEVICE_FEATURE_SET, struct.size)) return 0;
  const bytes = new Uint8Array(struct.size);
  call.task.memory.copyIn(call.payload, bytes);
  const { wakeup_eventfd: fd } = struct.decode(bytes);
  if (fd < 0) throw new Errno('EINVAL', `${fd} is not a valid fd`);
  const signal = call.task.eventfd(fd);
  try {
    device.enterLowPower(signal);
  } catch (error) {
    signal.release();
    throw error;
  }
  return 0;
}

/** More ranges than this are not read: the kernel fails to allocate as much as they take. */
const MOST_RANGES = 2 ** 27;

function exportDmaBuf(device: VfioPciDevice, call: FeatureCall): number {
  const struct = vfio_device_feature_dma_buf;
  if (!checkFeature(call, VFIO_DEVICE_FEATURE_GET, struct.size)) return 0;
  const bytes = new Uint8Array(struct.size);
  call.task.memory.copyIn(call.payload, bytes);
  const given = struct.decode(bytes);
  if (given.nr_ranges === 0 || given.flags !== 0) {
    throw new Errno(
      'EINVAL',
      `nr_ranges is ${given.nr_ranges}, flags are 0x${given.flags.toString(16)}`,
    );
  }
  device.dmaBufs.requireBar(given.region_index);
  if (given.nr_ranges > MOST_RANGES) throw new Errno('ENOMEM', `${given.nr_ranges} ranges`);
  const ranges = Array.from({ length: given.nr_ranges }, (_, i) => {
    const range = new Uint8Array(vfio_region_dma_range.size);
    const at = call.payload + BigInt(struct.size + i * vfio_region_dma_range.size);
    call.task.memory.copyIn(at, range);
    return vfio_region_dma_range.decode(range);
  });
  return device.dmaBufs.export(call.task, given.region_index, ranges, given.open_flags);
}
