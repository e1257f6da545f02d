/** Each rule of the invariants finds the state that breaks it. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { spanOf } from '../base/position.ts';
import { APERTURE, Lab, PAGE, type Session } from '../testing/lab.ts';
import type { Area } from './area.ts';
import { IommufdDevice } from './device.ts';
import { HwptPaging } from './hw-pagetable.ts';
import { assertInvariants, violations } from './invariants.ts';
import { Ioas } from './ioas.ts';
import type { IoPagetable } from './io-pagetable.ts';

type Parts = { s: Session; iopt: IoPagetable; area: Area; device: IommufdDevice; hwpt: HwptPaging };

/** A state with an area, a device and an access, and then something in it that must not be. */
function planted(name: string, wanted: RegExp, plant: (parts: Parts) => void): void {
  test(`invariants: ${name}`, () => {
    const lab = new Lab();
    const s = lab.open();
    const ioas = s.ioas();
    const ids = s.mockDomain(ioas);
    s.access(ioas, true);
    s.map(ioas, s.client.allocate(4), 2n * PAGE, { iova: APERTURE });
    const { objects } = s.context;
    const { iopt } = objects.get(Ioas, ioas);
    const [area] = iopt.areas;
    assert.ok(area);
    assertInvariants(lab.iommufd);
    plant({
      s,
      iopt,
      area,
      device: objects.get(IommufdDevice, ids.device),
      hwpt: objects.get(HwptPaging, ids.hwpt),
    });
    assert.match(violations(lab.iommufd).join('\n'), wanted);
    assert.throws(() => {
      assertInvariants(lab.iommufd);
    }, /invariants broken/);
  });
}

planted('a count that no edge explains', /HWPT_PAGING \d .* has 3 users, 2 edges/, ({ hwpt }) => {
  hwpt.users++;
});
planted('a device whose group somebody else owns', /not owned by/, ({ device }) => {
  device.iommu.requireGroup().owner = { name: 'somebody' };
});
planted('an area that is not filled though there is a domain', /not filled with 1/, ({ area }) => {
  area.filled = false;
});
planted('an area in a reservation', /lies in what a test reserves/, ({ iopt }) => {
  iopt.reserved.add({ span: spanOf(APERTURE, APERTURE), owner: undefined, why: 'a test' });
});
planted('an allowed range in a reservation', /allowed .* lies in/, ({ iopt }) => {
  iopt.setAllowed([spanOf(2n ** 30n, 2n ** 30n + PAGE)]);
  iopt.reserved.add({ span: spanOf(2n ** 30n, 2n ** 30n), owner: undefined, why: 'a test' });
});
planted('allowed ranges that overlap', /overlap or are out of order/, ({ iopt }) => {
  iopt.setAllowed([spanOf(2n ** 30n, 2n ** 30n + PAGE), spanOf(2n ** 30n + 1n, 2n ** 30n + 2n)]);
});
planted('a domain that shows less than the areas', /does not map the ends/, ({ iopt, area }) => {
  iopt.domains[0]?.table.unmap(area);
});
planted('pages with users that are no areas', /have 2 users/, ({ area }) => {
  area.pages.get();
});
planted('pins without an owner', /2 users of indexes 0 to 1, 1 filled areas and 0/, ({ area }) => {
  area.pages.acquire(0, 1);
});
planted('a charge that is not what is pinned', /2 pinned, 7 charged/, ({ area }) => {
  area.pages.pinned = 7;
});

test('invariants: an area that is less aligned than a domain that shows it is told', () => {
  const lab = new Lab();
  const s = lab.open();
  const ioas = s.ioas();
  s.map(ioas, s.client.allocate(1), 0x400n);
  const { iopt } = s.context.objects.get(Ioas, ioas);
  const [area] = iopt.areas;
  assert.ok(area);
  iopt.areas.delete(area);
  s.mockDomain(ioas);
  iopt.areas.insert(area);
  assert.match(violations(lab.iommufd).join('\n'), /is not aligned to 2048, for mock domain/);
});
