/**
 * Expansion ROMs: how much of one is images. What is not an image is not shown to anybody.
 *
 * After drivers/pci/rom.c (pci_get_rom_size); PCI Firmware Specification 3.3, section 5.1.
 */
const SIGNATURE = 0xaa55;
const HEADER_BYTES = 0x1a;
const POINTER = 0x18;
const SECTOR = 512;
const PCIR = 0x5249_4350;
const DATA = { LENGTH: 0x0a, IMAGE_SECTORS: 0x10, INDICATOR: 0x15, MINIMUM: 0x18 } as const;
const LAST_IMAGE = 0x80;
const ONES = 0xffff;

/** The ROM of a window of `size` bytes: beyond its contents it reads as ones. */
class Window {
  readonly size: number;
  readonly #view: DataView;

  constructor(rom: Uint8Array, size: number) {
    this.size = size;
    const bytes = new Uint8Array(Math.min(size, rom.length)).map((_, i) => rom[i] ?? 0xff);
    this.#view = new DataView(bytes.buffer);
  }

  u16(at: number): number {
    return at + 2 <= this.#view.byteLength ? this.#view.getUint16(at, true) : ONES;
  }

  u32(at: number): number {
    return (this.u16(at) | (this.u16(at + 2) << 16)) >>> 0;
  }

  /** An image may begin here. */
  isHeader(at: number): boolean {
    return at + HEADER_BYTES <= this.size && this.u16(at) === SIGNATURE;
  }

  isDataStructure(at: number): boolean {
    if (at % 4 !== 0 || at + DATA.LENGTH + 2 > this.size || this.u32(at) !== PCIR) return false;
    const length = this.u16(at + DATA.LENGTH);
    return length >= DATA.MINIMUM && length !== ONES && at + length <= this.size;
  }
}

/**
 * Bytes of all images that follow one another, at most the window's; 0 if there is no valid image.
 * @param rom contents
 * @param size of the window that shows it, in bytes
 */
export function romBytes(rom: Uint8Array, size: number): number {
  const window = new Window(rom, size);
  let image = 0;
  while (window.isHeader(image)) {
    const data = image + window.u16(image + POINTER);
    if (!window.isDataStructure(data)) break;
    const sectors = window.u16(data + DATA.IMAGE_SECTORS);
    image += sectors * SECTOR;
    const last = (window.u16(data + DATA.INDICATOR) & LAST_IMAGE) !== 0;
    if (last || sectors === 0) break;
  }
  return Math.min(image, size);
}
