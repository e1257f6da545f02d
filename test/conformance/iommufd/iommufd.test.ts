/**
 * Fixture iommufd of tools/testing/selftests/iommu/iommufd.c, in process: calls that need no object, and the size rules.
 * Expected numbers: the table of iommufd_ioctl_ops (main.c) and vfio_compat.c.
 */
import assert from 'node:assert/strict';
import { PAGE, engineTest, refuses, type Session } from '../../../src/testing/lab.ts';
import { IOMMUFD_IOCTLS } from '../../../src/uapi/ioctls.ts';
import * as uapi from '../../../src/uapi/iommufd.ts';
import * as vfio from '../../../src/uapi/vfio.ts';

// min_size of each row of iommufd_ioctl_ops, in bytes.
const MIN_SIZES = {
  IOMMU_DESTROY: 8,
  IOMMU_IOAS_ALLOC: 12,
  IOMMU_IOAS_ALLOW_IOVAS: 24,
  IOMMU_IOAS_COPY: 40,
  IOMMU_IOAS_IOVA_RANGES: 32,
  IOMMU_IOAS_MAP: 40,
  IOMMU_IOAS_UNMAP: 24,
  IOMMU_OPTION: 24,
  IOMMU_VFIO_IOAS: 12,
  IOMMU_HWPT_ALLOC: 24,
  IOMMU_GET_HW_INFO: 32,
  IOMMU_HWPT_SET_DIRTY_TRACKING: 16,
  IOMMU_HWPT_GET_DIRTY_BITMAP: 48,
  IOMMU_HWPT_INVALIDATE: 32,
  IOMMU_FAULT_QUEUE_ALLOC: 16,
  IOMMU_IOAS_MAP_FILE: 40,
  IOMMU_VIOMMU_ALLOC: 24,
  IOMMU_VDEVICE_ALLOC: 24,
  IOMMU_IOAS_CHANGE_PROCESS: 8,
  IOMMU_VEVENTQ_ALLOC: 28,
  IOMMU_HW_QUEUE_ALLOC: 40,
  IOMMU_IOAS_NOIOMMU_GET_PA: 40,
  IOMMU_TEST_CMD: 68,
} as const;

/** A struct of `size` bytes with `tail` behind what is known of it. */
function raw(s: Session, number: number, size: number, tail: { at: number; byte: number }): number {
  const bytes = new Uint8Array(512);
  new DataView(bytes.buffer).setUint32(0, size, true);
  bytes[tail.at] = tail.byte;
  return s.client.ioctl(s.fd, number, s.put(bytes));
}

engineTest('iommufd.simple_close', (s) => {
  s.close();
});

engineTest('iommufd.cmd_fail', (s) => {
  refuses('ENOENT', () => {
    s.destroy(0);
  });
  refuses('EFAULT', () => s.client.ioctl(s.fd, uapi.IOMMU_DESTROY, 0n));
  refuses('ENOTTY', () => s.client.ioctl(s.fd, 0x3b7f, 0n));
  // A hole in the table reads the size first (iommufd_fops_ioctl).
  refuses('EFAULT', () => s.client.ioctl(s.fd, 0x3b96, 0n));
  const address = s.client.allocate(1);
  refuses('ENOTTY', () => s.client.ioctl(s.fd, 0x3b96, address));
  // The right number with a direction and size encoded, as _IOWR would.
  refuses('ENOTTY', () => s.client.ioctl(s.fd, 0xc008_3b80, address));
  // Above the test command: the VFIO compatibility calls have none there.
  refuses('ENOTTY', () => s.client.ioctl(s.fd, 0x3ba1, address));
});

for (const [name, minSize] of Object.entries(MIN_SIZES)) {
  engineTest(`iommufd.cmd_length of ${name}`, (s) => {
    const { number, struct } = IOMMUFD_IOCTLS[name as keyof typeof MIN_SIZES];
    refuses('EINVAL', () => raw(s, number, minSize - 1, { at: 0, byte: minSize - 1 }));
    refuses('E2BIG', () => raw(s, number, struct.size + 4, { at: struct.size + 3, byte: 1 }));
    for (const size of [minSize, struct.size + 4]) {
      try {
        raw(s, number, size, { at: 4, byte: 0 });
      } catch (error) {
        assert.ok(error instanceof Error && 'code' in error);
        assert.notEqual(error.code, 'E2BIG', 'a tail of zeroes is fine');
      }
    }
  });
}

engineTest(
  'iommufd.cmd_length: what is beyond the size of the caller is neither read nor written',
  (s) => {
    // IOAS_ALLOC ends right before memory that is not there.
    const address = s.client.allocate(1) + PAGE - 12n;
    s.client.write(address, new Uint8Array([12]));
    s.client.ioctl(s.fd, uapi.IOMMU_IOAS_ALLOC, address);
    assert.equal(new DataView(s.client.read(address, 12).buffer).getUint32(8, true), 1);
    // A size that reaches into it: the rest must be readable to be zero (copy_struct_from_user).
    s.client.write(address, new Uint8Array([16]));
    refuses('EFAULT', () => s.client.ioctl(s.fd, uapi.IOMMU_IOAS_ALLOC, address));
    // HWPT_ALLOC of 24 bytes counts fault_id, data and their kin as 0.
    const short = s.client.allocate(1) + PAGE - 24n;
    s.client.write(short, new Uint8Array([24]));
    refuses('ENOENT', () => s.client.ioctl(s.fd, uapi.IOMMU_HWPT_ALLOC, short));
  },
);

engineTest(
  'iommufd.cmd_ex_fail: an answer that cannot be written takes the new object back',
  (s) => {
    const address = s.client.allocate(1, { readOnly: true });
    s.client.memory.unmap(address, 1);
    const sizes = s.client.allocate(1);
    s.client.write(sizes, new Uint8Array([12]));
    const [run] = s.client.memory.resolve(Number(sizes / PAGE), 1, false);
    assert.ok(run);
    s.client.memory.map(address, run, { readOnly: true });
    refuses('EFAULT', () => s.client.ioctl(s.fd, uapi.IOMMU_IOAS_ALLOC, address));
    refuses('ENOENT', () => {
      s.destroy(1);
    });
    assert.equal(s.ioas(), 1);
  },
);

engineTest('iommufd.global_options', (s, lab) => {
  const get = { option_id: uapi.IOMMU_OPTION_RLIMIT_MODE, op: uapi.IOMMU_OPTION_OP_GET };
  const set = { option_id: uapi.IOMMU_OPTION_RLIMIT_MODE, op: uapi.IOMMU_OPTION_OP_SET };
  const option = (given: Partial<uapi.iommu_option>): bigint =>
    s.ioctl('IOMMU_OPTION', given).val64;
  refuses('EOPNOTSUPP', () => option({ ...get, __reserved: 1 }));
  refuses('EOPNOTSUPP', () => option({ ...get, option_id: 2 }));
  refuses('EOPNOTSUPP', () => option({ ...get, object_id: 1 }));
  refuses('EOPNOTSUPP', () => option({ ...get, op: 2 }));
  refuses('EINVAL', () => option({ ...set, val64: 2n }));
  assert.equal(option({ ...get, val64: 3n }), 0n);
  option({ ...set, val64: 1n });
  assert.equal(option({ ...get, val64: 3n }), 1n);
  option({ ...set, val64: 0n });
  assert.equal(option({ ...get, val64: 3n }), 0n);
  const ioas = s.ioas();
  refuses('EBUSY', () => option({ ...set, val64: 1n }));
  s.destroy(ioas);
  option({ ...set, val64: 0n });
  // iommufd_option_rlimit_mode asks for CAP_SYS_RESOURCE before it looks at the objects.
  s.ioas();
  const plain = lab.client({ capabilities: [] });
  const inherited = plain.install(lab.iommufd.open(plain));
  refuses('EPERM', () => plain.call(inherited, IOMMUFD_IOCTLS.IOMMU_OPTION, set));
});

engineTest('iommufd.simple_ioctls', (s) => {
  assert.equal(s.client.ioctl(s.fd, vfio.VFIO_GET_API_VERSION, 0n), 0);
  const has = (extension: number): number =>
    s.client.ioctl(s.fd, vfio.VFIO_CHECK_EXTENSION, BigInt(extension));
  assert.equal(has(vfio.VFIO_TYPE1_IOMMU), 1);
  assert.equal(has(vfio.VFIO_TYPE1v2_IOMMU), 1);
  assert.equal(has(vfio.VFIO_UNMAP_ALL), 1);
  for (const missing of [2, 5, 6, 7, 8, 10, 99]) assert.equal(has(missing), 0);
  // 2^32 + 1 is not 1
  assert.equal(s.client.ioctl(s.fd, vfio.VFIO_CHECK_EXTENSION, 2n ** 32n + 1n), 0);
  refuses('ENODEV', () => has(vfio.VFIO_DMA_CC_IOMMU));
  const op = uapi.IOMMU_VFIO_IOAS_SET;
  s.ioctl('IOMMU_VFIO_IOAS', { op, ioas_id: s.ioas() });
  assert.equal(has(vfio.VFIO_DMA_CC_IOMMU), 1);
});

const UNMAP = { number: vfio.VFIO_IOMMU_UNMAP_DMA, struct: vfio.vfio_iommu_type1_dma_unmap };
const MAP = { number: vfio.VFIO_IOMMU_MAP_DMA, struct: vfio.vfio_iommu_type1_dma_map };
const INFO = { number: vfio.VFIO_IOMMU_GET_INFO, struct: vfio.vfio_iommu_type1_info };

engineTest('iommufd.unmap_cmd, map_cmd, info_cmd, set_iommu_cmd', (s) => {
  refuses('EINVAL', () => s.client.call(s.fd, UNMAP, { argsz: 1 }));
  refuses('EINVAL', () => s.client.call(s.fd, UNMAP, { flags: 2 ** 31 }));
  refuses('ENODEV', () => s.client.call(s.fd, UNMAP, { size: PAGE }));
  refuses('EFAULT', () => s.client.ioctl(s.fd, UNMAP.number, 0n));
  refuses('EINVAL', () => s.client.call(s.fd, MAP, { argsz: 1 }));
  refuses('EINVAL', () => s.client.call(s.fd, MAP, { flags: 2 ** 31 }));
  refuses('ENODEV', () => s.client.call(s.fd, MAP, { size: PAGE }));
  refuses('EINVAL', () => s.client.call(s.fd, INFO, { argsz: 1 }));
  refuses('ENODEV', () => s.client.call(s.fd, INFO, {}));
  for (const type of [vfio.VFIO_TYPE1_IOMMU, vfio.VFIO_TYPE1v2_IOMMU]) {
    refuses('ENODEV', () => s.client.ioctl(s.fd, vfio.VFIO_SET_IOMMU, BigInt(type)));
  }
  refuses('EINVAL', () => s.client.ioctl(s.fd, vfio.VFIO_SET_IOMMU, 8n));
});

engineTest('iommufd.vfio_ioas', (s) => {
  const { IOMMU_VFIO_IOAS_GET: get, IOMMU_VFIO_IOAS_SET: set } = uapi;
  refuses('EOPNOTSUPP', () => s.ioctl('IOMMU_VFIO_IOAS', { op: get, __reserved: 1 }));
  refuses('EOPNOTSUPP', () => s.ioctl('IOMMU_VFIO_IOAS', { op: 3 }));
  refuses('ENODEV', () => s.ioctl('IOMMU_VFIO_IOAS', { op: get }));
  refuses('ENOENT', () => s.ioctl('IOMMU_VFIO_IOAS', { op: set }));
  const ioas = s.ioas();
  s.ioctl('IOMMU_VFIO_IOAS', { op: set, ioas_id: ioas });
  assert.equal(s.ioctl('IOMMU_VFIO_IOAS', { op: get }).ioas_id, ioas);
  s.ioctl('IOMMU_VFIO_IOAS', { op: uapi.IOMMU_VFIO_IOAS_CLEAR });
  refuses('ENODEV', () => s.ioctl('IOMMU_VFIO_IOAS', { op: get }));
  // Destroying it takes the pointer away (iommufd_object_remove).
  s.ioctl('IOMMU_VFIO_IOAS', { op: set, ioas_id: ioas });
  s.destroy(ioas);
  refuses('ENODEV', () => s.ioctl('IOMMU_VFIO_IOAS', { op: get }));
});

engineTest(
  'check_zeroed_user: a tail is read in order, unreadable memory counts from where it is',
  (s) => {
    const first = s.client.allocate(64);
    const hole = first + 64n * PAGE;
    const { number, struct } = IOMMUFD_IOCTLS.IOMMU_IOAS_ALLOC;
    const call = (address: bigint, bytes: number, byteAt?: bigint): number => {
      const size = new Uint8Array(struct.size);
      new DataView(size.buffer).setUint32(0, bytes, true);
      s.client.memory.copyOut(address, size);
      if (byteAt !== undefined) s.client.memory.copyOut(byteAt, Uint8Array.of(1));
      return s.client.ioctl(s.fd, number, address);
    };
    const start = hole - PAGE + 100n;
    refuses('EFAULT', () => call(first, 1 << 20));
    refuses('EFAULT', () => call(start, 8192));
    assert.equal(call(hole - 64n, 64), 0);
    refuses('E2BIG', () => call(start, 8192, hole - 1n));
  },
);
