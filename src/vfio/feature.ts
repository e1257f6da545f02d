/**
 * VFIO_DEVICE_FEATURE, the part that is the same for every driver: its checks, and features that need a driver with migration or DMA
 * logging, which none here has.
 *
 * After vfio_ioctl_device_feature of drivers/vfio/vfio_main.c and vfio_check_feature of include/linux/vfio.h.
 */
import type { Argument } from '../base/argument.ts';
import { Errno } from '../base/errno.ts';
import type { Task } from '../base/task.ts';
import { unknownFlags } from '../uapi/refusals.ts';
import {
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_GET,
  VFIO_DEVICE_FEATURE_MASK,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_PROBE,
  VFIO_DEVICE_FEATURE_SET,
  vfio_device_feature,
} from '../uapi/vfio.ts';

/** A call of FEATURE: which one, what is asked of it, and where its payload is. */
export type FeatureCall = {
  readonly task: Task;
  readonly index: number;
  readonly flags: number;
  readonly payload: bigint;
  /** in bytes, as the client says */
  readonly payloadSize: number;
};

const MIGRATION: readonly number[] = [
  VFIO_DEVICE_FEATURE_MIGRATION,
  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
  VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
];
/** Linux answers EINVAL here where all the others answer ENOTTY. */
const MIG_PRECOPY_INFO_V2 = 12;

const OPERATIONS = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
const KNOWN = VFIO_DEVICE_FEATURE_MASK | OPERATIONS | VFIO_DEVICE_FEATURE_PROBE;

/** Checks the head of the struct. EINVAL; ENOTTY for features that need migration. */
export function featureCall(given: Argument<typeof vfio_device_feature.fields>): FeatureCall {
  const { task, address } = given;
  const { argsz, flags } = given.value;
  if ((flags & ~KNOWN) !== 0) {
    const named = OPERATIONS | VFIO_DEVICE_FEATURE_PROBE;
    throw unknownFlags(vfio_device_feature, flags & ~VFIO_DEVICE_FEATURE_MASK, named, 'EINVAL');
  }
  if ((flags & VFIO_DEVICE_FEATURE_PROBE) === 0 && (flags & OPERATIONS) === OPERATIONS) {
    throw new Errno('EINVAL', 'GET and SET together are for PROBE only');
  }
  const index = flags & VFIO_DEVICE_FEATURE_MASK;
  if (MIGRATION.includes(index)) {
    throw new Errno('ENOTTY', 'the driver supports neither migration nor DMA logging');
  }
  if (index === MIG_PRECOPY_INFO_V2) {
    throw new Errno('EINVAL', 'the driver does not support pre-copy');
  }
  const head = vfio_device_feature.endOf('flags');
  return { task, index, flags, payload: address + BigInt(head), payloadSize: argsz - head };
}

/**
 * What a feature does first.
 * @param operations of GET and SET, what the feature has
 * @param bytes of payload that it needs
 * @returns false for a PROBE, which is answered with that
 * @throws Errno EINVAL for an operation that it does not have, none at all, or a payload that is too short
 */
export function checkFeature(
  { flags, payloadSize }: FeatureCall,
  operations: number,
  bytes: number,
): boolean {
  if ((flags & OPERATIONS & ~operations) !== 0) {
    throw new Errno('EINVAL', 'the feature does not have this operation');
  }
  if ((flags & VFIO_DEVICE_FEATURE_PROBE) !== 0) return false;
  if ((flags & OPERATIONS) === 0) throw new Errno('EINVAL', 'neither GET, SET nor PROBE');
  if (payloadSize < bytes) {
    throw new Errno('EINVAL', `the payload is ${payloadSize} bytes, the feature takes ${bytes}`);
  }
  return true;
}
