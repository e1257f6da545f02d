/**
 * The file `config`: configuration space of a function, readable and writable at any offset.
 *
 * Reads beyond the end give nothing, and so do writes. An access is split as the kernel splits it: bytes and words up to the next
 * multiple of four, then double words.
 *
 * After drivers/pci/pci-sysfs.c (pci_read_config, pci_write_config).
 */
import type { PciFunction } from '../pci-function.ts';
import type { Attribute } from './tree.ts';

export function configAttribute({ managed }: PciFunction): Attribute {
  const { config, registers } = managed;
  const { bytes } = config;
  return {
    kind: 'attribute',
    mode: 0o644,
    size: bytes.length,
    // A function that sleeps is read as it is: its power state shows.
    read: (offset, length) => bytes.slice(offset, Math.min(bytes.length, offset + length)),
    store: ({ bytes: written, offset }, done) => {
      const end = Math.min(bytes.length, offset + written.length);
      managed.whileAwake(() => {
        for (const { at, width } of pieces(offset, end)) {
          registers.write(at, width, little(written.subarray(at - offset, at - offset + width)));
        }
      });
      done();
    },
  };
}

function little(bytes: Uint8Array): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
}

function* pieces(start: number, end: number): Generator<{ at: number; width: 1 | 2 | 4 }> {
  let at = start;
  while (at < end) {
    const left = end - at;
    const width = at % 2 === 1 || left === 1 ? 1 : at % 4 === 2 || left < 4 ? 2 : 4;
    yield { at, width };
    at += width;
  }
}
