/**
 * How the kernel reads what is written to attributes.
 *
 * After lib/kstrtox.c (kstrtoul, kstrtobool), lib/string_helpers.c (sysfs_streq).
 */
import { Errno } from '../../base/errno.ts';

const LARGEST = 0xffff_ffff_ffff_ffffn;

/**
 * An unsigned number: decimal, 0x hexadecimal, 0 octal; a plus sign before and a newline behind are allowed.
 * @throws Errno EINVAL, ERANGE above `most`
 */
export function unsigned(text: string, most = LARGEST): bigint {
  const [value = ''] = text.split('\0', 1);
  const match = /^\+?(?:0x([0-9a-f]+)|(0[0-7]*)|([1-9][0-9]*))\n?$/i.exec(value);
  if (match === null) throw new Errno('EINVAL', `${quoted(text)} is not an unsigned number`);
  const [, hexadecimal, octal, decimal] = match;
  const number =
    hexadecimal !== undefined
      ? BigInt(`0x${hexadecimal}`)
      : octal !== undefined
        ? BigInt(`0o${octal.padStart(2, '0')}`)
        : BigInt(decimal ?? '0');
  if (number > most) throw new Errno('ERANGE', `${number} is above ${most}`);
  return number;
}

/** The same where every failure is EINVAL. */
export function unsignedOrInvalid(text: string): bigint {
  try {
    return unsigned(text);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    throw new Errno('EINVAL', error.message);
  }
}

/** A signed number. EINVAL. */
export function signed(text: string): bigint {
  return text.startsWith('-') ? -unsignedOrInvalid(text.slice(1)) : unsignedOrInvalid(text);
}

/** y, n, t, f, 1, 0, on, off: only the first letters count; undefined for anything else. */
export function boolean(text: string): boolean | undefined {
  if (/^[ytYT1]/.test(text) || /^o[n]/i.test(text)) return true;
  if (/^[nfNF0]/.test(text) || /^o[f]/i.test(text)) return false;
  return undefined;
}

/** @throws Errno EINVAL */
export function booleanOrInvalid(text: string): boolean {
  const value = boolean(text);
  if (value === undefined) throw new Errno('EINVAL', `${quoted(text)} is neither true nor false`);
  return value;
}

/** The text up to a zero byte, without one newline at its end: what sysfs_streq compares. */
export function word(text: string): string {
  const [value = ''] = text.split('\0', 1);
  return value.endsWith('\n') ? value.slice(0, -1) : value;
}

/** For reasons. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
}
