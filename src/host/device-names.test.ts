/** Names that people use for PCI devices, in a tree made for the test. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { addressesOf } from './device-names.ts';
import { HOST_ROOTS } from './files.ts';

test('addressesOf: an interface behind virtio, a disk, a disk with two ways to it, and what is no PCI device', (t) => {
  const at = mkdtempSync(join(tmpdir(), 'uiommu-names-'));
  t.after(() => {
    rmSync(at, { recursive: true });
  });
  const roots = { ...HOST_ROOTS, sys: join(at, 'sys') };
  const place = (kind: string, name: string, path: string): void => {
    mkdirSync(join(roots.sys, 'devices', path), { recursive: true });
    mkdirSync(join(roots.sys, 'class', kind), { recursive: true });
    symlinkSync(join(roots.sys, 'devices', path), join(roots.sys, 'class', kind, name));
  };
  const card = 'pci0000:00/0000:00:01.0/0000:01:00.0';
  place('net', 'eth0', `${card}/virtio0/net/eth0`);
  place('block', 'sda', 'pci0000:00/0000:00:1f.2/ata1/host0/block/sda');
  place('net', 'lo', 'virtual/net/lo');
  const subsystem = 'virtual/nvme-subsystem/nvme-subsys0';
  place('block', 'nvme0n1', `${subsystem}/nvme0n1`);
  place('nvme-subsystem', 'nvme-subsys0', subsystem);
  for (const [index, slot] of ['03', '04'].entries()) {
    const controller = join(roots.sys, 'devices/pci0000:00', `0000:00:${slot}.0/nvme/nvme${index}`);
    mkdirSync(controller, { recursive: true });
    symlinkSync(controller, join(roots.sys, 'devices', subsystem, `nvme${index}`));
  }
  assert.deepEqual(addressesOf('eth0', roots), ['0000:01:00.0']);
  assert.deepEqual(addressesOf('sda', roots), ['0000:00:1f.2']);
  assert.deepEqual(addressesOf('nvme0n1', roots), ['0000:00:03.0', '0000:00:04.0']);
  assert.deepEqual(addressesOf('lo', roots), []);
  assert.deepEqual(addressesOf('..', roots), []);
});
