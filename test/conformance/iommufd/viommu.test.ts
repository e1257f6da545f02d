/**
 * Fixture iommufd_viommu of tools/testing/selftests/iommu/iommufd.c and the nested part of iommufd_ioas, in process.
 * Beyond the kernel's tests: the order of the checks in hw_pagetable.c and viommu.c, events that are lost (eventq.c).
 */
import assert from 'node:assert/strict';
import { SparseBacking } from '../../../src/base/sparse-backing.ts';
import { ClientFile } from '../../../src/client/in-process.ts';
import {
  APERTURE,
  PAGE,
  engineTest,
  refuses,
  type Lab,
  type Session,
} from '../../../src/testing/lab.ts';
import * as mock from '../../../src/uapi/iommufd-test.ts';
import * as uapi from '../../../src/uapi/iommufd.ts';

const PARENT = { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT };

type Parts = {
  readonly s: Session;
  readonly lab: Lab;
  readonly ioas: number;
  readonly device: number;
  readonly stdev: number;
  readonly parent: number;
};

function nestedTest(name: string, body: (parts: Parts) => void): void {
  engineTest(name, (s, lab) => {
    const ioas = s.ioas();
    const { device, stdev } = s.mockDomain(ioas);
    body({ s, lab, ioas, device, stdev, parent: s.hwpt(device, ioas, PARENT) });
  });
}

function checkIotlb(s: Session, hwpt: number, words: readonly number[]): void {
  words.forEach((iotlb, id) => {
    s.test(mock.IOMMU_TEST_OP_MD_CHECK_IOTLB, hwpt, { check_iotlb: { id, iotlb } });
  });
}

nestedTest('iommufd_ioas.alloc_hwpt_nested: refusals', ({ s, ioas, device, parent }) => {
  const plain = s.hwpt(device, ioas);
  const data = s.data({ iotlb: 7 });
  const alloc = (given: Partial<uapi.iommu_hwpt_alloc>): number =>
    s.hwpt(device, parent, { ...data, ...given });
  refuses('EOPNOTSUPP', () => alloc({ __reserved: 1, dev_id: 99 }));
  refuses('EINVAL', () => alloc({ data_type: 0, dev_id: 99 }));
  refuses('EINVAL', () => alloc({ data_len: 0, dev_id: 99 }));
  refuses('ENOENT', () => alloc({ dev_id: 99, pt_id: 99 }));
  // A page table that is not there is EINVAL, unlike every other id (iommufd_hwpt_alloc).
  refuses('EINVAL', () => alloc({ pt_id: 99 }));
  refuses('EINVAL', () => alloc({ pt_id: device }));
  refuses('EOPNOTSUPP', () => alloc({ flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT }));
  refuses('EOPNOTSUPP', () => alloc({ data_type: 0, data_len: 0, data_uptr: 0n }));
  refuses('EINVAL', () => alloc({ pt_id: plain }));
  refuses('EOPNOTSUPP', () => alloc({ data_type: mock.IOMMU_HWPT_DATA_SELFTEST + 1 }));
  refuses('EINVAL', () => alloc({ data_len: 3 }));
  refuses('EINVAL', () => alloc({ data_len: 64 }));
  refuses('EFAULT', () => alloc({ data_uptr: 0n }));
  refuses('ENOENT', () => alloc({ flags: uapi.IOMMU_HWPT_FAULT_ID_VALID, fault_id: 99 }));
  const nested = alloc({});
  refuses('EINVAL', () => alloc({ pt_id: nested }));
  // For an IOAS: flags, then what the device can do, then what does not go together.
  refuses('EOPNOTSUPP', () => s.hwpt(device, ioas, { flags: 16 }));
  const both = uapi.IOMMU_HWPT_ALLOC_NEST_PARENT | uapi.IOMMU_HWPT_FAULT_ID_VALID;
  refuses('EOPNOTSUPP', () => s.hwpt(device, ioas, { flags: both }));
  refuses('EOPNOTSUPP', () => s.hwpt(device, ioas, s.data({ pagetable_type: 2 })));
  refuses('EOPNOTSUPP', () => s.hwpt(device, ioas, { ...data, data_type: 1 }));
  refuses('EBUSY', () => {
    s.destroy(parent);
  });
});

nestedTest(
  'iommufd_ioas.alloc_hwpt_nested: an automatic parent is none',
  ({ s, ioas, device, stdev }) => {
    const hwpt = s.replace(stdev, ioas);
    refuses('EINVAL', () => s.nested(device, hwpt));
  },
);

nestedTest('iommufd_ioas.alloc_hwpt_nested: invalidation', ({ s, device, parent }) => {
  const struct = mock.iommu_hwpt_invalidate_selftest;
  const [hwpt, other] = [s.nested(device, parent, 5), s.nested(device, parent, 6)];
  const entries = s.client.allocate(2);
  const put = (...list: [flags: number, word: number][]): void => {
    list.forEach(([flags, word], i) => {
      const bytes = new Uint8Array(struct.size);
      struct.encode({ flags, iotlb_id: word }, bytes);
      s.client.write(entries + BigInt(i * struct.size), bytes);
    });
  };
  // Whatever the answer is, the struct says how many entries were handled.
  let handled = -1;
  const address = s.client.allocate(1);
  const invalidate = (given: Partial<uapi.iommu_hwpt_invalidate>): void => {
    const bytes = new Uint8Array(uapi.iommu_hwpt_invalidate.size);
    const cmd = uapi.iommu_hwpt_invalidate.make({
      hwpt_id: hwpt,
      data_uptr: entries,
      data_type: mock.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST,
      entry_len: struct.size,
      entry_num: 1,
      ...given,
    });
    uapi.iommu_hwpt_invalidate.encode(cmd, bytes);
    s.client.write(address, bytes);
    try {
      s.client.ioctl(s.fd, uapi.IOMMU_HWPT_INVALIDATE, address);
    } finally {
      handled = uapi.iommu_hwpt_invalidate.decode(s.client.read(address, bytes.length)).entry_num;
    }
  };
  const refused = (
    code: Parameters<typeof refuses>[0],
    given: Partial<uapi.iommu_hwpt_invalidate>,
    done = 0,
  ): void => {
    refuses(code, () => {
      invalidate(given);
    });
    assert.equal(handled, done);
  };
  put([0, 0]);
  refused('EOPNOTSUPP', { __reserved: 1, entry_len: 0 });
  refused('EINVAL', { data_uptr: 0n, hwpt_id: 99 });
  refused('EINVAL', { entry_len: 0, hwpt_id: 99 });
  refused('EINVAL', { entry_len: 4097, hwpt_id: 99 });
  refused('EINVAL', { entry_num: 2 ** 19 + 1, hwpt_id: 99 });
  refused('ENOENT', { hwpt_id: 99 });
  refused('EINVAL', { hwpt_id: parent });
  refused('EINVAL', { data_type: mock.IOMMU_HWPT_INVALIDATE_DATA_SELFTEST_INVALID });
  refused('EINVAL', { entry_len: struct.size + 1 });
  refused('EINVAL', { entry_len: 1 });
  refused('EFAULT', { data_uptr: 8n });
  refused('EINVAL', { data_type: 1, entry_num: 0 });
  invalidate({ entry_num: 0, data_uptr: 0n, entry_len: 0 });
  assert.equal(handled, 0);
  put([0xffff_ffff, 0]);
  refused('EOPNOTSUPP', {});
  put([0, mock.MOCK_NESTED_DOMAIN_IOTLB_ID_MAX + 1]);
  refused('EINVAL', {});
  checkIotlb(s, hwpt, [5, 5, 5, 5]);
  put([0, 0], [0xffff_ffff, 1]);
  refused('EOPNOTSUPP', { entry_num: 2 }, 1);
  checkIotlb(s, hwpt, [0, 5, 5, 5]);
  put([0, 2], [0, 3]);
  invalidate({ entry_num: 2 });
  assert.equal(handled, 2);
  checkIotlb(s, hwpt, [0, 5, 0, 0]);
  put([mock.IOMMU_TEST_INVALIDATE_FLAG_ALL, 0]);
  invalidate({ hwpt_id: other });
  checkIotlb(s, other, [0, 0, 0, 0]);
  const check = (id: number, iotlb: number): unknown =>
    s.test(mock.IOMMU_TEST_OP_MD_CHECK_IOTLB, hwpt, { check_iotlb: { id, iotlb } });
  refuses('EINVAL', () => check(1, 6));
  refuses('EINVAL', () => check(4, 0));
});

nestedTest(
  'iommufd_ioas.alloc_hwpt_nested: switching keeps what is used busy',
  ({ s, device, stdev, parent, ioas }) => {
    const [one, two] = [s.nested(device, parent), s.nested(device, parent)];
    for (const hwpt of [one, two]) {
      s.replace(stdev, hwpt);
      refuses('EBUSY', () => {
        s.destroy(hwpt);
      });
    }
    s.destroy(one);
    s.replace(stdev, ioas);
    s.destroy(two);
    s.destroy(parent);
  },
);

nestedTest('iommufd_viommu.viommu_negative_tests', ({ s, ioas, device, parent }) => {
  const type = mock.IOMMU_VIOMMU_TYPE_SELFTEST;
  const alloc = (given: Partial<uapi.iommu_viommu_alloc>): number =>
    s.ioctl('IOMMU_VIOMMU_ALLOC', { type, dev_id: device, hwpt_id: parent, ...given })
      .out_viommu_id;
  refuses('EOPNOTSUPP', () => alloc({ flags: 1, dev_id: 99 }));
  refuses('EOPNOTSUPP', () => alloc({ type: 0, dev_id: 99 }));
  refuses('ENOENT', () => alloc({ dev_id: 99, type: 1 }));
  refuses('EOPNOTSUPP', () => alloc({ type: 1, hwpt_id: 99 }));
  refuses('ENOENT', () => alloc({ hwpt_id: 99 }));
  refuses('ENOENT', () => alloc({ hwpt_id: ioas }));
  refuses('EINVAL', () => alloc({ hwpt_id: s.hwpt(device, ioas) }));
  refuses('EINVAL', () => alloc({ data_len: 1, data_uptr: s.client.allocate(1) }));
  refuses('EFAULT', () => alloc({ data_len: mock.iommu_viommu_selftest.size }));
  const viommu = alloc({});
  refuses('EBUSY', () => {
    s.destroy(parent);
  });
  s.destroy(viommu);
  s.destroy(parent);
});

nestedTest(
  'iommufd_viommu.viommu_alloc_with_data: the window, and what holds it',
  ({ s, lab, device, parent }) => {
    const struct = mock.iommu_viommu_selftest;
    const bytes = new Uint8Array(struct.size);
    struct.encode(struct.make({ in_data: 0xbeef }), bytes);
    const data = s.put(bytes);
    const given = { dev_id: device, hwpt_id: parent, data_len: bytes.length, data_uptr: data };
    const { out_viommu_id: viommu } = s.ioctl('IOMMU_VIOMMU_ALLOC', {
      type: mock.IOMMU_VIOMMU_TYPE_SELFTEST,
      ...given,
    });
    const told = struct.decode(s.client.read(data, bytes.length));
    assert.equal(told.out_data, 0xbeef);
    const { out_mmap_offset: offset, out_mmap_length: length } = told;
    const file = s.client.file(s.fd);
    const map = (request: {
      length?: bigint;
      shared?: boolean;
      execute?: boolean;
      offset?: bigint;
    }) =>
      file?.mmap?.(s.client, {
        offset,
        length,
        shared: true,
        write: true,
        execute: false,
        ...request,
      });
    // iommufd_fops_mmap, in its order
    refuses('EINVAL', () => map({ length: length + 1n, shared: false }));
    refuses('EINVAL', () => map({ shared: false, execute: true }));
    refuses('EPERM', () => map({ execute: true, offset: 0n }));
    refuses('ENXIO', () => map({ offset: offset + PAGE }));
    refuses('ENXIO', () => map({ length: PAGE }));
    refuses('ENXIO', () => map({ length: 2n * length }));
    const grant = s.mmap(offset, length);
    const word = new Uint8Array(4);
    grant.backing.read(grant.page * 4096, word);
    assert.equal(new DataView(word.buffer).getUint32(0, true), 0xbeef);
    lab.check();
    refuses('EBUSY', () => {
      s.destroy(viommu);
    });
    const second = s.mmap(offset, length);
    grant.release();
    refuses('EBUSY', () => {
      s.destroy(viommu);
    });
    second.release();
    s.destroy(viommu);
    refuses('ENXIO', () => s.mmap(offset, length));
  },
);

nestedTest('iommufd_viommu.vdevice_alloc', ({ s, ioas, device, stdev, parent }) => {
  const viommu = s.viommu(device, parent);
  refuses('ENOENT', () => s.vdevice(99, 99, 1n));
  refuses('ENOENT', () => s.vdevice(viommu, 99, 1n));
  const vdevice = s.vdevice(viommu, device, 0x99n);
  refuses('EEXIST', () => s.vdevice(viommu, device, 0x88n));
  const other = s.mockDomain(ioas);
  refuses('EEXIST', () => s.vdevice(viommu, other.device, 0x99n));
  refuses('EBUSY', () => {
    s.destroy(viommu);
  });
  s.destroy(vdevice);
  const again = s.vdevice(viommu, device, 0x99n);
  // The vDEVICE goes with its device, and its id stays taken (iommufd_device_pre_destroy).
  s.destroy(stdev);
  refuses('ENOENT', () => {
    s.destroy(again);
  });
  const fresh = s.ioas();
  assert.notEqual(fresh, again);
  s.destroy(viommu);
});

nestedTest(
  'iommufd_viommu.vdevice_tombstone: RLIMIT_MODE stays shut',
  ({ s, ioas, device, stdev, parent }) => {
    const viommu = s.viommu(device, parent);
    s.vdevice(viommu, device, 0x99n);
    s.destroy(stdev);
    s.destroy(viommu);
    s.destroy(parent);
    s.destroy(ioas);
    assert.deepEqual(s.context.objects.live(), []);
    const set = { option_id: uapi.IOMMU_OPTION_RLIMIT_MODE, op: uapi.IOMMU_OPTION_OP_SET };
    refuses('EBUSY', () => s.ioctl('IOMMU_OPTION', set));
  },
);

nestedTest('iommufd_viommu.vdevice_cache', ({ s, device, parent }) => {
  const struct = mock.iommu_viommu_invalidate_selftest;
  const viommu = s.viommu(device, parent);
  s.vdevice(viommu, device, 0x99n);
  const cache = (words: readonly number[]): void => {
    words.forEach((word, id) => {
      const given = { check_dev_cache: { id, cache: word } };
      s.test(mock.IOMMU_TEST_OP_DEV_CHECK_CACHE, device, given);
    });
  };
  const old = mock.IOMMU_TEST_DEV_CACHE_DEFAULT;
  cache([old, old, old, old]);
  refuses('EINVAL', () => {
    cache([0]);
  });
  const invalidate = (
    list: readonly Partial<mock.iommu_viommu_invalidate_selftest>[],
    given: Partial<uapi.iommu_hwpt_invalidate> = {},
  ): number => {
    const bytes = new Uint8Array(struct.size * list.length);
    list.forEach((entry, i) => {
      struct.encode(struct.make({ vdev_id: 0x99, ...entry }), bytes, i * struct.size);
    });
    return s.ioctl('IOMMU_HWPT_INVALIDATE', {
      hwpt_id: viommu,
      data_uptr: s.put(bytes),
      data_type: mock.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
      entry_len: struct.size,
      entry_num: list.length,
      ...given,
    }).entry_num;
  };
  const bad = { data_type: mock.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST_INVALID };
  refuses('EINVAL', () => invalidate([{}], bad));
  refuses('EINVAL', () => invalidate([], { ...bad, entry_num: 0 }));
  assert.equal(invalidate([], { entry_num: 0 }), 0);
  refuses('EOPNOTSUPP', () => invalidate([{ flags: 0xffff_ffff }]));
  refuses('EINVAL', () => invalidate([{ cache_id: mock.MOCK_DEV_CACHE_ID_MAX + 1 }]));
  refuses('EINVAL', () => invalidate([{ vdev_id: 0x9 }]));
  refuses('EFAULT', () => invalidate([{}], { data_uptr: 8n }));
  // A longer entry must be zero behind what is known (copy_struct_from_user).
  refuses('E2BIG', () => {
    const wide = new Uint8Array(struct.size + 4).fill(1, struct.size);
    return invalidate([], { entry_num: 1, entry_len: wide.length, data_uptr: s.put(wide) });
  });
  cache([old, old, old, old]);
  refuses('EOPNOTSUPP', () => invalidate([{ cache_id: 0 }, { flags: 2 }]));
  cache([0, old, old, old]);
  assert.equal(invalidate([{ cache_id: 2 }, { cache_id: 3 }]), 2);
  cache([0, old, 0, 0]);
  assert.equal(invalidate([{ flags: mock.IOMMU_TEST_INVALIDATE_FLAG_ALL }]), 1);
  cache([0, 0, 0, 0]);
});

nestedTest('iommufd_viommu.hw_queue', ({ s, ioas, device, parent }) => {
  const viommu = s.viommu(device, parent);
  const huge = 0x5000_0000_0000n;
  s.client.memory.map(huge, { backing: new SparseBacking('huge', 512), page: 0, count: 512 });
  const iova = s.map(ioas, huge, 512n * PAGE, { iova: APERTURE });
  const small = s.map(ioas, s.client.allocate(4), 4n * PAGE);
  const queue = (given: Partial<uapi.iommu_hw_queue_alloc>): number =>
    s.ioctl('IOMMU_HW_QUEUE_ALLOC', {
      viommu_id: viommu,
      type: mock.IOMMU_HW_QUEUE_TYPE_SELFTEST,
      nesting_parent_iova: iova,
      length: PAGE,
      ...given,
    }).out_hw_queue_id;
  refuses('EOPNOTSUPP', () => queue({ flags: 1, length: 0n }));
  refuses('EOPNOTSUPP', () => queue({ type: 0, length: 0n }));
  refuses('EINVAL', () => queue({ length: 0n, viommu_id: 99 }));
  refuses('EOVERFLOW', () => queue({ nesting_parent_iova: 2n ** 64n - 1n, viommu_id: 99 }));
  refuses('ENOENT', () => queue({ viommu_id: 99, type: 1 }));
  refuses('EOPNOTSUPP', () => queue({ type: 1 }));
  refuses('ERANGE', () => queue({ nesting_parent_iova: 1n, length: 2n ** 64n - 2n }));
  refuses('ENOMEM', () => queue({ length: 2n ** 41n }));
  refuses('ENOENT', () => queue({ nesting_parent_iova: 0n }));
  // Small pages have no neighbours in physical memory.
  refuses('EFAULT', () => queue({ nesting_parent_iova: small, length: 2n * PAGE }));
  refuses('EINVAL', () => queue({ index: mock.IOMMU_TEST_HW_QUEUE_MAX }));
  refuses('EIO', () => queue({ index: 1 }));
  const first = queue({});
  refuses('EEXIST', () => queue({}));
  const second = queue({ index: 1, nesting_parent_iova: iova + 5n, length: 16n });
  refuses('EBUSY', () => s.unmap(ioas, iova, 512n * PAGE));
  refuses('EBUSY', () => {
    s.destroy(first);
  });
  refuses('EBUSY', () => {
    s.destroy(viommu);
  });
  s.destroy(second);
  // The mock driver takes every queue that goes for the first one: as recorded, the second place stays taken.
  refuses('EEXIST', () => queue({ index: 1 }));
  s.destroy(queue({}));
  s.destroy(first);
  refuses('EEXIST', () => queue({ index: 1 }));
  s.destroy(queue({}));
  s.unmap(ioas, iova, 512n * PAGE);
});

nestedTest(
  'iommufd_viommu.vdevice_alloc: events, and those that are lost',
  ({ s, device, stdev, parent }) => {
    const viommu = s.viommu(device, parent);
    const type = mock.IOMMU_VEVENTQ_TYPE_SELFTEST;
    const alloc = (given: Partial<uapi.iommu_veventq_alloc>): ClientFile => {
      const request = { viommu_id: viommu, type, veventq_depth: 2, ...given };
      return new ClientFile(s.client, s.ioctl('IOMMU_VEVENTQ_ALLOC', request).out_veventq_fd);
    };
    refuses('EOPNOTSUPP', () => alloc({ flags: 1, veventq_depth: 0 }));
    refuses('EOPNOTSUPP', () => alloc({ __reserved: 1, veventq_depth: 0 }));
    refuses('EOPNOTSUPP', () => alloc({ type: 0, veventq_depth: 0 }));
    refuses('EINVAL', () => alloc({ veventq_depth: 0, viommu_id: 99 }));
    refuses('EINVAL', () => alloc({ veventq_depth: 2 ** 19 + 1, viommu_id: 99 }));
    refuses('ENOENT', () => alloc({ viommu_id: 99 }));
    const trigger = (): unknown =>
      s.test(mock.IOMMU_TEST_OP_TRIGGER_VEVENT, 0, { trigger_vevent: { dev_id: device } });
    refuses('ENOENT', trigger);
    s.vdevice(viommu, device, 0x99n);
    s.replace(stdev, s.nested(device, viommu));
    refuses('EOPNOTSUPP', trigger);
    const file = alloc({});
    refuses('EEXIST', () => alloc({}));
    assert.equal(file.readable, false);
    assert.equal(file.read(4096).length, 0);
    const header = uapi.iommufd_vevent_header;
    refuses('EINVAL', () => file.read(header.size - 1));
    refuses('ESPIPE', () => file.read(4096, 1));
    refuses('EINVAL', () => file.write(new Uint8Array(8)));
    for (let i = 0; i < 4; i++) trigger();
    assert.equal(file.readable, true);
    // Too little room for the first event, then for the second.
    const one = header.size + mock.iommu_viommu_event_selftest.size;
    refuses('EINVAL', () => file.read(one - 1));
    const first = file.read(one + header.size);
    assert.equal(first.length, one);
    assert.deepEqual(header.decode(first), { flags: 0, sequence: 0 });
    assert.equal(mock.iommu_viommu_event_selftest.decode(first, header.size).virt_id, 0x99);
    const rest = file.read(4096);
    assert.equal(
      rest.length,
      one + header.size,
      'the second event, and the marker of the lost ones',
    );
    assert.equal(header.decode(rest).sequence, 1);
    const lost = { flags: uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS, sequence: 3 };
    assert.deepEqual(header.decode(rest, one), lost);
    // The marker gives way to an event that fits.
    trigger();
    trigger();
    trigger();
    file.read(one);
    trigger();
    const sequences = [
      header.decode(file.read(one)).sequence,
      header.decode(file.read(one)).sequence,
    ];
    assert.deepEqual(sequences, [5, 7]);
    assert.equal(file.readable, false);
  },
);

nestedTest(
  'iommufd_viommu: behind the same vIOMMU a device keeps the virtual id that it came with',
  ({ s, device, stdev, parent }) => {
    const viommu = s.viommu(device, parent);
    const { file } = s.veventq(viommu, 8);
    const event = (): number => {
      s.test(mock.IOMMU_TEST_OP_TRIGGER_VEVENT, 0, { trigger_vevent: { dev_id: device } });
      const at = uapi.iommufd_vevent_header.size;
      return mock.iommu_viommu_event_selftest.decode(file.read(4096), at).virt_id;
    };
    const first = s.vdevice(viommu, device, 0x77n);
    s.replace(stdev, s.nested(device, viommu));
    s.destroy(first);
    s.vdevice(viommu, device, 0x99n);
    s.replace(stdev, s.nested(device, viommu));
    // mock_domain_nop_attach looks at the id only when the vIOMMU is another one.
    assert.equal(event(), 0x77);
    s.replace(stdev, parent);
    s.replace(stdev, s.nested(device, viommu));
    assert.equal(event(), 0x99);
    file.close();
  },
);

nestedTest(
  'iommufd_viommu.vdevice_cache: entries that are too many, or longer than known',
  ({ s, device, parent }) => {
    const { size } = mock.iommu_viommu_invalidate_selftest;
    const viommu = s.viommu(device, parent);
    s.vdevice(viommu, device, 0x99n);
    const address = s.client.allocate(1);
    const invalidate = (given: Partial<uapi.iommu_hwpt_invalidate>): void => {
      const bytes = new Uint8Array(uapi.iommu_hwpt_invalidate.size);
      const cmd = uapi.iommu_hwpt_invalidate.make({
        hwpt_id: viommu,
        data_type: mock.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
        entry_len: size,
        entry_num: 1,
        ...given,
      });
      uapi.iommu_hwpt_invalidate.encode(cmd, bytes);
      s.client.write(address, bytes);
      s.client.ioctl(s.fd, uapi.IOMMU_HWPT_INVALIDATE, address);
    };
    const left = (): number =>
      uapi.iommu_hwpt_invalidate.decode(s.client.read(address, uapi.iommu_hwpt_invalidate.size))
        .entry_num;
    // 12 bytes each, and 4 MiB is what the kernel allocates at once: asked before the type, the count stays.
    const many = { data_uptr: s.client.allocate(1), entry_num: 349_526 };
    for (const given of [many, { ...many, data_type: 0xdadbeef }]) {
      refuses('ENOMEM', () => {
        invalidate(given);
      });
      assert.equal(left(), many.entry_num);
    }
    refuses('EFAULT', () => {
      invalidate({ ...many, entry_num: 349_525 });
    });
    assert.equal(left(), 0);
    // What lies beyond the known part is looked at first: something there, unless it cannot be read.
    const page = s.client.allocate(1);
    s.client.write(page, Uint8Array.of(1));
    const odd = { entry_len: 32, data_uptr: page - 14n };
    refuses('EFAULT', () => {
      invalidate(odd);
    });
    refuses('E2BIG', () => {
      invalidate({ ...odd, data_uptr: page - BigInt(size) });
    });
    assert.equal(left(), 0);
  },
);

nestedTest(
  'iommufd: what a full table does not take leaves everything as it was',
  ({ s, lab, ioas, device, parent }) => {
    const viommu = s.viommu(device, parent);
    const before = s.context.objects.live();
    s.client.fileLimit = s.client.descriptors.length;
    refuses('EMFILE', () => s.faultQueue());
    refuses('EMFILE', () => s.veventq(viommu, 1));
    refuses('ENOMEM', () => s.access(ioas, true));
    lab.check();
    assert.deepEqual(s.context.objects.live(), before);
    s.client.fileLimit = Infinity;
    s.veventq(viommu, 1).file.close();
  },
);

nestedTest(
  'iommufd_viommu: attaching needs the vDEVICE, and the file keeps queue and context',
  ({ s, lab, device, stdev, parent }) => {
    const viommu = s.viommu(device, parent);
    const nested = s.nested(device, viommu);
    refuses('ENOENT', () => s.replace(stdev, nested));
    refuses('EOPNOTSUPP', () => s.hwpt(device, viommu, { ...s.data({}), flags: 1 }));
    refuses('EOPNOTSUPP', () => s.hwpt(device, viommu));
    const { id, file } = s.veventq(viommu, 1);
    refuses('EBUSY', () => {
      s.destroy(id);
    });
    refuses('EBUSY', () => {
      s.destroy(viommu);
    });
    s.close();
    assert.equal(lab.iommufd.contexts.length, 1);
    file.close();
    assert.equal(lab.iommufd.contexts.length, 0);
  },
);

nestedTest('iommufd_viommu.viommu_alloc_nested_iopf', ({ s, device, stdev, parent }) => {
  const { id, file } = s.faultQueue();
  refuses('EOPNOTSUPP', () => s.ioctl('IOMMU_FAULT_QUEUE_ALLOC', { flags: 1 }));
  const viommu = s.viommu(device, parent);
  s.vdevice(viommu, device, 0x99n);
  const flags = uapi.IOMMU_HWPT_FAULT_ID_VALID;
  refuses('ENOENT', () => s.hwpt(device, viommu, { ...s.data({}), flags, fault_id: 99 }));
  const hwpt = s.hwpt(device, viommu, { ...s.data({}), flags, fault_id: id });
  const trigger = (pasid = 0): unknown =>
    s.test(mock.IOMMU_TEST_OP_TRIGGER_IOPF, 0, {
      trigger_iopf: { dev_id: device, pasid, grpid: 3, perm: 2, addr: 0xabc000n },
    });
  trigger();
  assert.equal(file.readable, false, 'nobody is attached that could answer');
  s.replace(stdev, hwpt);
  const { size } = uapi.iommu_hwpt_pgfault;
  trigger();
  trigger();
  assert.equal(file.readable, true);
  refuses('ESPIPE', () => file.read(size - 1));
  refuses('ESPIPE', () => file.read(size, 1));
  refuses('EINVAL', () => file.read(0));
  const fault = uapi.iommu_hwpt_pgfault.decode(file.read(size));
  assert.deepEqual(fault, {
    flags: uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE,
    dev_id: device,
    pasid: 0,
    grpid: 3,
    perm: 2,
    __reserved: 0,
    addr: 0xabc000n,
    length: 0,
    cookie: 1,
  });
  const response = uapi.iommu_hwpt_page_response;
  const answer = (...list: [cookie: number, code: number][]): number => {
    const bytes = new Uint8Array(response.size * list.length);
    list.forEach(([cookie, code], i) => {
      response.encode({ cookie, code }, bytes, i * response.size);
    });
    return file.write(bytes);
  };
  refuses('ESPIPE', () => file.write(new Uint8Array(response.size - 1)));
  refuses('ESPIPE', () => file.write(new Uint8Array(response.size), 1));
  refuses('EINVAL', () => answer([1, 2]));
  refuses('EINVAL', () => answer([9, 0]));
  // Stops at the first bad one, and says how far it came.
  assert.equal(answer([1, uapi.IOMMUFD_PAGE_RESP_SUCCESS], [9, 0]), response.size);
  refuses('EINVAL', () => answer([1, 0]));
  // The lowest cookie is free again. Leaving answers everything on the client's behalf.
  assert.equal(uapi.iommu_hwpt_pgfault.decode(file.read(size)).cookie, 1);
  trigger();
  s.replace(stdev, parent);
  assert.equal(file.readable, false);
  refuses('EINVAL', () => answer([1, 0]));
  refuses('EBUSY', () => {
    s.destroy(id);
  });
  s.destroy(hwpt);
  file.close();
  s.destroy(id);
});
