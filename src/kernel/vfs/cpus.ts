/** Sets of processors as sysfs prints them. After lib/bitmap-str.c. */

const WORD_BITS = 32;

/** Processors 0 to `count` - 1 as a bitmap: words of 32 bits, highest first. */
export function cpuMask(count: number): string {
  const digits = ((1n << BigInt(count)) - 1n).toString(16);
  const padded = digits.padStart(Math.ceil(count / WORD_BITS) * 8, '0');
  const words = padded.match(/.{8}/g) ?? [];
  return words.length > 1 ? words.join(',') : digits;
}

export function cpuList(count: number): string {
  return count === 1 ? '0' : `0-${count - 1}`;
}
