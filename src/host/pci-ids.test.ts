/** The list of names, as a file made for the test. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { pciNames } from './pci-ids.ts';

test('pciNames: vendor and device; nothing for unknown ones, subsystems, classes, and without a list', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-ids-'));
  t.after(() => {
    rmSync(folder, { recursive: true });
  });
  const list = join(folder, 'pci.ids');
  writeFileSync(
    list,
    '# comment\n8086  Intel\n\t1533  I210\n\t\t103c 0003  A card\n\nC 02  Network\n\t00  Ethernet\n',
  );
  const names = pciNames([join(folder, 'nowhere'), list]);
  assert.equal(names.nameOf(0x8086, 0x1533), 'Intel I210');
  assert.equal(names.nameOf(0x8086, 0x103c), undefined);
  assert.equal(names.nameOf(0x0002, 0x0000), undefined);
  assert.equal(pciNames([]).nameOf(0x8086, 0x1533), undefined);
});
