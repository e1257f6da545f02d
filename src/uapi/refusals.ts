/**
 * Refusals that many ioctls share, worded once: unknown flags with the names of those that exist, reserved fields that are
 * set. The errno is the caller's, because IOMMUFD answers EOPNOTSUPP where VFIO answers EINVAL.
 */
import { Errno, type ErrnoCode } from '../base/errno.ts';
import { hex } from '../base/position.ts';
import type { Struct } from '../base/struct.ts';

/**
 * "unknown flags 0x80 (supported: FIXED_IOVA, WRITEABLE)".
 * @param struct whose field `flags` was given
 * @param given the field's value, with at least one bit outside of `known`
 * @param known the flags that the call supports
 */
export function unknownFlags(
  struct: Struct,
  given: number,
  known = 0,
  code: ErrnoCode = 'EOPNOTSUPP',
): Errno {
  const meaning = struct.fields['flags']?.meaning;
  const names =
    meaning?.show === 'flags'
      ? Object.entries(meaning.values)
          .filter(([, value]) => (value & known) === value && value !== 0)
          .map(([name]) => name.replace(meaning.prefix, ''))
      : [];
  const supported = names.length === 0 ? 'none is supported' : `supported: ${names.join(', ')}`;
  return new Errno(code, `unknown flags ${hex((given & ~known) >>> 0)} (${supported})`);
}

/** "__reserved is 0x1, must be 0". IOMMUFD answers EOPNOTSUPP, because a later version may give the field a meaning. */
export function reservedSet(value: number | bigint): Errno {
  return new Errno('EOPNOTSUPP', `__reserved is ${hex(value)}, must be 0`);
}
