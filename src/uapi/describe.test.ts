import assert from 'node:assert/strict';
import test from 'node:test';
import { array, struct, u32, u64, type Static, type Struct } from '../base/struct.ts';
import { describe, fieldsText } from './describe.ts';
import * as mock from './iommufd-test.ts';
import * as uapi from './iommufd.ts';
import { vfio_irq_set, vfio_pci_dependent_device } from './vfio.ts';

test('describe() names flags and shows addresses in hexadecimal', () => {
  const map = uapi.iommu_ioas_map.make({
    flags: uapi.IOMMU_IOAS_MAP_FIXED_IOVA | uapi.IOMMU_IOAS_MAP_READABLE,
    ioas_id: 1,
    user_va: 0x7f00_0000_1000n,
    length: 0x1000n,
  });
  assert.deepEqual(describe(uapi.iommu_ioas_map, map), {
    flags: 'FIXED_IOVA|READABLE',
    ioas_id: 1,
    user_va: '0x7f0000001000',
    length: '0x1000',
    iova: '0',
  });
});

test('describe() shows bits without a name, and what should be 0 but is not', () => {
  const map = uapi.iommu_ioas_map.make({ flags: 0xc, __reserved: 7 });
  const described = describe(uapi.iommu_ioas_map, map);
  assert.equal(described['flags'], 'READABLE|8');
  assert.equal(described['__reserved'], 7);
  assert.equal(described['user_va'], 'NULL');
});

test('describe() names values and shows unknown ones as numbers', () => {
  const option = uapi.iommu_option.make({ option_id: 1, op: 9 });
  const described = describe(uapi.iommu_option, option);
  assert.equal(described['option_id'], 'HUGE_PAGES');
  assert.equal(described['op'], '9');
  const hwpt = uapi.iommu_hwpt_alloc.make({ data_type: mock.IOMMU_HWPT_DATA_SELFTEST });
  assert.equal(describe(uapi.iommu_hwpt_alloc, hwpt)['data_type'], '0xdead');
});

test('describe() reads flags of 64 bits', () => {
  const nested = uapi.iommu_hwpt_vtd_s1.make({ flags: 0x8000_0000_0000_0001n });
  assert.equal(describe(uapi.iommu_hwpt_vtd_s1, nested)['flags'], 'SRE|0x8000000000000000');
});

test('describe() shows the member of the mock command that the operation uses', () => {
  const command = mock.iommu_test_cmd.make({ op: mock.IOMMU_TEST_OP_ACCESS_RW, id: 3 });
  command.u.write('access_rw', { iova: 0x2000n, length: 16n, uptr: 0n, flags: 5 });
  assert.equal(
    fieldsText(describe(mock.iommu_test_cmd, command)),
    '{op=ACCESS_RW, id=3, access_rw={iova=0x2000, length=0x10, uptr=NULL, flags=WRITE|SLOW_PATH}}',
  );
});

test('describe() shows the bytes of a mock command with an unknown operation', () => {
  const command = mock.iommu_test_cmd.make({ op: 99 });
  command.u.bytes[0] = 0xab;
  assert.match(fieldsText(describe(mock.iommu_test_cmd, command)), /u=ab(00)+\}$/);
});

test('every operation of the mock driver has a member to be shown', () => {
  const names = Object.keys(mock).filter((name) => name.startsWith('IOMMU_TEST_OP_'));
  assert.equal(mock.TEST_OPS.size, names.length);
  assert.equal(names.length, 23);
});

test('describe() reads the data type of GET_HW_INFO by direction', () => {
  const info = uapi.iommu_hw_info.make();
  info.data_type.write('out_data_type', uapi.IOMMU_HW_INFO_TYPE_AMD);
  assert.equal(describe(uapi.iommu_hw_info, info, 'output')['out_data_type'], 'AMD');
  assert.equal(describe(uapi.iommu_hw_info, info)['in_data_type'], 'AMD');
});

test('describe() goes into arrays and nested structs', () => {
  const range = uapi.iommu_iova_range;
  const list: Struct = struct('list', { count: u32, ranges: array(range, 1), raw: array(u64, 2) });
  const value: Static<Struct> = { count: 1, ranges: [{ start: 0n, last: 0xfffn }], raw: [1n, 2n] };
  assert.equal(
    fieldsText(describe(list, value)),
    '{count=1, ranges=[{start=0, last=0xfff}], raw=[1, 2]}',
  );
});

test('describe() knows the unions and flexible arrays of VFIO', () => {
  const device = vfio_pci_dependent_device.make({ bus: 0x1f });
  device.id.write('group_id', 4);
  assert.deepEqual(describe(vfio_pci_dependent_device, device), {
    devid: 4,
    segment: 0,
    bus: '0x1f',
    devfn: '0',
  });
  const irqs = vfio_irq_set.make({ flags: 1 | 32, count: 1 });
  assert.equal(describe(vfio_irq_set, irqs)['flags'], 'DATA_NONE|ACTION_TRIGGER');
});
