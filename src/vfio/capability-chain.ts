/**
 * Capability chains of VFIO's info calls: structs behind a struct, each with a header that says where the next one is, from the
 * start of the info struct. A client whose struct has no room for all of them is given the size that it takes, and none.
 *
 * After vfio_info_cap_add and vfio_info_cap_shift of drivers/vfio/vfio_main.c.
 */
import type { Fields, Static, Struct } from '../base/struct.ts';
import { vfio_info_cap_header } from '../uapi/vfio.ts';

const ALIGNMENT = 8;

type Capability = { readonly id: number; readonly version: number };

export class CapabilityChain {
  #parts: Uint8Array[] = [];

  /** In bytes. */
  get size(): number {
    return this.#parts.reduce((sum, { length }) => sum + length, 0);
  }

  /**
   * Adds a capability at the end.
   * @param struct its layout, which begins with the header
   * @param fields the others
   * @param tail what follows the struct, for lists
   */
  add<F extends Fields>(
    capability: Capability,
    struct: Struct<F>,
    fields: Partial<Static<Struct<F>>>,
    tail = new Uint8Array(0),
  ): void {
    const size = struct.size + tail.length;
    const bytes = new Uint8Array(Math.ceil(size / ALIGNMENT) * ALIGNMENT);
    struct.encode(struct.make(fields), bytes);
    vfio_info_cap_header.encode({ ...capability, next: 0 }, bytes);
    bytes.set(tail, struct.size);
    this.#parts.push(bytes);
  }

  /** The chain as it lies behind an info struct of `start` bytes. */
  bytes(start: number): Uint8Array {
    const all = new Uint8Array(this.size);
    const view = new DataView(all.buffer);
    let at = 0;
    this.#parts.forEach((part, index) => {
      all.set(part, at);
      const isLast = index === this.#parts.length - 1;
      const next = isLast ? 0 : start + at + part.length;
      view.setUint32(at + vfio_info_cap_header.offsetOf('next'), next, true);
      at += part.length;
    });
    return all;
  }
}
