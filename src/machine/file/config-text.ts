/**
 * Configuration space as text: hexadecimal digits, or lines `OFFSET: BYTES` as `lspci -xxxx` prints them, where lines of
 * zeros may be left out. The last line says how long it is.
 */
import { bytesOfHex, hexOfBytes } from '../hex.ts';
import {
  CONFIG_LENGTHS,
  CONVENTIONAL_BYTES,
  EXPRESS_BYTES,
  HEADER_BYTES,
  type ConfigSpace,
} from '../pci/config-space.ts';

const LINE = /^([0-9a-f]{1,3}):\s+([0-9a-f\s]+)$/i;
// The title that lspci puts above its lines.
const TITLE = /^(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\s/i;
const BYTES_PER_LINE = 32;

/** @returns the bytes, or what is wrong with the text */
export function parseConfigText(text: string): Uint8Array | { readonly problem: string } {
  return text.includes(':') ? parseLines(text) : parseDigits(text);
}

function parseDigits(text: string): Uint8Array | { readonly problem: string } {
  const bytes = bytesOfHex(text);
  if (bytes === undefined) {
    return { problem: 'this is not configuration space; expected pairs of hexadecimal digits' };
  }
  if (CONFIG_LENGTHS.includes(bytes.length)) return bytes;
  const nearest = CONFIG_LENGTHS.reduce((best, length) =>
    Math.abs(length - bytes.length) < Math.abs(best - bytes.length) ? length : best,
  );
  return {
    problem:
      `configuration space has ${bytes.length} bytes; expected ${HEADER_BYTES} (header), ` +
      `${CONVENTIONAL_BYTES} (conventional) or ${EXPRESS_BYTES} (PCI Express), the nearest is ${nearest}`,
  };
}

function parseLines(text: string): Uint8Array | { readonly problem: string } {
  let bytes = new Uint8Array(HEADER_BYTES);
  let end = 0;
  for (const line of text.split('\n').map((raw) => raw.trim())) {
    if (line === '' || TITLE.test(line)) continue;
    const match = LINE.exec(line);
    const part = match === null ? undefined : bytesOfHex(match[2] ?? '');
    const offset = Number.parseInt(match?.[1] ?? '', 16);
    if (part === undefined) {
      return {
        problem: `"${line.slice(0, 20)}" is not a line of configuration space; expected OFFSET: BYTES`,
      };
    }
    if (offset < end) {
      return { problem: `offset ${offset.toString(16)} comes again; expected rising offsets` };
    }
    end = offset + part.length;
    if (end > EXPRESS_BYTES) {
      return {
        problem: `configuration space ends at ${EXPRESS_BYTES}; this line goes on to ${end}`,
      };
    }
    if (end > bytes.length) bytes = grown(bytes, end);
    bytes.set(part, offset);
  }
  return bytes;
}

/** The same bytes in the next length that configuration space can have. */
function grown(bytes: Uint8Array, end: number): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(CONFIG_LENGTHS.find((length) => end <= length) ?? EXPRESS_BYTES);
  larger.set(bytes);
  return larger;
}

/** Lines that {@link parseConfigText} reads back to the same bytes; zeros are left out. */
export function formatConfig(config: ConfigSpace): string[] {
  const lines: string[] = [];
  const { bytes } = config;
  for (let offset = 0; offset < bytes.length; offset += BYTES_PER_LINE) {
    const part = bytes.subarray(offset, offset + BYTES_PER_LINE);
    const last = offset + BYTES_PER_LINE >= bytes.length;
    if (!last && part.every((byte) => byte === 0)) continue;
    lines.push(`${offset.toString(16).padStart(3, '0')}: ${hexOfBytes(part)}`);
  }
  return lines;
}
