/**
 * Fixture iommufd_ioas of tools/testing/selftests/iommu/iommufd.c, in process, with no, one and two mock domains.
 * Beyond the kernel's tests: the order of the checks in ioas.c and io_pagetable.c.
 */
import assert from 'node:assert/strict';
import { SparseBacking } from '../../../src/base/sparse-backing.ts';
import {
  APERTURE,
  AccessHandle,
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

const MAX = 2n ** 64n - 1n;

type Fixture = {
  readonly s: Session;
  readonly lab: Lab;
  readonly ioas: number;
  readonly base: bigint;
  readonly devices: readonly MockIds[];
  readonly buffer: bigint;
};

const VARIANTS = [
  ['no_domain', 0],
  ['mock_domain', 1],
  ['two_mock_domain', 2],
] as const;

function fixture(name: string, body: (parts: Fixture) => void): void {
  for (const [variant, count] of VARIANTS) {
    engineTest(`iommufd_ioas.${variant}.${name}`, (s, lab) => {
      const ioas = s.ioas();
      const devices = Array.from({ length: count }, () => s.mockDomain(ioas));
      const base = count === 0 ? 0n : APERTURE;
      body({ s, lab, ioas, base, devices, buffer: s.client.allocate(64) });
    });
  }
}

function ranges(s: Session, list: readonly (readonly [bigint, bigint])[]): bigint {
  return s.put(new Uint8Array(new BigUint64Array(list.flat()).buffer));
}

function allow(s: Session, ioas: number, list: readonly (readonly [bigint, bigint])[]): void {
  s.ioctl('IOMMU_IOAS_ALLOW_IOVAS', {
    ioas_id: ioas,
    num_iovas: list.length,
    allowed_iovas: ranges(s, list),
  });
}

fixture('ioas_destroy', ({ s, ioas, devices }) => {
  if (devices.length === 0) s.destroy(ioas);
  else
    refuses('EBUSY', () => {
      s.destroy(ioas);
    });
  for (const { stdev, device, hwpt } of devices) {
    // The idev is held by the driver that bound it, the HWPT by the device.
    for (const id of [device, hwpt]) {
      refuses('EBUSY', () => {
        s.destroy(id);
      });
    }
    s.destroy(stdev);
  }
});

fixture('hwpt_attach: a second device comes to the HWPT that is there', ({ s, devices }) => {
  const [first, second] = devices;
  if (first === undefined) return;
  if (second !== undefined) assert.equal(second.hwpt, first.hwpt);
  const again = s.mockDomain(first.hwpt);
  assert.equal(again.hwpt, first.hwpt);
});

fixture('ioas_area_destroy', ({ s, ioas, base, devices, buffer }) => {
  s.map(ioas, buffer, PAGE, { iova: base });
  if (devices.length === 0) s.destroy(ioas);
  else
    refuses('EBUSY', () => {
      s.destroy(ioas);
    });
});

fixture('get_hw_info', ({ s, devices }) => {
  const info = (given: Partial<uapi.iommu_hw_info>): uapi.iommu_hw_info =>
    s.ioctl('IOMMU_GET_HW_INFO', given);
  refuses('ENOENT', () => info({ dev_id: 99 }));
  const [first] = devices;
  if (first === undefined) return;
  const dev = { dev_id: first.device };
  refuses('EOPNOTSUPP', () => info({ ...dev, flags: 2 }));
  refuses('EOPNOTSUPP', () => info({ ...dev, __reserved: [0, 0, 1] }));
  refuses('EFAULT', () => info({ ...dev, data_len: 8 }));
  const data = s.put(new Uint8Array(64).fill(0xff));
  const exact = info({ ...dev, data_len: 8, data_uptr: data });
  assert.equal(exact.data_type.read('out_data_type'), mock.IOMMU_HW_INFO_TYPE_SELFTEST);
  const told = mock.iommu_test_hw_info.decode(s.client.read(data, 8));
  assert.equal(told.test_reg, mock.IOMMU_HW_INFO_SELFTEST_REGVAL);
  // The mock device tracks dirty pages and knows nothing of ATS.
  const capabilities = uapi.IOMMU_HW_CAP_DIRTY_TRACKING | uapi.IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED;
  assert.equal(exact.out_capabilities, BigInt(capabilities));
  assert.equal(exact.out_max_pasid_log2, 0);
  // Room beyond the answer is zeroed; the length that is told is the driver's.
  assert.equal(info({ ...dev, data_len: 32, data_uptr: data }).data_len, 8);
  assert.deepEqual(s.client.read(data + 8n, 24), new Uint8Array(24));
  assert.deepEqual(s.client.read(data + 32n, 1), new Uint8Array([0xff]));
  // Less room than there is to say: what fits.
  s.client.write(data, new Uint8Array(8).fill(0xee));
  assert.equal(info({ ...dev, data_len: 4, data_uptr: data }).data_len, 8);
  assert.deepEqual(s.client.read(data, 8), new Uint8Array([0, 0, 0, 0, 0xee, 0xee, 0xee, 0xee]));
  assert.equal(info(dev).data_len, 8);
  const asked = (type: number): Partial<uapi.iommu_hw_info> => {
    const given = uapi.iommu_hw_info.make({ ...dev, flags: uapi.IOMMU_HW_INFO_FLAG_INPUT_TYPE });
    given.data_type.write('in_data_type', type);
    return given;
  };
  refuses('EOPNOTSUPP', () => info(asked(1)));
  info(asked(mock.IOMMU_HW_INFO_TYPE_SELFTEST));
});

fixture('area', ({ s, ioas, base, buffer }) => {
  refuses('ENOENT', () => s.unmap(ioas, 0n, PAGE));
  for (let i = 0n; i < 10n; i++) s.map(ioas, buffer, PAGE, { iova: base + i * PAGE });
  for (let i = 0n; i < 10n; i++) assert.equal(s.unmap(ioas, base + i * PAGE, PAGE), PAGE);
  const at = base + 16n * PAGE;
  s.map(ioas, buffer, 2n * PAGE, { iova: at });
  refuses('ENOENT', () => s.unmap(ioas, at, PAGE));
  refuses('ENOENT', () => s.unmap(ioas, at + PAGE, PAGE));
  for (const [iova, pages] of [
    [at, 2n],
    [at, 1n],
    [at + PAGE, 1n],
    [at - PAGE, 2n],
    [at - PAGE, 3n],
  ] as const) {
    refuses('EEXIST', () => s.map(ioas, buffer, pages * PAGE, { iova }));
  }
  assert.equal(s.unmap(ioas, 0n, MAX), 2n * PAGE);
  assert.equal(s.unmap(ioas, 0n, MAX), 0n);
});

fixture('unmap_fully_contained_areas', ({ s, ioas, base, buffer }) => {
  const at = base + 4n * PAGE;
  for (let i = 0n; i < 4n; i++) s.map(ioas, buffer, 8n * PAGE, { iova: at + i * 16n * PAGE });
  refuses('ENOENT', () => s.unmap(ioas, at - 4n * PAGE, 8n * PAGE));
  refuses('ENOENT', () => s.unmap(ioas, at + 52n * PAGE, 8n * PAGE));
  assert.equal(s.unmap(ioas, at - 4n * PAGE, 60n * PAGE), 32n * PAGE);
});

fixture('area_auto_iova', ({ s, ioas, base, buffer }) => {
  const aligned = (iova: bigint, length: bigint): void => {
    assert.equal(iova % (length & -length), 0n);
  };
  for (let i = 1n; i <= 10n; i++) aligned(s.map(ioas, buffer, i * PAGE), i * PAGE);
  s.unmap(ioas, 0n, MAX);
  const reserved = { start: base + 4n * PAGE, length: 100n * PAGE };
  s.reserve(ioas, reserved.start, reserved.length);
  for (let i = 1n; i <= 10n; i++) {
    const iova = s.map(ioas, buffer, i * PAGE);
    aligned(iova, i * PAGE);
    assert.ok(iova + i * PAGE <= reserved.start || iova >= reserved.start + reserved.length);
  }
  s.unmap(ioas, 0n, MAX);
  refuses('EADDRINUSE', () => {
    allow(s, ioas, [[base + PAGE, base + 600n * PAGE]]);
  });
  const [first, last] = [base + 200n * PAGE, base + 600n * PAGE - 1n];
  allow(s, ioas, [[first, last]]);
  for (let i = 1n; i <= 10n; i++) {
    const iova = s.map(ioas, buffer, i * PAGE);
    assert.ok(iova >= first && iova + i * PAGE - 1n <= last);
  }
  // A fixed IOVA may lie anywhere (iopt_check_iova does not look at the list).
  s.map(ioas, buffer, PAGE, { iova: base });
});

engineTest('iommufd_ioas.no_domain.reserved_overflow', (s) => {
  const ioas = s.ioas();
  s.reserve(ioas, 6n, 0xffff_ffff_ffff_8001n);
  refuses('ENOSPC', () => s.map(ioas, s.client.allocate(5), 0x5000n));
});

fixture('area_allowed', ({ s, ioas, base }) => {
  const list = [[base, base + 600n * PAGE]] as const;
  allow(s, ioas, list);
  refuses('EADDRINUSE', () => {
    s.reserve(ioas, base + PAGE, PAGE);
  });
  allow(s, ioas, []);
  s.reserve(ioas, base + PAGE, PAGE);
  refuses('EADDRINUSE', () => {
    allow(s, ioas, list);
  });
});

fixture('copy_area', ({ s, ioas, base, buffer }) => {
  s.map(ioas, buffer, PAGE, { iova: base });
  const flags = uapi.IOMMU_IOAS_MAP_FIXED_IOVA | uapi.IOMMU_IOAS_MAP_WRITEABLE;
  const copy = { flags, src_ioas_id: ioas, dst_ioas_id: ioas, length: PAGE, src_iova: base };
  s.ioctl('IOMMU_IOAS_COPY', { ...copy, dst_iova: base + PAGE });
  s.ioctl('IOMMU_IOAS_COPY', { ...copy, dst_ioas_id: s.ioas(), dst_iova: 0n });
});

engineTest('IOMMU_IOAS_COPY: refusals in the order of iommufd_ioas_copy', (s) => {
  const [source, target] = [s.ioas(), s.ioas()];
  const readOnly = s.client.allocate(4);
  s.map(source, readOnly, 2n * PAGE, { iova: PAGE, flags: uapi.IOMMU_IOAS_MAP_READABLE });
  const good = { flags: READ_WRITE, src_ioas_id: source, dst_ioas_id: target, length: PAGE };
  const copy = (given: Partial<uapi.iommu_ioas_copy>): bigint =>
    s.ioctl('IOMMU_IOAS_COPY', { ...good, ...given }).dst_iova;
  refuses('EOPNOTSUPP', () => copy({ flags: 8, length: MAX }));
  for (const field of ['length', 'src_iova', 'dst_iova'] as const) {
    refuses('EOVERFLOW', () => copy({ [field]: MAX, flags: 0 }));
  }
  refuses('EINVAL', () => copy({ flags: 0, src_ioas_id: 99 }));
  refuses('ENOENT', () => copy({ src_ioas_id: 99, length: 0n }));
  refuses('EINVAL', () => copy({ length: 0n }));
  refuses('EOVERFLOW', () => copy({ src_iova: MAX - 1n, length: PAGE, dst_ioas_id: 99 }));
  refuses('ENOENT', () => copy({ src_iova: 2n * PAGE, length: 2n * PAGE, dst_ioas_id: 99 }));
  refuses('ENOENT', () => copy({ src_iova: PAGE, dst_ioas_id: 99 }));
  // The pages were given read-only.
  refuses('EPERM', () => copy({ src_iova: PAGE }));
  copy({ src_iova: PAGE + 0x800n, length: PAGE, flags: uapi.IOMMU_IOAS_MAP_READABLE });
});

engineTest('IOMMU_IOAS_COPY: borders between slices are looked at by a domain alone', (s) => {
  const [source, target, bare] = [s.ioas(), s.ioas(), s.ioas()];
  const buffer = s.client.allocate(4);
  s.map(source, buffer, 0x7ffn, { iova: 0x10000n });
  s.map(source, buffer + 2n * PAGE, 1n, { iova: 0x107ffn });
  s.mockDomain(target);
  const copy = (to: number): unknown =>
    s.ioctl('IOMMU_IOAS_COPY', {
      flags: READ_WRITE,
      src_ioas_id: source,
      src_iova: 0x10000n,
      dst_ioas_id: to,
      length: 0x800n,
    });
  refuses('ENXIO', () => copy(target));
  refuses('ENOENT', () => s.unmap(target, 2n ** 24n, PAGE));
  copy(bare);
  assert.equal(s.unmap(bare, 0n, MAX), 0x800n);
});

engineTest('IOMMU_IOAS_MAP: more pages than the kernel can count', (s) => {
  const ioas = s.ioas();
  // The length and what lies before it in the first page, rounded up to pages, must fit 64 bits.
  for (const [address, length] of [
    [4095n, MAX - PAGE],
    [2n, MAX - PAGE],
  ] as const) {
    refuses('EOVERFLOW', () => s.map(ioas, address, length, { iova: 0n }));
  }
  for (const [address, length] of [
    [1n, MAX - PAGE],
    [4095n, MAX - 2n * PAGE],
  ] as const) {
    s.map(ioas, address, length, { iova: 0n });
    assert.equal(s.unmap(ioas, 0n, MAX), length);
  }
});

engineTest('IOMMU_IOAS_MAP: refusals in the order of iommufd_ioas_map', (s) => {
  const ioas = s.ioas();
  const buffer = s.client.allocate(4);
  const good = { flags: READ_WRITE, ioas_id: ioas, user_va: buffer, length: PAGE };
  const map = (given: Partial<uapi.iommu_ioas_map>): bigint =>
    s.ioctl('IOMMU_IOAS_MAP', { ...good, ...given }).iova;
  refuses('EOPNOTSUPP', () => map({ flags: 8, length: MAX }));
  refuses('EOPNOTSUPP', () => map({ __reserved: 1, length: MAX }));
  refuses('EOVERFLOW', () => map({ length: MAX, flags: 0 }));
  refuses('EOVERFLOW', () => map({ iova: MAX, flags: 0 }));
  refuses('EINVAL', () => map({ flags: 0, ioas_id: 99 }));
  refuses('ENOENT', () => map({ ioas_id: 99, length: 0n }));
  refuses('EOVERFLOW', () => map({ user_va: MAX, length: PAGE }));
  refuses('EINVAL', () => map({ length: 0n }));
  // iopt_alloc_iova: half of the address space is too much
  refuses('EOVERFLOW', () => map({ user_va: 0n, length: 2n ** 63n - 1n }));
  const fixed = READ_WRITE | uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
  refuses('EOVERFLOW', () => map({ flags: fixed, iova: MAX - 1n }));
  s.reserve(ioas, 16n * PAGE, PAGE);
  refuses('EINVAL', () => map({ flags: fixed, iova: 15n * PAGE, length: 2n * PAGE }));
  // With a domain: alignment, then pinning.
  s.mockDomain(ioas);
  refuses('EINVAL', () => map({ length: 0x700n }));
  refuses('EINVAL', () => map({ flags: fixed, iova: APERTURE + 1n }));
  refuses('EINVAL', () => map({ user_va: buffer + 1n }));
  refuses('EINVAL', () => map({ flags: fixed, iova: APERTURE, user_va: buffer + 1n }));
  refuses('EFAULT', () => map({ user_va: buffer + 4n * PAGE }));
  refuses('EFAULT', () => map({ user_va: s.client.allocate(1, { readOnly: true }) }));
  map({ user_va: s.client.allocate(1, { readOnly: true }), flags: uapi.IOMMU_IOAS_MAP_READABLE });
});

engineTest('IOMMU_IOAS_MAP_FILE: refusals in the order of iommufd_ioas_map_file', (s) => {
  const ioas = s.ioas();
  const backing = new SparseBacking('memfd');
  const fd = s.client.installMemory({ backing, size: 4 * 4096, pinnable: true });
  const pipe = s.client.installMemory({ backing, size: 4 * 4096, pinnable: false });
  const map = (given: Partial<uapi.iommu_ioas_map_file>): bigint =>
    s.ioctl('IOMMU_IOAS_MAP_FILE', { flags: READ_WRITE, ioas_id: ioas, fd, length: PAGE, ...given })
      .iova;
  refuses('EOPNOTSUPP', () => map({ flags: 8, length: MAX }));
  refuses('EOVERFLOW', () => map({ length: MAX, flags: 0 }));
  refuses('EINVAL', () => map({ flags: 0, ioas_id: 99 }));
  refuses('ENOENT', () => map({ ioas_id: 99, length: 0n }));
  refuses('EINVAL', () => map({ length: 0n, fd: -1 }));
  refuses('EOVERFLOW', () => map({ start: MAX, length: 2n * PAGE, fd: -1 }));
  refuses('EBADF', () => map({ fd: 99 }));
  // What the file is shows only when pages are pinned.
  map({ fd: pipe });
  map({ start: 8n * PAGE });
  s.unmap(ioas, 0n, MAX);
  s.mockDomain(ioas);
  refuses('EINVAL', () => map({ fd: pipe }));
  refuses('EINVAL', () => map({ start: 3n * PAGE, length: 2n * PAGE }));
  map({ start: 3n * PAGE });
});

engineTest('IOMMU_IOAS_UNMAP: refusals in the order of iommufd_ioas_unmap', (s) => {
  const ioas = s.ioas();
  refuses('ENOENT', () => s.unmap(99, 0n, MAX));
  refuses('EOVERFLOW', () => s.unmap(ioas, MAX, 0n));
  refuses('EOVERFLOW', () => s.unmap(ioas, PAGE, MAX));
  refuses('EINVAL', () => s.unmap(ioas, PAGE, 0n));
  refuses('EOVERFLOW', () => s.unmap(ioas, MAX - 1n, 3n));
});

fixture('iova_ranges', ({ s, ioas, devices }) => {
  const list = s.client.allocate(1);
  const read = (num: number): uapi.iommu_ioas_iova_ranges =>
    s.ioctl('IOMMU_IOAS_IOVA_RANGES', { ioas_id: ioas, num_iovas: num, allowed_iovas: list });
  const found = (): bigint[] => [...new BigUint64Array(s.client.read(list, 32).buffer)];
  refuses('EOPNOTSUPP', () => s.ioctl('IOMMU_IOAS_IOVA_RANGES', { ioas_id: 99, __reserved: 1 }));
  refuses('ENOENT', () => s.ioctl('IOMMU_IOAS_IOVA_RANGES', { ioas_id: 99 }));
  const bare = devices.length === 0;
  const all = read(10);
  assert.equal(all.num_iovas, 1);
  assert.equal(all.out_iova_alignment, bare ? 1n : 2048n);
  const whole = bare ? [0n, MAX] : [APERTURE, BigInt(mock.MOCK_APERTURE_LAST)];
  assert.deepEqual(found(), [...whole, 0n, 0n]);
  s.client.write(list, new Uint8Array(32));
  refuses('EMSGSIZE', () => read(0));
  assert.deepEqual(found(), [0n, 0n, 0n, 0n]);
  s.reserve(ioas, PAGE, PAGE);
  if (!bare) {
    assert.equal(read(1).num_iovas, 1);
    return;
  }
  assert.equal(read(10).num_iovas, 2);
  assert.deepEqual(found(), [0n, PAGE - 1n, 2n * PAGE, MAX]);
  s.client.write(list, new Uint8Array(32));
  refuses('EMSGSIZE', () => read(1));
  assert.deepEqual(found(), [0n, PAGE - 1n, 0n, 0n]);
  refuses('EFAULT', () =>
    s.ioctl('IOMMU_IOAS_IOVA_RANGES', { ioas_id: ioas, num_iovas: 2, allowed_iovas: 8n }),
  );
});

engineTest('IOMMU_IOAS_ALLOW_IOVAS: refusals in the order of iommufd_ioas_allow_iovas', (s) => {
  const ioas = s.ioas();
  const given = { ioas_id: 99, num_iovas: 1, allowed_iovas: 0n };
  refuses('EOPNOTSUPP', () => s.ioctl('IOMMU_IOAS_ALLOW_IOVAS', { ...given, __reserved: 1 }));
  refuses('ENOENT', () => s.ioctl('IOMMU_IOAS_ALLOW_IOVAS', given));
  refuses('EFAULT', () => s.ioctl('IOMMU_IOAS_ALLOW_IOVAS', { ...given, ioas_id: ioas }));
  for (const list of [
    [[5n, 5n]],
    [[6n, 5n]],
    [
      [0n, 10n],
      [10n, 20n],
    ],
  ] as [bigint, bigint][][]) {
    refuses('EINVAL', () => {
      allow(s, ioas, list);
    });
  }
  allow(s, ioas, [
    [100n, 200n],
    [0n, 10n],
  ]);
});

fixture('access_domain_destory', ({ s, ioas, base, devices }) => {
  const huge = 0x5000_0000_0000n;
  s.client.memory.map(huge, { backing: new SparseBacking('huge', 512), page: 0, count: 1024 });
  s.map(ioas, huge, 1024n * PAGE, { iova: base });
  const access = s.access(ioas, true);
  const item = access.pin(base + PAGE, PAGE, { uptr: huge + PAGE });
  for (const { stdev } of devices) s.destroy(stdev);
  access.unpin(item);
  access.close();
});

fixture('access_pin', ({ s, ioas, buffer, devices }) => {
  const access = s.access(ioas, true);
  for (let pages = 1n; pages < 16n; pages++) {
    const [iova, length] = [APERTURE, pages * PAGE];
    s.map(ioas, buffer, 16n * PAGE, { iova });
    access.unpin(access.pin(iova, length, { uptr: buffer }));
    const first = access.pin(iova, length, { uptr: buffer });
    access.unpin(access.pin(iova, length, { uptr: buffer }));
    const { stdev, hwpt } = s.mockDomain(ioas);
    s.checkMap(hwpt, iova, { address: buffer, length: 16n * PAGE });
    s.destroy(stdev);
    // One pin for the set, whoever uses it.
    s.checkRefs(buffer, length, 1);
    if (devices.length === 0) s.checkRefs(buffer + length, 16n * PAGE - length, 0);
    access.unpin(first);
    s.unmap(ioas, iova, 16n * PAGE);
    s.checkRefs(buffer, 16n * PAGE, 0);
  }
});

fixture('access_pin_unmap: unmapping makes accesses let go', ({ s, ioas, base, buffer }) => {
  const access = s.access(ioas, true);
  s.map(ioas, buffer, 8n * PAGE, { iova: base });
  const item = access.pin(base, 4n * PAGE);
  assert.equal(s.unmap(ioas, base, 8n * PAGE), 8n * PAGE);
  refuses('ENOENT', () => {
    access.unpin(item);
  });
  s.checkRefs(buffer, 8n * PAGE, 0);
});

fixture('access_pin: refusals', ({ s, ioas, base, buffer }) => {
  const [pinner, copier] = [s.access(ioas, true), s.access(ioas, false)];
  s.map(ioas, buffer, 2n * PAGE, { iova: base, flags: uapi.IOMMU_IOAS_MAP_READABLE });
  refuses('EBADFD', () => new AccessHandle(s, s.fd).pin(base, PAGE));
  refuses('EBADFD', () => new AccessHandle(s, 999).pin(base, PAGE));
  refuses('ENOMEM', () => pinner.pin(base, 16n * 1024n * 1024n + 1n));
  refuses('EOPNOTSUPP', () => copier.pin(base, PAGE));
  refuses('EINVAL', () => pinner.pin(base, 0n));
  refuses('EOVERFLOW', () => pinner.pin(MAX, 2n * PAGE));
  refuses('ENOENT', () => pinner.pin(base + 2n * PAGE, PAGE));
  refuses('ENOENT', () => pinner.pin(base, 3n * PAGE, { write: false }));
  refuses('EPERM', () => pinner.pin(base, PAGE));
  refuses('EBADE', () => pinner.pin(base, PAGE, { write: false, uptr: buffer + PAGE }));
  refuses('ENOENT', () => {
    pinner.unpin(0);
  });
  s.checkRefs(buffer, 2n * PAGE, s.context.objects.live().length > 3 ? 1 : 0);
  pinner.pin(base, 2n * PAGE, { write: false, uptr: buffer });
});

engineTest('iommufd_ioas: an access that pins needs areas of whole pages', (s) => {
  const ioas = s.ioas();
  const buffer = s.client.allocate(2);
  const iova = s.map(ioas, buffer, 0x800n);
  refuses('EADDRINUSE', () => s.access(ioas, true));
  s.unmap(ioas, iova, 0x800n);
  const access = s.access(ioas, true);
  refuses('EINVAL', () => s.map(ioas, buffer, 0x800n));
  const other = s.ioas();
  access.replace(other);
  // The alignment goes down again with the access that needed it.
  s.map(ioas, buffer, 0x800n);
  refuses('ENOENT', () => {
    access.replace(999);
  });
  refuses('EADDRINUSE', () => {
    access.replace(ioas);
  });
});

fixture('access_rw, access_rw_unaligned', ({ s, ioas, base, buffer }) => {
  const access = s.access(ioas, false);
  s.map(ioas, buffer, 4n * PAGE, { iova: base });
  const text = new TextEncoder().encode('a line that lies across the border of two pages');
  const scratch = s.put(text);
  const length = BigInt(text.length);
  for (const slow of [0, mock.MOCK_ACCESS_RW_SLOW_PATH]) {
    for (const at of [0n, 17n, PAGE - 5n, 3n * PAGE]) {
      const range = { iova: base + at, length, uptr: scratch };
      access.rw(range, mock.MOCK_ACCESS_RW_WRITE | slow);
      assert.deepEqual(s.client.read(buffer + at, text.length), text);
      s.client.write(scratch, new Uint8Array(text.length));
      access.rw(range, slow);
      assert.deepEqual(s.client.read(scratch, text.length), text);
    }
  }
  refuses('ENOMEM', () => {
    access.rw({ iova: base, length: 2n ** 25n, uptr: scratch }, 0);
  });
  refuses('EOPNOTSUPP', () => {
    access.rw({ iova: base, length, uptr: scratch }, 2);
  });
  refuses('EINVAL', () => {
    access.rw({ iova: base, length: 0n, uptr: scratch }, 0);
  });
  refuses('ENOENT', () => {
    access.rw({ iova: base + 4n * PAGE, length, uptr: scratch }, 0);
  });
  refuses('ENOENT', () => {
    access.rw({ iova: base + 4n * PAGE - 1n, length, uptr: scratch }, 0);
  });
  refuses('EFAULT', () => {
    access.rw({ iova: base, length, uptr: 8n }, mock.MOCK_ACCESS_RW_WRITE);
  });
});

engineTest('IOMMU_TEST_OP_ACCESS_RW: permissions of the area and of the memory', (s) => {
  const ioas = s.ioas();
  const buffer = s.client.allocate(1);
  const access = s.access(ioas, false);
  const range = { iova: 0n, length: 4n, uptr: buffer };
  s.map(ioas, buffer, PAGE, { iova: 0n, flags: uapi.IOMMU_IOAS_MAP_READABLE });
  refuses('EPERM', () => {
    access.rw(range, mock.MOCK_ACCESS_RW_WRITE);
  });
  s.unmap(ioas, 0n, PAGE);
  s.map(ioas, buffer, PAGE, { iova: 0n, flags: uapi.IOMMU_IOAS_MAP_WRITEABLE });
  refuses('EPERM', () => {
    access.rw(range, 0);
  });
});

fixture('fork_gone: pages that were pinned outlive their process', ({ s, lab, ioas, devices }) => {
  const child = s.client.fork(50);
  lab.clients.push(child);
  const buffer = child.allocate(1);
  child.write(buffer, new Uint8Array([1, 2, 3]));
  const iova = s.in(child).map(ioas, buffer, PAGE, { iova: APERTURE });
  child.exit();
  const access = s.access(ioas, false);
  const scratch = s.client.allocate(1);
  const range = { iova, length: 3n, uptr: scratch };
  if (devices.length === 0) {
    refuses('EFAULT', () => {
      access.rw(range, 0);
    });
    refuses('EFAULT', () => s.mockDomain(ioas));
    s.unmap(ioas, iova, PAGE);
    return;
  }
  access.rw(range, 0);
  assert.deepEqual([...s.client.read(scratch, 3)], [1, 2, 3]);
});

fixture('ioas_option_huge_pages, ioas_align_change', ({ s, ioas, base, devices, buffer }) => {
  const option = (op: number, val64: bigint): bigint =>
    s.ioctl('IOMMU_OPTION', { option_id: 1, op, object_id: ioas, val64 }).val64;
  const { IOMMU_OPTION_OP_GET: get, IOMMU_OPTION_OP_SET: set } = uapi;
  refuses('ENOENT', () => s.ioctl('IOMMU_OPTION', { option_id: 1, op: get, object_id: 99 }));
  refuses('EOPNOTSUPP', () => option(2, 0n));
  refuses('EINVAL', () => option(set, 2n));
  assert.equal(option(get, 3n), 1n);
  option(set, 0n);
  option(set, 0n);
  assert.equal(option(get, 3n), 0n);
  option(set, 1n);
  s.map(ioas, buffer, PAGE, { iova: base });
  if (devices.length > 0) {
    refuses('EINVAL', () => option(set, 0n));
    return;
  }
  option(set, 0n);
  refuses('EINVAL', () => s.map(ioas, buffer + 0x800n, PAGE, { iova: base + PAGE }));
  option(set, 1n);
  s.map(ioas, buffer + 0x800n, PAGE, { iova: base + PAGE });
  refuses('EADDRINUSE', () => option(set, 0n));
});

fixture('ioas_iova_alloc', ({ s, ioas, devices, buffer }) => {
  for (let length = 1n; length < 2n * PAGE; length += 113n) {
    if (devices.length > 0) refuses('EINVAL', () => s.map(ioas, buffer, length));
    else s.unmap(ioas, s.map(ioas, buffer, length), length);
  }
  s.unmap(ioas, s.map(ioas, buffer, 0x800n), 0x800n);
});

fixture('copy_sweep', ({ s, ioas, base, buffer }) => {
  const source = s.ioas();
  s.map(source, buffer, 16n * PAGE, { iova: base });
  s.map(source, buffer + 16n * PAGE, 16n * PAGE, { iova: base + 16n * PAGE });
  for (const from of [0n, 0x800n, 15n * PAGE]) {
    for (const length of [0x800n, PAGE, 3n * PAGE + 0x800n, 17n * PAGE]) {
      const request = { flags: READ_WRITE, src_ioas_id: source, dst_ioas_id: ioas, length };
      const copy = s.ioctl('IOMMU_IOAS_COPY', { ...request, src_iova: base + from });
      assert.equal(s.unmap(ioas, copy.dst_iova, length), length);
    }
  }
});

engineTest('IOMMU_TEST_OP_ADD_RESERVED, SET_TEMP_MEMORY_LIMIT and unknown operations', (s) => {
  const ioas = s.ioas();
  refuses('EINVAL', () => {
    s.reserve(ioas, 0n, 0n);
  });
  refuses('EOVERFLOW', () => {
    s.reserve(99, MAX, 2n);
  });
  refuses('ENOENT', () => {
    s.reserve(99, 0n, 1n);
  });
  s.map(ioas, s.client.allocate(1), PAGE, { iova: 0n });
  refuses('EADDRINUSE', () => {
    s.reserve(ioas, PAGE - 1n, PAGE);
  });
  const limit = mock.IOMMU_TEST_OP_SET_TEMP_MEMORY_LIMIT;
  refuses('EINVAL', () => s.test(limit, 0, { memory_limit: { limit: 11 } }));
  s.test(limit, 0, { memory_limit: { limit: 12 } });
  refuses('EOPNOTSUPP', () => s.test(99, 0));
});

engineTest('MOCK_FLAGS_ACCESS_SYZ: an IOVA names an area by number', (s) => {
  const ioas = s.ioas();
  const buffer = s.client.allocate(4);
  s.map(ioas, buffer, PAGE, { iova: 5n * PAGE });
  s.map(ioas, buffer, PAGE, { iova: 9n * PAGE });
  const flags = READ_WRITE | mock.MOCK_FLAGS_ACCESS_SYZ;
  const copy = { flags, src_ioas_id: ioas, dst_ioas_id: ioas, length: 0x800n };
  // the second area, 0x800 bytes into it
  s.ioctl('IOMMU_IOAS_COPY', { ...copy, src_iova: (0x800n << 32n) | 1n });
  // no third area: IOVA 0, where nothing is
  refuses('ENOENT', () => s.ioctl('IOMMU_IOAS_COPY', { ...copy, src_iova: 7n }));
  refuses('ENOENT', () => s.ioctl('IOMMU_IOAS_COPY', { ...copy, src_ioas_id: 99 }));
});
