/**
 * Fixtures iommufd_mock_domain, iommufd_dirty_tracking, vfio_compat_mock_domain and change_process of
 * tools/testing/selftests/iommu/iommufd.c, in process: what devices reach, which pages they wrote, and who pays.
 */
import assert from 'node:assert/strict';
import { SparseBacking } from '../../../src/base/sparse-backing.ts';
import {
  APERTURE,
  PAGE,
  READ_WRITE,
  engineTest,
  refuses,
  type Lab,
  type MockIds,
  type Session,
} from '../../../src/testing/lab.ts';
import * as mock from '../../../src/uapi/iommufd-test.ts';
import * as uapi from '../../../src/uapi/iommufd.ts';
import * as vfio from '../../../src/uapi/vfio.ts';

type Parts = {
  readonly s: Session;
  readonly lab: Lab;
  readonly ioas: number;
  readonly devices: readonly MockIds[];
  /** 32 pages */
  readonly buffer: bigint;
};

const HUGE = 0x5000_0000_0000n;

for (const [variant, count, unit] of [
  ['one_domain', 1, 1],
  ['two_domains', 2, 1],
  ['one_domain_hugepage', 1, 512],
] as const) {
  const domainTest = (name: string, body: (parts: Parts) => void): void => {
    engineTest(`iommufd_mock_domain.${variant}.${name}`, (s, lab) => {
      const ioas = s.ioas();
      const devices = Array.from({ length: count }, () => s.mockDomain(ioas));
      s.client.memory.map(HUGE, {
        backing: new SparseBacking('buffer', unit),
        page: 0,
        count: 512,
      });
      body({ s, lab, ioas, devices, buffer: HUGE });
    });
  };

  domainTest('basic', ({ s, ioas, devices, buffer }) => {
    const iova = s.map(ioas, buffer, 16n * PAGE);
    for (const { hwpt } of devices) s.checkMap(hwpt, iova, { address: buffer, length: 16n * PAGE });
    const [first] = devices;
    const hwpt = first?.hwpt ?? 0;
    refuses('EINVAL', () => {
      s.checkMap(hwpt, iova, { address: buffer + PAGE, length: PAGE });
    });
    refuses('EINVAL', () => {
      s.checkMap(hwpt, iova + 16n * PAGE, { address: buffer, length: PAGE });
    });
    refuses('EINVAL', () => {
      s.checkMap(hwpt, iova + 1n, { address: buffer, length: PAGE });
    });
    refuses('EINVAL', () => {
      s.checkMap(hwpt, iova, { address: 2n ** 64n - PAGE, length: 2n * PAGE });
    });
    refuses('EFAULT', () => {
      s.checkMap(hwpt, iova, { address: PAGE, length: PAGE });
    });
    refuses('ENOENT', () => {
      s.checkMap(ioas, iova, { address: buffer, length: PAGE });
    });
  });

  domainTest('ro_unshare', ({ s, ioas, devices }) => {
    const backing = new SparseBacking('read-only file');
    const address = 0x5100_0000_0000n;
    s.client.memory.map(address, { backing, page: 0, count: 1 }, { readOnly: true });
    const iova = s.map(ioas, address, PAGE, { flags: uapi.IOMMU_IOAS_MAP_READABLE });
    for (const { hwpt } of devices) s.checkMap(hwpt, iova, { address, length: PAGE });
  });

  domainTest('all_aligns, all_aligns_copy', ({ s, ioas, devices, buffer }) => {
    const length = 6n * PAGE;
    for (let start = 0n; start < length; start += 0x800n) {
      for (let end = start + 0x800n; end <= length; end += 0x800n) {
        const [address, size] = [buffer + start, end - start];
        const iova = s.map(ioas, address, size);
        for (const { hwpt } of devices) s.checkMap(hwpt, iova, { address, length: size });
        // A domain that comes later sees the same, and so does a copy when the source is gone.
        const late = s.mockDomain(ioas);
        s.checkMap(late.hwpt, iova, { address, length: size });
        const copy = s.ioctl('IOMMU_IOAS_COPY', {
          flags: READ_WRITE,
          src_ioas_id: ioas,
          dst_ioas_id: ioas,
          length: size,
          src_iova: iova,
        });
        s.unmap(ioas, iova, size);
        s.checkMap(late.hwpt, copy.dst_iova, { address, length: size });
        if (unit === 1) s.checkRefs(buffer + (start & -PAGE), PAGE, 1);
        s.destroy(late.stdev);
        s.unmap(ioas, copy.dst_iova, size);
      }
    }
    s.checkRefs(buffer, 6n * PAGE, 0);
    refuses('EINVAL', () => {
      s.checkRefs(buffer + 1n, PAGE, 0);
    });
    refuses('EINVAL', () => {
      s.checkRefs(2n ** 64n - PAGE, 2n * PAGE, 0);
    });
    if (unit === 1) {
      refuses('EIO', () => {
        s.checkRefs(buffer, PAGE, 1);
      });
    }
  });

  domainTest('user_copy', ({ s, ioas, devices, buffer }) => {
    const source = s.ioas();
    const access = s.access(source, true);
    const from = s.map(source, buffer, 4n * PAGE);
    access.pin(from, 4n * PAGE, { uptr: buffer });
    const copy = s.ioctl('IOMMU_IOAS_COPY', {
      flags: READ_WRITE | uapi.IOMMU_IOAS_MAP_FIXED_IOVA,
      src_ioas_id: source,
      dst_ioas_id: ioas,
      length: 4n * PAGE,
      src_iova: from,
      dst_iova: APERTURE,
    });
    for (const { hwpt } of devices) {
      s.checkMap(hwpt, copy.dst_iova, { address: buffer, length: 4n * PAGE });
    }
    access.replace(ioas);
    refuses('ENOENT', () => {
      access.unpin(0);
    });
    s.unmap(source, from, 4n * PAGE);
  });

  domainTest('replace, alloc_hwpt', ({ s, ioas, devices, buffer }) => {
    const iova = s.map(ioas, buffer, PAGE);
    for (const { stdev, device } of devices) {
      const hwpts = [s.hwpt(device, ioas), s.hwpt(device, ioas)];
      for (const hwpt of hwpts) {
        assert.equal(s.replace(stdev, hwpt), hwpt);
        s.checkMap(hwpt, iova, { address: buffer, length: PAGE });
      }
      const other = s.ioas();
      s.replace(stdev, other);
      for (const hwpt of hwpts) s.destroy(hwpt);
      s.replace(stdev, ioas);
      s.destroy(other);
    }
  });
}

function dmabuf(s: Session, length: number): number {
  return s.test(mock.IOMMU_TEST_OP_DMABUF_GET, 0, { dmabuf_get: { length } }).result;
}

engineTest('iommufd_ioas.dmabuf_simple, dmabuf_revoke', (s, lab) => {
  const ioas = s.ioas();
  const { hwpt } = s.mockDomain(ioas);
  refuses('EINVAL', () => dmabuf(s, 0));
  refuses('EINVAL', () => dmabuf(s, 512 * 4096 + 1));
  const fd = dmabuf(s, 4 * 4096);
  const revoke = (given: number, revoked: number): void => {
    const request = { dmabuf_revoke: { dmabuf_fd: given, revoked } };
    s.test(mock.IOMMU_TEST_OP_DMABUF_REVOKE, 0, request);
  };
  refuses('EINVAL', () => {
    revoke(s.fd, 1);
  });
  refuses('EINVAL', () => s.mapFile(ioas, { fd, start: 3n * PAGE }, 2n * PAGE));
  const iova = s.mapFile(ioas, { fd }, 4n * PAGE);
  const small = s.mapFile(ioas, { fd, start: PAGE }, PAGE);
  const access = s.access(ioas, true);
  refuses('EINVAL', () => access.pin(iova, PAGE));
  refuses('EINVAL', () => {
    access.rw({ iova, length: 4n, uptr: s.client.allocate(1) }, 0);
  });
  const domain = s.context.objects.any(hwpt) as unknown as {
    domain: { table: { translate(page: number, offset: number): number } };
  };
  const shown = (at: bigint): boolean => domain.domain.table.translate(Number(at / PAGE), 0) !== -1;
  assert.deepEqual([shown(iova), shown(small)], [true, true]);
  revoke(fd, 1);
  assert.deepEqual([shown(iova), shown(small)], [false, false]);
  refuses('ENODEV', () => s.mapFile(ioas, { fd }, PAGE));
  // A domain that comes later shows nothing of it, and unmapping works.
  const late = s.mockDomain(ioas);
  s.destroy(late.stdev);
  // A copy shows nothing either, and uses none of the pages.
  const copied = s.ioctl('IOMMU_IOAS_COPY', {
    flags: uapi.IOMMU_IOAS_MAP_READABLE,
    dst_ioas_id: ioas,
    src_ioas_id: ioas,
    src_iova: iova,
    length: 4n * PAGE,
  }).dst_iova;
  lab.check();
  assert.equal(shown(copied), false);
  assert.equal(s.unmap(ioas, copied, 4n * PAGE), 4n * PAGE);
  revoke(fd, 0);
  assert.equal(shown(iova), false, 'allowing it again revives nobody');
  const again = s.mapFile(ioas, { fd }, PAGE);
  assert.equal(shown(again), true);
  assert.equal(s.unmap(ioas, 0n, 2n ** 64n - 1n), 6n * PAGE);
});

const TRACKED = { flags: uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING };

engineTest(
  'iommufd_dirty_tracking.enforce_dirty, set_dirty_tracking, device_dirty_capability',
  (s) => {
    const ioas = s.ioas();
    const { device, stdev } = s.mockDomain(ioas);
    const plain = s.mockDomain(ioas, mock.MOCK_FLAGS_DEVICE_NO_DIRTY);
    refuses('EOPNOTSUPP', () => s.hwpt(plain.device, ioas, TRACKED));
    const hwpt = s.hwpt(device, ioas, TRACKED);
    s.replace(stdev, hwpt);
    refuses('EINVAL', () => s.replace(plain.stdev, hwpt));
    refuses('EINVAL', () => s.mockDomain(hwpt, mock.MOCK_FLAGS_DEVICE_NO_DIRTY));
    const set = (given: Partial<uapi.iommu_hwpt_set_dirty_tracking>): unknown =>
      s.ioctl('IOMMU_HWPT_SET_DIRTY_TRACKING', given);
    refuses('EOPNOTSUPP', () => set({ hwpt_id: 99, flags: 2 }));
    refuses('ENOENT', () => set({ hwpt_id: ioas }));
    refuses('EOPNOTSUPP', () => set({ hwpt_id: plain.hwpt }));
    set({ hwpt_id: hwpt, flags: 1 });
    set({ hwpt_id: hwpt, flags: 0 });
    const info = (dev: number): bigint =>
      s.ioctl('IOMMU_GET_HW_INFO', { dev_id: dev }).out_capabilities &
      BigInt(uapi.IOMMU_HW_CAP_DIRTY_TRACKING);
    assert.deepEqual([info(device), info(plain.device)], [1n, 0n]);
  },
);

for (const [variant, pages, pageSize, unaligned, huge] of [
  ['domain_dirty8k', 4096, 2048n, 0n, false],
  ['domain_dirty16k', 8192, 2048n, 0n, false],
  ['domain_dirty320k', 163_840, 2048n, 0n, false],
  ['an unaligned bitmap over the end of a page', 8192, 2048n, 4093n, false],
  ['a bitmap by pages', 8192, 4096n, 3n, false],
  ['domain_dirty64M_huge', 32_768, 2048n, 0n, true],
] as const) {
  engineTest(
    `iommufd_dirty_tracking.${variant}.get_dirty_bitmap, get_dirty_bitmap_no_clear`,
    (s) => {
      const ioas = s.ioas();
      const { device } = s.mockDomain(ioas);
      const length = BigInt(pages) * 2048n;
      const backing = new SparseBacking('guest', huge ? 512 : 1);
      const count = Number(length / PAGE);
      s.client.memory.map(HUGE, { backing, page: 0, count });
      const iova = s.map(ioas, HUGE, length, { iova: APERTURE });
      const hwpt = s.hwpt(device, ioas, TRACKED);
      const range = { iova, length, page_size: pageSize };
      const bits = Number(length / pageSize);
      const marks = new Uint8Array(bits / 8);
      for (let i = 0; i < bits; i += 7) marks[i >> 3] = (marks[i >> 3] ?? 0) | (1 << (i & 7));
      const uptr = s.put(marks);
      const dirty = (): bigint => {
        const { u } = s.test(mock.IOMMU_TEST_OP_DIRTY, hwpt, { dirty: { ...range, uptr } });
        return u.read('dirty').out_nr_dirty;
      };
      refuses('EINVAL', dirty);
      s.ioctl('IOMMU_HWPT_SET_DIRTY_TRACKING', { hwpt_id: hwpt, flags: 1 });
      assert.equal(dirty(), BigInt(Math.ceil(bits / 7)));
      // What a bit of the table stands for: the largest leaf, 4 KiB of small pages or 2 MiB of huge ones.
      const leaf = huge ? 2 ** 21 : 4096;
      const wanted = new Uint8Array(bits / 8);
      for (let i = 0; i < bits; i++) {
        const first = Math.floor((i * Number(pageSize)) / leaf) * (leaf / Number(pageSize));
        const last = first + Math.max(1, leaf / Number(pageSize)) - 1;
        if (Math.ceil(first / 7) * 7 <= last)
          wanted[i >> 3] = (wanted[i >> 3] ?? 0) | (1 << (i & 7));
      }
      const found = s.client.allocate(Math.ceil(wanted.length / 4096) + 2) + unaligned;
      const get = (flags: number): Uint8Array => {
        s.client.write(found, new Uint8Array(wanted.length));
        s.ioctl('IOMMU_HWPT_GET_DIRTY_BITMAP', { hwpt_id: hwpt, flags, ...range, data: found });
        return s.client.read(found, wanted.length);
      };
      assert.deepEqual(get(uapi.IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR), wanted);
      assert.deepEqual(get(0), wanted);
      assert.deepEqual(get(0), new Uint8Array(wanted.length), 'reading has cleared it');
      dirty();
      s.ioctl('IOMMU_HWPT_SET_DIRTY_TRACKING', { hwpt_id: hwpt, flags: 1 });
      assert.deepEqual(get(0), new Uint8Array(wanted.length), 'a snapshot starts clean');
    },
  );
}

engineTest('IOMMU_HWPT_GET_DIRTY_BITMAP: refusals, holes, and a bitmap that is not there', (s) => {
  const ioas = s.ioas();
  const { device, hwpt: plain } = s.mockDomain(ioas);
  const hwpt = s.hwpt(device, ioas, TRACKED);
  const buffer = s.client.allocate(16);
  s.map(ioas, buffer, 2n * PAGE, { iova: APERTURE });
  s.map(ioas, buffer, 2n * PAGE, { iova: APERTURE + 4n * PAGE });
  const good = { hwpt_id: hwpt, iova: APERTURE, length: 8n * PAGE, page_size: PAGE };
  const get = (given: Partial<uapi.iommu_hwpt_get_dirty_bitmap>): unknown =>
    s.ioctl('IOMMU_HWPT_GET_DIRTY_BITMAP', { ...good, ...given });
  refuses('EOPNOTSUPP', () => get({ flags: 2, hwpt_id: 99 }));
  refuses('EOPNOTSUPP', () => get({ __reserved: 1, hwpt_id: 99 }));
  refuses('ENOENT', () => get({ hwpt_id: ioas, length: 0n }));
  refuses('EINVAL', () => get({ length: 0n }));
  refuses('EOVERFLOW', () => get({ iova: 2n ** 64n - 1n, page_size: 0n }));
  refuses('EINVAL', () => get({ iova: APERTURE + 1n }));
  refuses('EINVAL', () => get({ length: 8n * PAGE + 1n }));
  refuses('EINVAL', () => get({ page_size: 0n }));
  refuses('EINVAL', () => get({ page_size: 16n * PAGE }));
  refuses('EOPNOTSUPP', () => get({ hwpt_id: plain }));
  s.ioctl('IOMMU_HWPT_SET_DIRTY_TRACKING', { hwpt_id: hwpt, flags: 1 });
  const all = s.put(new Uint8Array([0xff]));
  const range = { iova: APERTURE, length: 8n * PAGE, page_size: PAGE, uptr: all };
  const mark = (): unknown => s.test(mock.IOMMU_TEST_OP_DIRTY, hwpt, { dirty: range });
  mark();
  // The walk ends at the hole, without an error: what lies behind stays dirty.
  const found = s.client.allocate(1);
  get({ data: found });
  assert.deepEqual([...s.client.read(found, 1)], [0b11]);
  // A bitmap that cannot be written is dropped, and what was to be in it is clear all the same.
  get({ data: 8n, iova: APERTURE + 4n * PAGE, length: 2n * PAGE });
  get({ data: 2n ** 64n - 1n });
  s.client.write(found, new Uint8Array([0b1000]));
  get({ data: found, iova: APERTURE + 4n * PAGE, length: 2n * PAGE });
  assert.deepEqual([...s.client.read(found, 1)], [0b1000], 'nothing is added, nothing taken away');
  const bad = (given: Partial<typeof range>): unknown =>
    s.test(mock.IOMMU_TEST_OP_DIRTY, hwpt, { dirty: { ...range, ...given } });
  refuses('EINVAL', () => bad({ page_size: 0n }));
  refuses('EINVAL', () => bad({ uptr: 0n }));
  refuses('EOVERFLOW', () => bad({ length: 2n ** 40n, page_size: 2048n }));
  refuses('EFAULT', () => bad({ uptr: 8n }));
});

// As 7.3.4 left the bitmap for one leaf of 2 MiB, written to: bits set in each page of the client's memory.
const LARGE_LEAF: readonly {
  readonly at: bigint;
  readonly length: bigint;
  readonly page: bigint;
  readonly hole?: number;
  readonly bits: readonly number[];
}[] = [
  { at: 0xfffn, length: 0x1000n, page: 0x1000n, bits: [8, 504, 0] },
  { at: 0x800n, length: 0x1000n, page: 0x1000n, bits: [512, 0, 0] },
  { at: 0xffcn, length: 0x20000n, page: 0x1000n, bits: [32, 480, 0] },
  { at: 0n, length: 0x1000n, page: 0x1000n, bits: [512, 0, 0] },
  { at: 0x10n, length: 0x1000n, page: 0x40n, bits: [32640, 128, 0] },
  { at: 0n, length: 0x40000n, page: 0x40n, bits: [32768, 0, 0] },
  { at: 0x10n, length: 0x200000n, page: 0x20n, hole: 1, bits: [32640, 0, 0] },
  { at: 0x10n, length: 0x200000n, page: 0x20n, hole: 0, bits: [0, 0, 0] },
  { at: 0x10n, length: 0x200000n, page: 0x20n, hole: 2, bits: [32640, 32768, 0] },
];

engineTest(
  'IOMMU_HWPT_GET_DIRTY_BITMAP: a leaf that is larger than the range or the memory',
  (s) => {
    const ioas = s.ioas();
    const { device } = s.mockDomain(ioas);
    const hwpt = s.hwpt(device, ioas, TRACKED);
    const iova = 0x4000_0000n;
    const given = { dmabuf_get: { length: 0x20_0000 } };
    const fd = s.test(mock.IOMMU_TEST_OP_DMABUF_GET, 0, given).result;
    const map = { flags: READ_WRITE | uapi.IOMMU_IOAS_MAP_FIXED_IOVA, ioas_id: ioas, fd, iova };
    s.ioctl('IOMMU_IOAS_MAP_FILE', { ...map, length: 0x20_0000n });
    s.ioctl('IOMMU_HWPT_SET_DIRTY_TRACKING', { hwpt_id: hwpt, flags: 1 });
    const one = s.put(Uint8Array.of(1));
    const pages = Array.from({ length: 3 }, () => s.client.allocate(1));
    const first = 0x7000_0000n;
    const runs = pages.map((page) => s.client.memory.resolve(Number(page / PAGE), 1, true)[0]);
    for (const { at, length, page, hole, bits } of LARGE_LEAF) {
      runs.forEach((run, i) => {
        assert.ok(run !== undefined);
        run.backing.write(run.page * Number(PAGE), new Uint8Array(Number(PAGE)));
        if (i !== hole) s.client.memory.map(first + BigInt(i) * PAGE, run);
      });
      const dirty = { iova, length: PAGE, page_size: PAGE, uptr: one };
      s.test(mock.IOMMU_TEST_OP_DIRTY, hwpt, { dirty });
      const get = { hwpt_id: hwpt, iova, length, page_size: page, data: first + at };
      s.ioctl('IOMMU_HWPT_GET_DIRTY_BITMAP', get);
      const found = pages.map((address) => countBits(s.client.read(address, Number(PAGE))));
      assert.deepEqual(found, bits, `bitmap at ${at}, ${length} bytes by ${page}, hole ${hole}`);
      runs.forEach((_, i) => {
        s.client.memory.unmap(first + BigInt(i) * PAGE, 1);
      });
    }
    s.client.close(fd);
  },
);

function countBits(bytes: Uint8Array): number {
  let count = 0;
  for (let byte of bytes) for (; byte > 0; byte &= byte - 1) count++;
  return count;
}

const MAP = { number: vfio.VFIO_IOMMU_MAP_DMA, struct: vfio.vfio_iommu_type1_dma_map };
const UNMAP = { number: vfio.VFIO_IOMMU_UNMAP_DMA, struct: vfio.vfio_iommu_type1_dma_unmap };

for (const [variant, type] of [
  ['Ver1v2', vfio.VFIO_TYPE1v2_IOMMU],
  ['Ver1v0', vfio.VFIO_TYPE1_IOMMU],
] as const) {
  const compatTest = (name: string, body: (s: Session, ioas: number) => void): void => {
    engineTest(`vfio_compat_mock_domain.${variant}.${name}`, (s) => {
      const ioas = s.ioas();
      s.ioctl('IOMMU_VFIO_IOAS', { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: ioas });
      s.client.ioctl(s.fd, vfio.VFIO_SET_IOMMU, BigInt(type));
      s.mockDomain(ioas);
      body(s, ioas);
    });
  };
  const isType1 = type === vfio.VFIO_TYPE1_IOMMU;
  const both = vfio.VFIO_DMA_MAP_FLAG_READ | vfio.VFIO_DMA_MAP_FLAG_WRITE;

  // Recorded on Linux 7.3.4, which warns of it (pt_iommu_map_range), and maps it where no domain is.
  compatTest('map without access', (s) => {
    const given = { flags: 0, vaddr: s.client.allocate(1), iova: 0x100_0000n, size: PAGE };
    refuses('EINVAL', () => s.client.call(s.fd, MAP, given));
    const other = s.ioas();
    s.ioctl('IOMMU_VFIO_IOAS', { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: other });
    s.client.call(s.fd, MAP, given);
    refuses('EINVAL', () => s.mockDomain(other));
  });

  compatTest('option_huge_pages', (s, ioas) => {
    const get = { option_id: 1, op: uapi.IOMMU_OPTION_OP_GET, object_id: ioas };
    assert.equal(s.ioctl('IOMMU_OPTION', get).val64, isType1 ? 0n : 1n);
  });

  compatTest('get_info', (s) => {
    const struct = vfio.vfio_iommu_type1_info;
    const buffer = s.client.allocate(1);
    const info = (argsz: number): ReturnType<typeof struct.decode> => {
      const bytes = new Uint8Array(4096).fill(0xaa, argsz);
      new DataView(bytes.buffer).setUint32(0, argsz, true);
      s.client.write(buffer, bytes);
      s.client.ioctl(s.fd, vfio.VFIO_IOMMU_GET_INFO, buffer);
      const rest = s.client.read(buffer + BigInt(argsz), 4096 - argsz);
      assert.ok(
        rest.every((byte) => byte === 0xaa),
        'nothing is written behind argsz',
      );
      return struct.decode(s.client.read(buffer, struct.size));
    };
    refuses('EINVAL', () => info(struct.endOf('iova_pgsizes') - 1));
    const old = info(struct.offsetOf('cap_offset'));
    assert.equal(old.flags, vfio.VFIO_IOMMU_INFO_PGSIZES | vfio.VFIO_IOMMU_INFO_CAPS);
    // All powers of two from a page up to 2^36 (pt_iommu_get_info); 2 KiB count as a page.
    assert.equal(old.iova_pgsizes, 2n ** 37n - PAGE);
    const { argsz: whole, cap_offset: none } = info(struct.size);
    assert.equal(none, 0);
    for (let argsz = struct.size + 1; argsz < whole; argsz++) {
      assert.equal(info(argsz).cap_offset, 0, 'never half a chain');
    }
    const { cap_offset: at } = info(whole);
    const bytes = s.client.read(buffer, whole);
    const available = vfio.vfio_iommu_type1_info_dma_avail.decode(bytes, at);
    assert.equal(available.header.id, vfio.VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL);
    assert.equal(available.avail, 0xffff_ffff);
    const list = vfio.vfio_iommu_type1_info_cap_iova_range;
    const { header, nr_iovas: count } = list.decode(bytes, available.header.next);
    assert.deepEqual(
      [header.id, header.next, count],
      [vfio.VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 0, 1],
    );
    const range = vfio.vfio_iova_range.decode(bytes, available.header.next + list.size);
    assert.deepEqual(range, { start: APERTURE, end: BigInt(mock.MOCK_APERTURE_LAST) });
  });

  compatTest('map', (s) => {
    const vaddr = s.client.allocate(16);
    const all = { vaddr, flags: both, iova: APERTURE, size: 16n * PAGE };
    const whole = { iova: APERTURE, size: 16n * PAGE };
    s.client.call(s.fd, MAP, all);
    assert.equal(s.client.call(s.fd, UNMAP, whole).size, 16n * PAGE);
    assert.equal(s.client.call(s.fd, UNMAP, whole).size, 0n);
    s.client.call(s.fd, MAP, all);
    const flags = vfio.VFIO_DMA_UNMAP_FLAG_ALL;
    refuses('EINVAL', () => s.client.call(s.fd, UNMAP, { ...whole, flags }));
    assert.equal(s.client.call(s.fd, UNMAP, { flags }).size, 16n * PAGE);
    refuses('EINVAL', () => s.client.call(s.fd, UNMAP, { iova: APERTURE }));
  });

  compatTest('huge_map: version 1 cuts, version 2 does not', (s) => {
    const backing = new SparseBacking('huge', 512);
    s.client.memory.map(HUGE, { backing, page: 0, count: 1024 });
    const size = 1024n * PAGE;
    s.client.call(s.fd, MAP, { vaddr: HUGE, flags: both, iova: APERTURE, size });
    const piece = size / 16n;
    for (const i of [3n, 0n, 15n, 7n, 8n, 1n]) {
      const unmap = (): bigint =>
        s.client.call(s.fd, UNMAP, { iova: APERTURE + i * piece, size: piece }).size;
      if (isType1) assert.equal(unmap(), piece);
      else refuses('ENOENT', unmap);
    }
    if (!isType1) return;
    refuses('EINVAL', () =>
      s.client.call(s.fd, UNMAP, { iova: APERTURE + 4n * piece + 1n, size: piece }),
    );
    s.client.call(s.fd, UNMAP, { flags: vfio.VFIO_DMA_UNMAP_FLAG_ALL });
  });
}

engineTest('vfio_compat: areas that cannot be cut', (s) => {
  const ioas = s.ioas();
  s.ioctl('IOMMU_VFIO_IOAS', { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: ioas });
  s.client.ioctl(s.fd, vfio.VFIO_SET_IOMMU, BigInt(vfio.VFIO_TYPE1_IOMMU));
  const iova = s.mapFile(ioas, { fd: dmabuf(s, 4 * 4096) }, 4n * PAGE);
  // iopt_area_split
  refuses('EOPNOTSUPP', () => s.client.call(s.fd, UNMAP, { iova, size: PAGE }));
  const vaddr = s.client.allocate(4);
  s.client.call(s.fd, MAP, { vaddr, flags: 1, iova: 0x1000_0000n, size: 4n * PAGE });
  const access = s.access(ioas, true);
  const item = access.pin(0x1000_0000n, PAGE, { write: false });
  refuses('EINVAL', () => s.client.call(s.fd, UNMAP, { iova: 0x1000_0000n, size: PAGE }));
  access.unpin(item);
  assert.equal(s.client.call(s.fd, UNMAP, { iova: 0x1000_0000n, size: PAGE }).size, PAGE);
});

for (const [variant, privileged, mode] of [
  ['account_none', true, 0n],
  ['account_user', false, 0n],
  ['account_mm', false, 1n],
] as const) {
  engineTest(`change_process.${variant}.basic`, (_root, lab) => {
    // The new process is charged before the old one gets its pages back, so there must be room for both.
    const limit = {
      uid: 1000,
      capabilities: ['CAP_SYS_RESOURCE'],
      memlockLimit: 14 * 4096,
    } as const;
    const parent = lab.client(privileged ? {} : limit);
    const s = lab.open(parent);
    const rlimitMode = uapi.IOMMU_OPTION_RLIMIT_MODE;
    if (mode === 1n) s.ioctl('IOMMU_OPTION', { option_id: rlimitMode, val64: 1n });
    s.ioctl('IOMMU_IOAS_CHANGE_PROCESS');
    refuses('EOPNOTSUPP', () => s.ioctl('IOMMU_IOAS_CHANGE_PROCESS', { __reserved: 1 }));
    const ioas = s.ioas();
    s.mockDomain(ioas);
    const iova = s.map(ioas, parent.allocate(1), PAGE);
    refuses('EINVAL', () => s.ioctl('IOMMU_IOAS_CHANGE_PROCESS'));
    s.unmap(ioas, iova, PAGE);
    const backing = new SparseBacking('memfd');
    const fd = parent.installMemory({ backing, size: 16 * 4096, pinnable: true });
    s.mapFile(ioas, { fd }, 6n * PAGE);
    s.ioctl('IOMMU_IOAS_CHANGE_PROCESS');
    const { accounting } = lab.iommufd.environment;
    const byUser = variant === 'account_user' ? 6 : 0;
    const byProcess = variant === 'account_mm' ? 6 : 0;
    assert.equal(accounting.lockedBy(parent.uid), byUser);
    assert.equal(parent.memory.lockedPages, byProcess);
    assert.equal(parent.memory.pinnedPages, 6);
    if (!privileged) {
      refuses('ENOMEM', () => s.mapFile(ioas, { fd }, 9n * PAGE));
      assert.equal(parent.memory.pinnedPages, 6);
    }
    const child = parent.fork(77);
    lab.clients.push(child);
    s.in(child).ioctl('IOMMU_IOAS_CHANGE_PROCESS');
    assert.equal(accounting.lockedBy(parent.uid), byUser);
    assert.deepEqual([parent.memory.lockedPages, child.memory.lockedPages], [0, byProcess]);
    // Pages that nobody pays for do not move (need_charge_update).
    const [there, here] = privileged ? [6, 0] : [0, 6];
    assert.deepEqual([parent.memory.pinnedPages, child.memory.pinnedPages], [there, here]);
  });
}

engineTest('IOMMU_IOAS_CHANGE_PROCESS: all or nothing', (_root, lab) => {
  const limit = { uid: 1000, capabilities: ['CAP_SYS_RESOURCE'], memlockLimit: 8 * 4096 } as const;
  const parent = lab.client(limit);
  const s = lab.open(parent);
  const ioas = s.ioas();
  s.mockDomain(ioas);
  const backing = new SparseBacking('memfd');
  const fd = parent.installMemory({ backing, size: 16 * 4096, pinnable: true });
  s.mapFile(ioas, { fd }, 2n * PAGE);
  s.mapFile(ioas, { fd, start: 2n * PAGE }, 3n * PAGE);
  const child = parent.fork(78);
  lab.clients.push(child);
  refuses('ENOMEM', () => s.in(child).ioctl('IOMMU_IOAS_CHANGE_PROCESS'));
  assert.deepEqual([parent.memory.pinnedPages, child.memory.pinnedPages], [5, 0]);
  assert.equal(lab.iommufd.environment.accounting.lockedBy(1000), 5);
});
