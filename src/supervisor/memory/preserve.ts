/**
 * Pages that outlive their address space: a sparse memfd that keeps each page at the offset of its old address. Only pages
 * that were ever touched are copied; the others read as zeros, as they would have.
 */
import { Errno } from '../../base/errno.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import { allocate, type Block } from '../../os/arena.ts';
import { closeFile, createMemfd, openPath, readAt, resizeFile, writeAt } from '../../os/files.ts';
import { sys } from '../../os/libc.ts';
import { NR, O_RDONLY } from '../../os/numbers.ts';

const CHUNK_PAGES = 64;

const PAGEMAP_SCAN = 0xc0606610;
const PAGE_IS_PRESENT = 8n;
const PAGE_IS_SWAPPED = 16n;
const SCAN_SIZE = 96;
const REGION_SIZE = 24;
const REGIONS = 256;

/** An open /proc/PID/mem, and the path of the pagemap beside it. */
type Source = { readonly memory: number; readonly pagemap: string };

type Pages = { readonly page: number; readonly count: number };

export class PreservedPages {
  readonly #name: string;
  readonly #fd: number;

  constructor(name: string, fd: number) {
    this.#name = name;
    this.#fd = fd;
  }

  read(offset: number, into: Uint8Array): void {
    if (readAt(this.#fd, into, offset) !== into.length) throw this.#gone(offset);
  }

  write(offset: number, bytes: Uint8Array): void {
    if (writeAt(this.#fd, bytes, offset) !== bytes.length) throw this.#gone(offset);
  }

  close(): void {
    closeFile(this.#fd);
  }

  #gone(offset: number): Errno {
    return new Errno('EFAULT', `nothing was kept of ${this.#name} at 0x${offset.toString(16)}`);
  }
}

/**
 * Copies pages out of a process.
 * @param memory open /proc/PID/mem; addresses are offsets
 * @param pagemap open /proc/PID/pagemap or a negative number
 */
function copyPages(memory: number, pagemap: number, pages: Pages, into: number): void {
  const buffer = new Uint8Array(CHUNK_PAGES * PAGE_BYTES);
  for (const { page, count } of touched(pagemap, pages)) {
    for (let done = 0; done < count; done += CHUNK_PAGES) {
      const length = Math.min(CHUNK_PAGES, count - done) * PAGE_BYTES;
      const offset = (page + done) * PAGE_BYTES;
      const piece = buffer.subarray(0, length);
      const got = readAt(memory, piece, offset);
      if (got > 0) writeAt(into, piece.subarray(0, got), offset);
    }
  }
}

/**
 * Keeps pages of an address space that is about to end.
 * @param source where its bytes are; none of its memory is copied if that is negative
 */
export function preservePages(
  name: string,
  { memory, pagemap: path }: Source,
  pages: readonly Pages[],
): PreservedPages {
  const fd = createMemfd('uiommu-pinned');
  if (fd < 0) throw new Error(`no memfd to keep ${name}: errno ${-fd}`);
  const end = Math.max(...pages.map(({ page, count }) => page + count));
  resizeFile(fd, end * PAGE_BYTES);
  if (memory < 0) return new PreservedPages(name, fd);
  const pagemap = openPath(path, O_RDONLY);
  for (const run of pages) copyPages(memory, pagemap, run, fd);
  if (pagemap >= 0) closeFile(pagemap);
  return new PreservedPages(name, fd);
}

let scan: Block | undefined;

// What is neither in memory nor swapped out was never touched. A kernel before 6.7 cannot be asked: then all is copied.
function touched(pagemap: number, pages: Pages): Pages[] {
  if (pagemap < 0) return [pages];
  scan ??= allocate(SCAN_SIZE + REGIONS * REGION_SIZE);
  const { view, bytes, address } = scan;
  const runs: Pages[] = [];
  const end = (pages.page + pages.count) * PAGE_BYTES;
  for (let start = pages.page * PAGE_BYTES; start < end;) {
    bytes.fill(0, 0, SCAN_SIZE);
    const words = [SCAN_SIZE, 0, start, end, 0, address + SCAN_SIZE, REGIONS, 0];
    words.forEach((word, i) => {
      view.setBigUint64(8 * i, BigInt(word), true);
    });
    view.setBigUint64(80, PAGE_IS_PRESENT | PAGE_IS_SWAPPED, true); // category_anyof_mask
    view.setBigUint64(88, PAGE_IS_PRESENT, true); // return_mask
    const found = sys(NR.ioctl, pagemap, PAGEMAP_SCAN, address);
    if (found < 0) return [pages];
    for (let i = 0; i < found; i++) {
      const at = SCAN_SIZE + i * REGION_SIZE;
      const first = Number(view.getBigUint64(at, true)) / PAGE_BYTES;
      const last = Number(view.getBigUint64(at + 8, true)) / PAGE_BYTES;
      runs.push({ page: first, count: last - first });
    }
    const walked = Number(view.getBigUint64(32, true));
    if (walked <= start) break;
    start = walked;
  }
  return runs;
}
