/**
 * What `sysdump` prints of a tree of names, and what `sysfuzz` does with it, in process: the same texts, so that they can be
 * compared with those of a real kernel line by line. ../shared/sysfs/sysdump.c and sysfuzz.c are the judges' sources.
 */
import { Errno } from '../src/base/errno.ts';
import { lookup, readAttribute, type Directory, type Entry } from '../src/kernel/vfs/tree.ts';

/** Names that sysdump leaves out wherever it meets them. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  ...'power firmware_node net nvme block scsi_host rtc tty drm graphics sound wakeup link ptp hwmon thermal mtd'.split(
    ' ',
  ),
  ...'i2c-0 i2c-dev usb1 usb2 usb3 usb4 usbmon input'.split(' '),
]);

const PAGE = 4096;

/** @param paths of directories and files @returns the lines that sysdump prints */
export function dump(root: Directory, paths: readonly string[]): string[] {
  return paths.flatMap((path) => {
    const entry = lookup(root, path);
    return entry === undefined ? [`? ${path} E2`] : walk(path, entry);
  });
}

const octal = (mode: number): string => mode.toString(8);

function walk(path: string, entry: Entry): string[] {
  switch (entry.kind) {
    case 'link':
      return [`L ${path} -> ${entry.target}`];
    case 'node':
      return [`C ${octal(entry.mode)} ${entry.major}:${entry.minor} ${path}`];
    case 'attribute':
      return [fileLine(path, entry)];
    case 'directory': {
      const entries = entry.list().filter(([name]) => !LEFT_OUT.has(name));
      entries.sort(([a], [b]) => (a < b ? -1 : 1));
      return [
        `D ${octal(entry.mode)} ${path}`,
        ...entries.flatMap(([name, child]) => walk(`${path}/${name}`, child)),
      ];
    }
  }
}

function fileLine(path: string, file: Extract<Entry, { kind: 'attribute' }>): string {
  const name = path.slice(path.lastIndexOf('/') + 1);
  const head = `F ${octal(file.mode)} ${file.size} ${path}`;
  if ((file.mode & 0o444) === 0 || /^resource.|^rom$|^vpd/.test(name)) return head;
  try {
    const bytes = readAttribute(file, 0, PAGE);
    return name === 'config' ? `${head} =${hashes(bytes)}` : `${head} = ${escaped(bytes)}`;
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    return `${head} E${error.number}`;
  }
}

const FNV_OFFSET = 2_166_136_261;
const FNV_PRIME = 16_777_619;
const ROW = 64;

function hashes(bytes: Uint8Array): string {
  let text = '';
  for (let row = 0; row < bytes.length; row += ROW) {
    let hash = FNV_OFFSET;
    for (const byte of bytes.subarray(row, row + ROW))
      hash = Math.imul(hash ^ byte, FNV_PRIME) >>> 0;
    text += ` ${hash.toString(16).padStart(8, '0')}`;
  }
  return text;
}

/** Printable bytes as they are; newline, and with `backslash` that too, as C writes them. */
export function escaped(bytes: Uint8Array, backslash = true): string {
  return Array.from(bytes, (byte) => {
    if (byte === 0x0a) return '\\n';
    if (byte === 0x5c && backslash) return '\\\\';
    return byte >= 0x20 && byte < 0x7f
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, '0')}`;
  }).join('');
}
