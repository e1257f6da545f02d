import assert from 'node:assert/strict';
import test from 'node:test';

import { REGION_OFFSET_SHIFT } from '../../base/file-offsets.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import { SparseBacking } from '../../base/sparse-backing.ts';
import type { MmapGrant } from '../../base/task.ts';
import {
  createMemfd,
  identifyFile,
  identity,
  readAt,
  resizeFile,
  writeAt,
} from '../../os/files.ts';
import { RegionFile } from './region-file.ts';

const BAR2 = 2 * 2 ** REGION_OFFSET_SHIFT;

/** A device with one BAR of two pages, whose second page is mapped. */
class Lab {
  readonly memory = { name: 'device', usable: true };
  readonly bar = new SparseBacking('BAR 2');
  readonly fd = createMemfd('device');
  readonly file = new RegionFile(this.memory, this.fd);

  map(kind: MmapGrant['kind'] = 'memory'): void {
    const grant: MmapGrant = { kind, backing: this.bar, page: 1, release: () => undefined };
    this.file.show(grant, { offset: BAR2 + PAGE_BYTES, length: PAGE_BYTES });
  }

  use(usable: boolean): void {
    this.memory.usable = usable;
    this.file.follow();
  }

  /** a byte as a mapping shows it; undefined: SIGBUS */
  mapped(at: number): number | undefined {
    const byte = new Uint8Array(1);
    return readAt(this.fd, byte, BAR2 + at) === 1 ? byte[0] : undefined;
  }

  /** a byte as the device has it */
  byte(at: number): number | undefined {
    const byte = new Uint8Array(1);
    this.bar.read(at, byte);
    return byte[0];
  }
}

test('RegionFile: what was there before the mapping and what either side writes later is seen by both', () => {
  const lab = new Lab();
  lab.bar.write(3, Uint8Array.of(1));
  lab.map();
  lab.map();
  assert.equal(lab.mapped(3), 1);
  writeAt(lab.fd, Uint8Array.of(2), BAR2 + PAGE_BYTES);
  assert.equal(lab.byte(PAGE_BYTES), 2);
  lab.bar.write(PAGE_BYTES + 1, Uint8Array.of(3));
  assert.equal(lab.mapped(PAGE_BYTES + 1), 3);
  lab.file.close();
  assert.deepEqual(
    [3, PAGE_BYTES, PAGE_BYTES + 1].map((at) => lab.byte(at)),
    [1, 2, 3],
  );
});

test('RegionFile: while the memory is off mappings have no page, and the device goes on with its bytes', () => {
  const lab = new Lab();
  lab.map();
  writeAt(lab.fd, Uint8Array.of(2), BAR2 + PAGE_BYTES);
  lab.use(false);
  assert.equal(lab.mapped(PAGE_BYTES), undefined);
  assert.equal(lab.byte(PAGE_BYTES), 2);
  lab.bar.write(PAGE_BYTES + 1, Uint8Array.of(4));
  lab.use(true);
  assert.deepEqual([lab.mapped(PAGE_BYTES), lab.mapped(PAGE_BYTES + 1)], [2, 4]);
  lab.use(false);
  lab.file.close();
  assert.deepEqual([lab.byte(PAGE_BYTES), lab.byte(PAGE_BYTES + 1)], [2, 4]);
});

test('RegionFile: a client that truncates or fills the file changes its own memory alone', () => {
  const lab = new Lab();
  lab.map();
  writeAt(lab.fd, Uint8Array.of(2), BAR2 + PAGE_BYTES);
  resizeFile(lab.fd, 0);
  assert.equal(lab.byte(PAGE_BYTES), 0);
  lab.file.follow();
  assert.equal(lab.mapped(PAGE_BYTES), 0);
  writeAt(lab.fd, Uint8Array.of(7), BAR2 + 5 * PAGE_BYTES);
  writeAt(lab.fd, Uint8Array.of(7), 0);
  lab.use(false);
  lab.use(true);
  identifyFile(lab.fd);
  assert.equal(identity.size, BAR2 + 2 * PAGE_BYTES);
  assert.equal(lab.byte(5 * PAGE_BYTES), 0);
  const first = new Uint8Array(1);
  readAt(lab.fd, first, 0);
  assert.equal(first[0], 0);
});

test('RegionFile: registers cannot be mapped', () => {
  const lab = new Lab();
  assert.throws(
    () => {
      lab.map('trapped');
    },
    { code: 'ENODEV' },
  );
});
