/** Bytes as hexadecimal digits. */

// Value of a digit by its character code; 0xff for what is none.
const VALUES = new Uint8Array(256).fill(0xff);
for (let digit = 0; digit < 16; digit += 1) {
  VALUES[digit.toString(16).charCodeAt(0)] = digit;
  VALUES[digit.toString(16).toUpperCase().charCodeAt(0)] = digit;
}

/** Digits in pairs, blanks ignored; undefined if it is anything else. */
export function bytesOfHex(text: string): Uint8Array | undefined {
  const digits = /\s/.test(text) ? text.replace(/\s+/g, '') : text;
  if (digits.length % 2 !== 0) return undefined;
  const bytes = new Uint8Array(digits.length / 2);
  for (let i = 0; i < bytes.length; i += 1) {
    const high = VALUES[digits.charCodeAt(2 * i)] ?? 0xff;
    const low = VALUES[digits.charCodeAt(2 * i + 1)] ?? 0xff;
    if ((high | low) > 0xf) return undefined;
    bytes[i] = (high << 4) | low;
  }
  return bytes;
}

const DIGITS = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

export function hexOfBytes(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += DIGITS[byte] ?? '';
  return text;
}
