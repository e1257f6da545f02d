import assert from 'node:assert/strict';
import test from 'node:test';
import { ContainerLab } from '../../testing/container-lab.ts';
import * as uapi from '../../uapi/vfio.ts';

const PAGE = 4096n;
const { VFIO_IOMMU_DIRTY_PAGES_FLAG_START: START, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP: STOP } = uapi;
const GET = uapi.VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;

class DirtyLab {
  readonly lab = ContainerLab.ready();
  readonly #argument = this.lab.client.allocate(1);
  readonly bitmap = this.lab.client.allocate(2);

  flags(flags: number): string {
    return this.lab.try(() => this.lab.file.ioctl('VFIO_IOMMU_DIRTY_PAGES', { argsz: 8, flags }));
  }

  /** @returns the first units of the bitmap, or the errno */
  get(
    iova: bigint,
    pages: number,
    given: { readonly pgsize?: bigint; readonly size?: bigint; readonly data?: bigint } = {},
  ): bigint[] | string {
    const units = BigInt(Math.ceil(pages / 64));
    const { pgsize = PAGE, size = 8n * units, data = this.bitmap } = given;
    const head = uapi.vfio_iommu_type1_dirty_bitmap;
    const range = uapi.vfio_iommu_type1_dirty_bitmap_get;
    const bytes = new Uint8Array(head.size + range.size);
    head.encode(head.make({ argsz: bytes.length, flags: GET }), bytes);
    const bitmap = { pgsize, size, data };
    range.encode({ iova, size: BigInt(pages) * PAGE, bitmap }, bytes, head.size);
    this.lab.client.write(this.#argument, bytes);
    const { fd } = this.lab.file;
    const outcome = this.lab.try(() =>
      this.lab.client.ioctl(fd, uapi.VFIO_IOMMU_DIRTY_PAGES, this.#argument),
    );
    if (outcome !== 'ok') return outcome;
    return this.units(Number(units));
  }

  units(count: number): bigint[] {
    const bytes = this.lab.client.read(this.bitmap, 8 * count);
    return [...new BigUint64Array(bytes.buffer)];
  }

  clear(unit = 0n): void {
    const units = new BigUint64Array(64).fill(unit);
    this.lab.client.write(this.bitmap, new Uint8Array(units.buffer));
  }
}

test('DIRTY_PAGES: version 1 is EACCES before anything is read; flags go one by one', () => {
  const old = ContainerLab.ready(uapi.VFIO_TYPE1_IOMMU);
  const call = (): unknown => old.client.ioctl(old.file.fd, uapi.VFIO_IOMMU_DIRTY_PAGES, 0n);
  assert.equal(old.try(call), 'EACCES');
  old.exit();
  const dirty = new DirtyLab();
  for (const flags of [0, START | STOP, START | GET, 8]) {
    assert.equal(dirty.flags(flags), 'EINVAL', String(flags));
  }
  assert.equal(dirty.flags(GET), 'EINVAL', 'argsz ends before the range');
  for (const flags of [STOP, START, START, STOP, STOP]) assert.equal(dirty.flags(flags), 'ok');
  dirty.lab.exit();
});

test('GET_BITMAP: sizes, page size, tracking and cut mappings', () => {
  const dirty = new DirtyLab();
  assert.equal(dirty.lab.map(0x1000n, 4), 'ok');
  assert.equal(dirty.get(0x1000n, 4), 'EINVAL', 'not tracked');
  assert.equal(dirty.flags(START), 'ok');
  assert.equal(dirty.get(0x1000n, 4, { pgsize: 8192n }), 'EINVAL');
  assert.equal(dirty.get(0x1000n, 4, { size: 0n }), 'EINVAL');
  assert.equal(dirty.get(0x1000n, 4, { size: 4n }), 'EINVAL', 'less than a unit');
  assert.equal(dirty.get(0x1000n, 4, { size: 2n ** 28n + 1n }), 'EINVAL');
  assert.equal(dirty.get(0x1000n, 4, { data: 2n ** 47n - 4096n }), 'EINVAL', 'no user memory');
  assert.equal(dirty.get(0x2000n, 1), 'EINVAL', 'cuts the mapping');
  assert.equal(dirty.get(0x1000n, 4, { data: 8n }), 'EFAULT');
  assert.deepEqual(dirty.get(0x1000n, 4), [0xfn]);
  assert.deepEqual(dirty.get(0x1000n, 4), [0xfn], 'everything is dirty at all times');
  dirty.lab.exit();
});

test('GET_BITMAP over several mappings: each in its place, holes stay as the client left them', () => {
  const dirty = new DirtyLab();
  // Pages 0-1, 70 and 130-131 of the range.
  for (const [page, pages] of [
    [0n, 2],
    [70n, 1],
    [130n, 2],
  ] as const) {
    assert.equal(dirty.lab.map(0x10_0000n + page * PAGE, pages), 'ok');
  }
  assert.equal(dirty.flags(START), 'ok');
  dirty.clear();
  assert.deepEqual(dirty.get(0x10_0000n, 132), [3n, 1n << 6n, 3n << 2n]);
  dirty.lab.exit();
});

test('GET_BITMAP: what a shifted mapping was merged with shows up in its next report, as in Linux', () => {
  const dirty = new DirtyLab();
  assert.equal(dirty.lab.map(0n, 3), 'ok');
  assert.equal(dirty.lab.map(3n * PAGE, 1), 'ok');
  assert.equal(dirty.flags(START), 'ok');
  dirty.clear();
  assert.deepEqual(dirty.get(0n, 4), [0b1111n]);
  // The second mapping has one page; its bitmap holds bits 1 to 3 of the report before, and only bit 0 was cleared.
  assert.deepEqual(dirty.get(3n * PAGE, 1), [0b1111n]);
  assert.equal(dirty.flags(STOP), 'ok');
  assert.equal(dirty.flags(START), 'ok');
  assert.deepEqual(dirty.get(3n * PAGE, 1), [1n], 'a new bitmap');
  dirty.lab.exit();
});

test('UNMAP_DMA with GET_DIRTY_BITMAP reports and removes', () => {
  const dirty = new DirtyLab();
  const { client, file } = dirty.lab;
  assert.equal(dirty.lab.map(0x1000n, 64), 'ok');
  const address = client.allocate(1);
  const unmap = (given: { readonly argsz?: number; readonly flags?: number } = {}): string => {
    const bytes = new Uint8Array(48);
    const struct = uapi.vfio_iommu_type1_dma_unmap;
    const { argsz = 48, flags = uapi.VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP } = given;
    struct.encode(struct.make({ argsz, flags, iova: 0x1000n, size: 64n * PAGE }), bytes);
    uapi.vfio_bitmap.encode({ pgsize: PAGE, size: 8n, data: dirty.bitmap }, bytes, 24);
    client.write(address, bytes);
    return dirty.lab.try(() => client.ioctl(file.fd, uapi.VFIO_IOMMU_UNMAP_DMA, address));
  };
  assert.equal(unmap(), 'EINVAL', 'not tracked');
  assert.equal(dirty.flags(START), 'ok');
  assert.equal(unmap({ argsz: 47 }), 'EINVAL');
  assert.equal(unmap({ flags: 3 }), 'EINVAL', 'with ALL');
  assert.equal(unmap({ flags: 5 }), 'EINVAL', 'with VADDR');
  assert.equal(unmap(), 'ok');
  assert.deepEqual(dirty.units(2), [2n ** 64n - 1n, 0n]);
  assert.equal(dirty.lab.type1.dmas.size, 0);
  dirty.lab.exit();
});
