/** Who pays for pinned pages. After iopt_pages_update_pinned of drivers/iommu/iommufd/pages.c. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { SparseBacking } from '../testing/fake-client.ts';
import { InProcessClient } from '../client/in-process.ts';
import { PAGE, engineTest, refuses } from '../testing/lab.ts';
import * as uapi from '../uapi/iommufd.ts';
import { Accounting, payerOf } from './accounting.ts';

const PLAIN = { uid: 1000, capabilities: [], memlockLimit: 4 * 4096 + 4095 } as const;

test('payerOf: CAP_IPC_LOCK pays nothing, everybody else as the file says', () => {
  assert.equal(payerOf(new InProcessClient(), 'mm').mode, 'none');
  assert.equal(payerOf(new InProcessClient(PLAIN), 'mm').mode, 'mm');
  assert.equal(payerOf(new InProcessClient(PLAIN), 'user').mode, 'user');
});

test('the limit is in whole pages, for all processes of a user together', () => {
  const accounting = new Accounting();
  const [a, b] = [new InProcessClient(PLAIN), new InProcessClient({ ...PLAIN, pid: 2 })];
  accounting.charge(payerOf(a, 'user'), 3);
  assert.throws(
    () => {
      accounting.charge(payerOf(b, 'user'), 2);
    },
    { code: 'ENOMEM', message: /user 1000 would have 5 pages locked, RLIMIT_MEMLOCK allows 4/ },
  );
  accounting.charge(payerOf(b, 'user'), 1);
  assert.equal(accounting.lockedBy(1000), 4);
  assert.deepEqual([a.memory.pinnedPages, b.memory.pinnedPages], [3, 1]);
  accounting.uncharge(payerOf(a, 'user'), 3);
  accounting.uncharge(payerOf(b, 'user'), 1);
  assert.equal(accounting.lockedBy(1000), 0);
  assert.throws(() => {
    accounting.uncharge(payerOf(a, 'user'), 1);
  }, /more pages than it paid/);
});

test('by process: each has a limit of its own, also one that is gone', () => {
  const accounting = new Accounting();
  const [a, b] = [new InProcessClient(PLAIN), new InProcessClient({ ...PLAIN, pid: 2 })];
  accounting.charge(payerOf(a, 'mm'), 4);
  accounting.charge(payerOf(b, 'mm'), 4);
  assert.throws(
    () => {
      accounting.charge(payerOf(b, 'mm'), 1);
    },
    { code: 'ENOMEM' },
  );
  assert.deepEqual([a.memory.lockedPages, a.memory.pinnedPages], [4, 4]);
  accounting.uncharge(payerOf(a, 'mm'), 4);
  assert.deepEqual([a.memory.lockedPages, a.memory.pinnedPages], [0, 0]);
  // While the pages of a file are pinned nobody asks for the process (update_mm_locked_vm).
  a.memory.exited = true;
  accounting.charge(payerOf(a, 'mm'), 4);
  assert.throws(
    () => {
      accounting.charge(payerOf(a, 'mm'), 1);
    },
    { code: 'ENOMEM' },
  );
});

engineTest(
  'the limit counts that holds when pages are charged, not when they were mapped',
  (_, lab) => {
    const s = lab.open(lab.client(PLAIN));
    const [lowered, raised] = [s.ioas(), s.ioas()];
    const buffer = s.client.allocate(4);
    s.map(lowered, buffer, 4n * PAGE, { iova: 2n ** 24n });
    s.client.limits.memlock = 0;
    refuses('ENOMEM', () => s.mockDomain(lowered));
    s.map(raised, buffer, 4n * PAGE, { iova: 2n ** 24n });
    s.client.limits.memlock = 4 * 4096;
    s.mockDomain(raised);
  },
);

engineTest('a page is charged once for a page set, until its last user is gone', (_root, lab) => {
  const s = lab.open(lab.client(PLAIN));
  const { accounting } = lab.iommufd.environment;
  const locked = (): number => accounting.lockedBy(1000);
  const [ioas, other] = [s.ioas(), s.ioas()];
  const buffer = s.client.allocate(8);
  const iova = s.map(ioas, buffer, 4n * PAGE);
  assert.equal(locked(), 0, 'nothing is pinned without a domain');
  s.unmap(ioas, iova, 4n * PAGE);
  const { stdev } = s.mockDomain(ioas);
  s.mockDomain(other);
  const at = s.map(ioas, buffer, 4n * PAGE);
  assert.equal(locked(), 4);
  refuses('ENOMEM', () => s.map(ioas, buffer + 4n * PAGE, PAGE));
  assert.equal(locked(), 4);
  // A copy shares the set and costs nothing; it keeps the charge when the source goes (S23.21).
  const flags = uapi.IOMMU_IOAS_MAP_READABLE;
  const copy = { flags, src_ioas_id: ioas, dst_ioas_id: other, length: 2n * PAGE, src_iova: at };
  const { dst_iova: copied } = s.ioctl('IOMMU_IOAS_COPY', copy);
  assert.equal(locked(), 4);
  s.unmap(ioas, at, 4n * PAGE);
  assert.equal(locked(), 2);
  s.unmap(other, copied, 2n * PAGE);
  assert.equal(locked(), 0);
  // Another map of the same memory is another set.
  s.map(ioas, buffer, 2n * PAGE);
  s.map(ioas, buffer, 2n * PAGE);
  assert.equal(locked(), 4);
  s.destroy(stdev);
  assert.equal(locked(), 0, 'the last domain unpins everything');
});

engineTest('files are charged like memory, a dma-buf not at all', (_root, lab) => {
  const s = lab.open(lab.client(PLAIN));
  const { accounting } = lab.iommufd.environment;
  const ioas = s.ioas();
  s.mockDomain(ioas);
  const fd = s.test(22, 0, { dmabuf_get: { length: 8 * 4096 } }).result;
  s.mapFile(ioas, { fd }, 8n * PAGE);
  assert.equal(accounting.lockedBy(1000), 0);
  const memfd = { backing: new SparseBacking('memfd'), size: 16 * 4096, pinnable: true };
  refuses('ENOMEM', () => s.mapFile(ioas, { fd: s.client.installMemory(memfd) }, 5n * PAGE));
  s.mapFile(ioas, { fd: s.client.installMemory(memfd) }, 4n * PAGE);
  assert.equal(accounting.lockedBy(1000), 4);
});

engineTest('what a page table cannot show is found before anybody is charged', (_, lab) => {
  const s = lab.open(lab.client({ ...PLAIN, memlockLimit: 0 }));
  const [source, target] = [s.ioas(), s.ioas()];
  s.mockDomain(target);
  const buffer = s.client.allocate(3);
  s.map(source, buffer, 0x400n, { iova: 0x10000n });
  s.map(source, buffer + PAGE, 0x400n, { iova: 0x10400n });
  s.map(source, buffer + 2n * PAGE, PAGE, { iova: 0x20000n });
  const copy = (from: bigint, length: bigint): unknown =>
    s.ioctl('IOMMU_IOAS_COPY', {
      flags: uapi.IOMMU_IOAS_MAP_READABLE,
      src_ioas_id: source,
      src_iova: from,
      dst_ioas_id: target,
      length,
    });
  refuses('ENXIO', () => copy(0x10000n, 0x800n));
  refuses('ENOMEM', () => copy(0x20000n, PAGE));
});
