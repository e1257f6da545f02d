/**
 * Failure injection over whole sequences: each call is made with its first, second, third … failure point failing. After each
 * failure the engine is exactly as before the call. The sequences are those of the kernel's iommufd_fail_nth.c and, beyond
 * them, one for each kind of object.
 */
import assert from 'node:assert/strict';
import { SparseBacking } from '../../src/base/sparse-backing.ts';
import {
  APERTURE,
  PAGE,
  READ_WRITE,
  engineTest,
  refuses,
  type Lab,
  type Session,
} from '../../src/testing/lab.ts';
import { Sweep } from '../../src/testing/sweep.ts';
import * as mock from '../../src/uapi/iommufd-test.ts';
import * as uapi from '../../src/uapi/iommufd.ts';
import * as vfio from '../../src/uapi/vfio.ts';

type Body = (parts: { s: Session; sweep: Sweep; lab: Lab; buffer: bigint }) => void;

function sweepTest(name: string, points: readonly string[], body: Body): void {
  engineTest(`fault injection: ${name}`, (s, lab) => {
    const sweep = new Sweep(lab);
    body({ s, sweep, lab, buffer: s.client.allocate(64) });
    const missed = points.filter((point) => !sweep.failed.includes(point));
    assert.deepEqual(missed, [], 'points that the sequence should have met');
  });
}

function memfd(s: Session, pages: number): number {
  const backing = new SparseBacking('memfd:test');
  return s.client.installMemory({ backing, size: pages * 4096, pinnable: true });
}

// basic_fail_nth.basic: maps, unmaps and copies without a domain
sweepTest(
  'basic',
  ['IOAS object', 'object id', 'object lookup', 'area', 'page set', 'page list element'],
  ({ s, sweep, buffer }) => {
    const ioas = sweep.step('IOAS_ALLOC', () => s.ioas());
    const other = sweep.step('IOAS_ALLOC', () => s.ioas());
    const ranges = new BigUint64Array([PAGE, 16n * PAGE - 1n, 32n * PAGE, 64n * PAGE - 1n]);
    const list = s.put(new Uint8Array(ranges.buffer));
    const allow = { ioas_id: ioas, num_iovas: 2, allowed_iovas: list };
    sweep.step('ALLOW_IOVAS', () => s.ioctl('IOMMU_IOAS_ALLOW_IOVAS', allow));
    sweep.step('IOVA_RANGES', () =>
      s.ioctl('IOMMU_IOAS_IOVA_RANGES', { ioas_id: ioas, num_iovas: 2, allowed_iovas: list }),
    );
    const iova = sweep.step('IOAS_MAP', () => s.map(ioas, buffer, 4n * PAGE));
    const copy = {
      flags: READ_WRITE,
      src_ioas_id: ioas,
      dst_ioas_id: other,
      length: 2n * PAGE,
      src_iova: iova + PAGE,
    };
    const { dst_iova: copied } = sweep.step('IOAS_COPY', () => s.ioctl('IOMMU_IOAS_COPY', copy));
    sweep.step('IOAS_UNMAP', () => s.unmap(ioas, iova, 4n * PAGE));
    sweep.step('VFIO_IOAS SET', () =>
      s.ioctl('IOMMU_VFIO_IOAS', { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: ioas }),
    );
    sweep.step('OPTION', () =>
      s.ioctl('IOMMU_OPTION', { option_id: uapi.IOMMU_OPTION_HUGE_PAGES, object_id: ioas }),
    );
    sweep.step('ADD_RESERVED', () => {
      s.reserve(ioas, 0n, PAGE);
    });
    sweep.step('IOAS_UNMAP', () => s.unmap(other, copied, 2n * PAGE));
    sweep.step('DESTROY', () => {
      s.destroy(ioas);
    });
  },
);

// basic_fail_nth.map_domain, map_file_domain, map_two_domains
for (const domains of [1, 2]) {
  sweepTest(
    `map with ${domains} domain(s), from memory and from a file`,
    [
      'mock device',
      'SELFTEST object',
      'DEVICE object',
      'HWPT_PAGING object',
      'iommufd group',
      'blocking domain',
      'paging domain',
      'attachment',
      'attach handle',
      'reserved regions of a device',
      'reservation',
      'domain slot',
      'page tables',
      'pinning pages',
      'list of pages to pin',
      'charging pinned pages',
    ],
    ({ s, sweep, buffer }) => {
      const ioas = s.ioas();
      const before = s.map(ioas, buffer, 3n * PAGE, { iova: APERTURE });
      const devices = Array.from({ length: domains }, (_, i) =>
        sweep.step(`MOCK_DOMAIN ${i}`, () => s.mockDomain(ioas)),
      );
      const manual = sweep.step('HWPT_ALLOC', () => s.hwpt(devices[0]?.device ?? 0, ioas));
      const iova = sweep.step('IOAS_MAP', () => s.map(ioas, buffer, 4n * PAGE + 0x800n));
      s.checkMap(manual, iova, { address: buffer, length: 4n * PAGE + 0x800n });
      const fd = memfd(s, 16);
      const file = sweep.step('IOAS_MAP_FILE', () =>
        s.mapFile(ioas, { fd, start: PAGE }, 4n * PAGE),
      );
      sweep.step('IOAS_COPY', () =>
        s.ioctl('IOMMU_IOAS_COPY', {
          flags: READ_WRITE,
          src_ioas_id: ioas,
          dst_ioas_id: ioas,
          length: 2n * PAGE,
          src_iova: iova,
        }),
      );
      for (const { stdev } of devices) {
        sweep.step('MOCK_DOMAIN_REPLACE', () => s.replace(stdev, manual));
      }
      const elsewhere = s.ioas();
      s.map(elsewhere, buffer, PAGE, { iova: APERTURE });
      for (const { stdev } of devices) {
        sweep.step('MOCK_DOMAIN_REPLACE', () => s.replace(stdev, elsewhere));
      }
      for (const { stdev } of devices) {
        sweep.step('MOCK_DOMAIN_REPLACE', () => s.replace(stdev, ioas));
      }
      sweep.step('UNMAP', () => s.unmap(ioas, before, 3n * PAGE));
      sweep.step('UNMAP', () => s.unmap(ioas, file, 4n * PAGE));
      for (const { stdev } of devices) {
        sweep.step('DESTROY', () => {
          s.destroy(stdev);
        });
      }
      sweep.step('DESTROY', () => {
        s.destroy(manual);
      });
    },
  );
}

sweepTest(
  'charged to a user with a limit',
  ['charging pinned pages', 'list of IOAS'],
  ({ lab, sweep }) => {
    const s = lab.open(lab.client({ uid: 1000, capabilities: [], memlockLimit: 2 ** 20 }));
    const ioas = s.ioas();
    s.mockDomain(ioas);
    const fd = memfd(s, 16);
    sweep.step('IOAS_MAP_FILE', () => s.mapFile(ioas, { fd }, 8n * PAGE));
    const heir = s.client.fork(9);
    lab.clients.push(heir);
    sweep.step('CHANGE_PROCESS', () => s.in(heir).ioctl('IOMMU_IOAS_CHANGE_PROCESS'));
    assert.equal(heir.memory.pinnedPages, 8);
    assert.equal(s.client.memory.pinnedPages, 0);
  },
);

// basic_fail_nth.access_rw, access_pin, access_pin_domain
for (const domain of [false, true]) {
  sweepTest(
    `accesses, ${domain ? 'with' : 'without'} a domain`,
    [
      'test access',
      'ACCESS object',
      'access slot',
      'file of a test access',
      'copy buffer',
      'copying within a page',
      'list of pages',
      'page access',
      'access item',
    ],
    ({ s, sweep, buffer }) => {
      const ioas = s.ioas();
      if (domain) s.mockDomain(ioas);
      const iova = s.map(ioas, buffer, 8n * PAGE);
      const copier = sweep.step('CREATE_ACCESS', () => s.access(ioas, false));
      const scratch = s.client.allocate(8);
      for (const [start, length] of [
        [0n, PAGE],
        [4n, 16n],
        [100n, 3n * PAGE],
      ] as const) {
        for (const flags of [0, mock.MOCK_ACCESS_RW_WRITE]) {
          for (const slow of [0, mock.MOCK_ACCESS_RW_SLOW_PATH]) {
            sweep.step('ACCESS_RW', () => {
              copier.rw({ iova: iova + start, length, uptr: scratch }, flags | slow);
            });
          }
        }
      }
      const pinner = sweep.step('CREATE_ACCESS', () => s.access(ioas, true));
      const first = sweep.step('ACCESS_PAGES', () => pinner.pin(iova, 2n * PAGE, { uptr: buffer }));
      const second = sweep.step('ACCESS_PAGES', () => pinner.pin(iova + PAGE, 4n * PAGE));
      const other = s.ioas();
      sweep.step('ACCESS_REPLACE_IOAS', () => {
        copier.replace(other);
      });
      sweep.step('DESTROY_ACCESS_PAGES', () => {
        pinner.unpin(first);
      });
      if (!domain) {
        // Pins of pages that nobody else pinned.
        sweep.step('ACCESS_PAGES', () => pinner.pin(iova + 6n * PAGE, 2n * PAGE));
      }
      sweep.step('DESTROY_ACCESS_PAGES', () => {
        pinner.unpin(second);
      });
    },
  );
}

sweepTest(
  'dirty tracking',
  ['bitmap pages', 'dirty bits', 'paging domain'],
  ({ s, sweep, buffer }) => {
    const ioas = s.ioas();
    const { device } = s.mockDomain(ioas);
    const iova = s.map(ioas, buffer, 8n * PAGE);
    const hwpt = sweep.step('HWPT_ALLOC', () =>
      s.hwpt(device, ioas, { flags: uapi.IOMMU_HWPT_ALLOC_DIRTY_TRACKING }),
    );
    sweep.step('SET_DIRTY_TRACKING', () =>
      s.ioctl('IOMMU_HWPT_SET_DIRTY_TRACKING', {
        hwpt_id: hwpt,
        flags: uapi.IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
      }),
    );
    const bitmap = s.put(new Uint8Array([0b101]));
    const range = { iova, length: 8n * PAGE, page_size: PAGE };
    sweep.step('DIRTY', () =>
      s.test(mock.IOMMU_TEST_OP_DIRTY, hwpt, { dirty: { ...range, uptr: bitmap } }),
    );
    const found = s.client.allocate(1);
    sweep.step('GET_DIRTY_BITMAP', () =>
      s.ioctl('IOMMU_HWPT_GET_DIRTY_BITMAP', { hwpt_id: hwpt, ...range, data: found }),
    );
    assert.deepEqual([...s.client.read(found, 1)], [0b101]);
  },
);

sweepTest(
  'nested page tables, vIOMMU and what hangs on it',
  [
    'HWPT_NESTED object',
    'nested domain',
    'VIOMMU object',
    'two pages of a window',
    'window',
    'VDEVICE object',
    'virtual device slot',
    'VEVENTQ object',
    'event queue',
    'HW_QUEUE object',
    'page array',
    'hardware info',
  ],
  ({ s, sweep }) => {
    const huge = new SparseBacking('huge page', 512);
    const address = 0x6000_0000_0000n;
    s.client.memory.map(address, { backing: huge, page: 0, count: 512 });
    const ioas = s.ioas();
    const { device, stdev } = s.mockDomain(ioas);
    const nestParent = { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT };
    const parent = sweep.step('HWPT_ALLOC', () => s.hwpt(device, ioas, nestParent));
    const nested = sweep.step('HWPT_ALLOC', () => s.nested(device, parent));
    sweep.step('MOCK_DOMAIN_REPLACE', () => s.replace(stdev, nested));
    const info = { dev_id: device, data_len: 8, data_uptr: s.client.allocate(1) };
    sweep.step('GET_HW_INFO', () => s.ioctl('IOMMU_GET_HW_INFO', info));
    const echo = new Uint8Array(mock.iommu_viommu_selftest.size);
    const data = s.put(echo);
    const viommu = sweep.step('VIOMMU_ALLOC', () =>
      s.ioctl('IOMMU_VIOMMU_ALLOC', {
        type: mock.IOMMU_VIOMMU_TYPE_SELFTEST,
        dev_id: device,
        hwpt_id: parent,
        data_len: echo.length,
        data_uptr: data,
      }),
    ).out_viommu_id;
    sweep.step('VDEVICE_ALLOC', () => s.vdevice(viommu, device, 0x99n));
    const behind = sweep.step('HWPT_ALLOC', () => s.nested(device, viommu));
    sweep.step('MOCK_DOMAIN_REPLACE', () => s.replace(stdev, behind));
    const queue = sweep.step('VEVENTQ_ALLOC', () => s.veventq(viommu, 2));
    const iova = s.map(ioas, address, 512n * PAGE, { iova: APERTURE });
    const first = sweep.step('HW_QUEUE_ALLOC', () =>
      s.hwQueue(viommu, 0, { iova, length: 4n * PAGE }),
    );
    const second = sweep.step('HW_QUEUE_ALLOC', () =>
      s.hwQueue(viommu, 1, { iova: iova + PAGE, length: 4n * PAGE }),
    );
    const entry = new Uint8Array(mock.iommu_viommu_invalidate_selftest.size);
    mock.iommu_viommu_invalidate_selftest.encode({ flags: 0, vdev_id: 0x99, cache_id: 1 }, entry);
    const invalidate = {
      hwpt_id: viommu,
      data_uptr: s.put(entry),
      data_type: mock.IOMMU_VIOMMU_INVALIDATE_DATA_SELFTEST,
      entry_len: entry.length,
      entry_num: 1,
    };
    sweep.step('HWPT_INVALIDATE', () => s.ioctl('IOMMU_HWPT_INVALIDATE', invalidate));
    sweep.step('DESTROY', () => {
      s.destroy(second);
    });
    sweep.step('DESTROY', () => {
      s.destroy(first);
    });
    assert.equal(queue.file.readable, false);
  },
);

engineTest('fault injection: an event that finds no memory is counted as lost', (s, lab) => {
  const ioas = s.ioas();
  const { device, stdev } = s.mockDomain(ioas);
  const parent = s.hwpt(device, ioas, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const viommu = s.viommu(device, parent);
  s.vdevice(viommu, device, 0x99n);
  s.replace(stdev, s.nested(device, viommu));
  const { file } = s.veventq(viommu, 2);
  const trigger = (): unknown =>
    s.test(mock.IOMMU_TEST_OP_TRIGGER_VEVENT, 0, { trigger_vevent: { dev_id: device } });
  lab.faults.arm(2);
  refuses('ENOMEM', trigger);
  assert.equal(lab.faults.fired, 'event');
  const header = uapi.iommufd_vevent_header;
  // The marker is read from a copy, which may not be had either.
  lab.faults.arm(1);
  refuses('ENOMEM', () => file.read(4096));
  const lost = file.read(4096);
  assert.equal(lost.length, header.size);
  assert.deepEqual(header.decode(lost), {
    flags: uapi.IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
    sequence: 0,
  });
  trigger();
  assert.equal(header.decode(file.read(4096)).sequence, 1);
});

sweepTest(
  'faults of devices and their answers',
  ['FAULT object', 'fault queue', 'fault cookie'],
  ({ s, sweep, lab }) => {
    const ioas = s.ioas();
    const { device, stdev } = s.mockDomain(ioas);
    const queue = sweep.step('FAULT_QUEUE_ALLOC', () => s.faultQueue());
    const parent = s.hwpt(device, ioas, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
    const hwpt = sweep.step('HWPT_ALLOC', () =>
      s.hwpt(device, parent, {
        ...s.data({}),
        flags: uapi.IOMMU_HWPT_FAULT_ID_VALID,
        fault_id: queue.id,
      }),
    );
    sweep.step('MOCK_DOMAIN_REPLACE', () => s.replace(stdev, hwpt));
    const given = {
      trigger_iopf: { dev_id: device, pasid: 0, grpid: 2, perm: 1, addr: 0xdead000n },
    };
    const trigger = (): unknown => s.test(mock.IOMMU_TEST_OP_TRIGGER_IOPF, 0, given);
    // iommu_report_device_fault: without memory for the group the device is told at once, and the caller nothing.
    lab.faults.arm(2);
    trigger();
    assert.equal(lab.faults.fired, 'fault group');
    assert.equal(queue.file.readable, false);
    trigger();
    trigger();
    const { size } = uapi.iommu_hwpt_pgfault;
    // iommufd_fault_fops_read: what was read before the failure is handed over.
    lab.faults.arm(2);
    const first = queue.file.read(2 * size);
    assert.equal(first.length, size);
    const rest = sweep.step('read', () => queue.file.read(2 * size));
    assert.equal(rest.length, size);
    const { cookie } = uapi.iommu_hwpt_pgfault.decode(rest);
    assert.notEqual(cookie, uapi.iommu_hwpt_pgfault.decode(first).cookie);
    const response = uapi.iommu_hwpt_page_response;
    const bytes = new Uint8Array(response.size);
    response.encode({ cookie, code: uapi.IOMMUFD_PAGE_RESP_SUCCESS }, bytes);
    assert.equal(
      sweep.step('write', () => queue.file.write(bytes)),
      response.size,
    );
    refuses('EINVAL', () => queue.file.write(bytes));
  },
);

sweepTest('PASIDs', ['attachment', 'attach handle'], ({ s, sweep }) => {
  const ioas = s.ioas();
  const { device, stdev } = s.mockDomain(ioas, mock.MOCK_FLAGS_DEVICE_PASID);
  const flags = { flags: uapi.IOMMU_HWPT_ALLOC_PASID };
  const [one, two] = [s.hwpt(device, ioas, flags), s.hwpt(device, ioas, flags)];
  s.replace(stdev, one);
  const attach = (pasid: number, pt: number): unknown =>
    s.test(mock.IOMMU_TEST_OP_PASID_ATTACH, stdev, { pasid_attach: { pasid, pt_id: pt } });
  const change = (pasid: number, pt: number): unknown =>
    s.test(mock.IOMMU_TEST_OP_PASID_REPLACE, stdev, { pasid_replace: { pasid, pt_id: pt } });
  sweep.step('PASID_ATTACH', () => attach(100, one));
  sweep.step('PASID_REPLACE', () => change(100, two));
  sweep.step('PASID_ATTACH', () => attach(200, two));
  sweep.step('PASID_REPLACE', () => change(100, one));
  sweep.step('PASID_DETACH', () =>
    s.test(mock.IOMMU_TEST_OP_PASID_DETACH, stdev, { pasid_detach: { pasid: 100 } }),
  );
});

sweepTest(
  'dma-buf',
  ['dma-buf', 'note of who shows a dma-buf', 'page tables'],
  ({ s, sweep, buffer }) => {
    const ioas = s.ioas();
    s.mockDomain(ioas);
    s.map(ioas, buffer, PAGE);
    const given = { dmabuf_get: { length: 4 * 4096, open_flags: 0 } };
    const fd = sweep.step('DMABUF_GET', () =>
      s.test(mock.IOMMU_TEST_OP_DMABUF_GET, 0, given),
    ).result;
    sweep.step('IOAS_MAP_FILE', () => s.mapFile(ioas, { fd }, 4n * PAGE));
    sweep.step('MOCK_DOMAIN', () => s.mockDomain(ioas));
    const other = s.ioas();
    const device = sweep.step('MOCK_DOMAIN', () => s.mockDomain(other));
    const revoke = { dmabuf_revoke: { dmabuf_fd: fd, revoked: 1 } };
    sweep.step('DMABUF_REVOKE', () => s.test(mock.IOMMU_TEST_OP_DMABUF_REVOKE, 0, revoke));
    sweep.step('MOCK_DOMAIN_REPLACE', () => s.replace(device.stdev, ioas));
  },
);

sweepTest(
  "VFIO's container calls",
  ['area', 'left area', 'right area', 'page set'],
  ({ s, sweep, buffer }) => {
    const ioas = s.ioas();
    s.ioctl('IOMMU_VFIO_IOAS', { op: uapi.IOMMU_VFIO_IOAS_SET, ioas_id: ioas });
    s.client.ioctl(s.fd, vfio.VFIO_SET_IOMMU, BigInt(vfio.VFIO_TYPE1_IOMMU));
    s.mockDomain(ioas);
    const map = { number: vfio.VFIO_IOMMU_MAP_DMA, struct: vfio.vfio_iommu_type1_dma_map };
    const unmap = { number: vfio.VFIO_IOMMU_UNMAP_DMA, struct: vfio.vfio_iommu_type1_dma_unmap };
    sweep.step('MAP_DMA', () =>
      s.client.call(s.fd, map, {
        flags: vfio.VFIO_DMA_MAP_FLAG_READ | vfio.VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: buffer,
        iova: APERTURE,
        size: 8n * PAGE,
      }),
    );
    // One cut only: where a second one fails, the first stays, in Linux too.
    const given = { iova: APERTURE + 4n * PAGE, size: 4n * PAGE };
    const { size } = sweep.step('UNMAP_DMA', () => s.client.call(s.fd, unmap, given));
    assert.equal(size, 4n * PAGE);
  },
);
