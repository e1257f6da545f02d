/** IOMMU_IOAS_NOIOMMU_GET_PA: refusals in the order of iommufd_ioas_noiommu_get_pa, and what a device without IOMMU is told. */
import assert from 'node:assert/strict';
import { PagingDomain } from '../iommu/paging-domain.ts';
import { ExtentTable } from '../iommu/page-table.ts';
import type { IommuOps } from '../iommu/domain.ts';
import { SparseBacking } from '../testing/fake-client.ts';
import { PAGE, engineTest, refuses, type Lab, type Session } from '../testing/lab.ts';
import type { iommu_ioas_noiommu_get_pa } from '../uapi/iommufd.ts';
import { Ioas } from './ioas.ts';
import { NOIOMMU_OPS_NAME } from './noiommu.ts';

/** As hwpt_noiommu.c makes it: a page table in software, over every address. */
class SoftwareDomain extends PagingDomain {
  override readonly name = 'software page table';
  override readonly table = new ExtentTable([2 ** 21, 4096]);
  override readonly geometry = { first: 0n, last: 2n ** 64n - 1n };
  override readonly pageSizes = (2n ** 21n) | PAGE;

  override setDirtyTracking(): void {
    // it tracks nothing
  }

  override attachDevice(): void {
    // nothing is behind it
  }
}

function getPa(
  s: Session,
  given: Partial<iommu_ioas_noiommu_get_pa>,
): [phys: bigint, length: bigint] {
  const { out_phys: phys, length } = s.ioctl('IOMMU_IOAS_NOIOMMU_GET_PA', {
    length: PAGE,
    ...given,
  });
  return [phys, length];
}

engineTest('IOMMU_IOAS_NOIOMMU_GET_PA: refusals', (s, lab) => {
  const plain = lab.open(lab.client({ capabilities: [] }));
  refuses('EPERM', () => getPa(plain, { flags: 1 }));
  refuses('EOPNOTSUPP', () => getPa(s, { flags: 1, length: 0n }));
  refuses('EOPNOTSUPP', () => getPa(s, { __reserved: 1, length: 0n }));
  refuses('EINVAL', () => getPa(s, { length: 0n, iova: 2n ** 64n - 1n }));
  refuses('EOVERFLOW', () => getPa(s, { iova: 2n ** 64n - 1n, ioas_id: 99 }));
  refuses('ENOENT', () => getPa(s, { ioas_id: 99 }));
  const ioas = s.ioas();
  refuses('ENOENT', () => getPa(s, { ioas_id: ioas }));
  // No domain, then one of a real IOMMU.
  const iova = s.map(ioas, s.client.allocate(1), PAGE, { iova: 0x1000_0000n });
  refuses('EOPNOTSUPP', () => getPa(s, { ioas_id: ioas, iova }));
  s.mockDomain(ioas);
  refuses('EOPNOTSUPP', () => getPa(s, { ioas_id: ioas, iova }));
});

function softly(lab: Lab, s: Session, ioas: number, act: () => void): void {
  const { iopt } = s.context.objects.get(Ioas, ioas);
  const ops = { name: NOIOMMU_OPS_NAME } as IommuOps;
  const domain = new SoftwareDomain(ops, false);
  iopt.addDomain(domain);
  act();
  lab.check();
  iopt.removeDomain(domain);
}

engineTest('IOMMU_IOAS_NOIOMMU_GET_PA tells how far memory is contiguous', (s, lab) => {
  const ioas = s.ioas();
  const huge = 0x5000_0000_0000n;
  s.client.memory.map(huge, { backing: new SparseBacking('huge', 512), page: 0, count: 1024 });
  const small = s.client.allocate(4);
  softly(lab, s, ioas, () => {
    const at = s.map(ioas, huge, 1024n * PAGE, { iova: 2n ** 30n });
    const [phys, length] = getPa(s, { ioas_id: ioas, iova: at, length: 2n ** 30n });
    assert.equal(length, 512n * PAGE, 'to the end of the huge page');
    assert.deepEqual(getPa(s, { ioas_id: ioas, iova: at + 0x10n, length: 8n }), [phys + 0x10n, 8n]);
    const inside = getPa(s, { ioas_id: ioas, iova: at + PAGE + 1n, length: 2n ** 30n });
    assert.deepEqual(inside, [phys + PAGE + 1n, 511n * PAGE - 1n]);
    const pages = s.map(ioas, small, 4n * PAGE);
    assert.equal(getPa(s, { ioas_id: ioas, iova: pages, length: 4n * PAGE })[1], PAGE);
    // Not beyond the area, whatever comes next.
    assert.equal(getPa(s, { ioas_id: ioas, iova: pages + 4n * PAGE - 1n })[1], 1n);
  });
});

engineTest('IOMMU_IOAS_NOIOMMU_GET_PA refuses a dma-buf that was revoked', (s, lab) => {
  const ioas = s.ioas();
  const fd = s.test(22, 0, { dmabuf_get: { length: 4096 } }).result;
  softly(lab, s, ioas, () => {
    const iova = s.mapFile(ioas, { fd }, PAGE);
    assert.equal(getPa(s, { ioas_id: ioas, iova })[1], PAGE);
    s.test(23, 0, { dmabuf_revoke: { dmabuf_fd: fd, revoked: 1 } });
    refuses('EINVAL', () => getPa(s, { ioas_id: ioas, iova }));
    s.unmap(ioas, iova, PAGE);
  });
});
