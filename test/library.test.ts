/** docs/library.md shows examples/library.ts word for word, and that runs. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  BUILTIN_MACHINES,
  Errno,
  InProcessClient,
  boot,
  bootMachine,
  loadMachine,
} from '../src/index.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

test('the example of docs/library.md is examples/library.ts', () => {
  const page = readFileSync(join(root, 'docs', 'library.md'), 'utf8');
  const [, shown] = /```ts\n([^`]*?)```/.exec(page) ?? [];
  const lines = readFileSync(join(root, 'examples', 'library.ts'), 'utf8').split('\n');
  assert.equal(shown, lines.slice(1).join('\n'), 'all but its first line');
});

test('the example of docs/library.md runs', async () => {
  const example = await import('../examples/library.ts');
  assert.deepEqual(Object.keys(example), []);
});

test('boot says which machines there are', () => {
  assert.throws(() => boot('toaster'), /no machine "toaster"; built in are: selftest, pc$/);
});

test('boot knows every built-in machine, and bootMachine any that a file describes', () => {
  for (const name of Object.keys(BUILTIN_MACHINES)) {
    const client = new InProcessClient();
    client.open(boot(name, { check: true }), '/dev/iommu').ioctl('IOMMU_IOAS_ALLOC');
    client.exit();
  }
  const card = `devices:
  - { address: 00:00.0, type: host-bridge }
  - { address: 00:01.0, type: root-port, secondary: 0000:01 }
  - { address: 01:00.0, ids: 1234:11e8, driver: vfio-pci }
`;
  const { nodes } = bootMachine(loadMachine(card, 'card'), { profile: 'singleton' });
  assert.ok(nodes.has('/dev/vfio/devices/vfio0'), [...nodes.keys()].join(' '));
});

test('a process that forks shares its open files until the last of them closes', () => {
  const kernel = boot('selftest', { check: true });
  const parent = new InProcessClient();
  parent.open(kernel, '/dev/iommu');
  const child = parent.fork(2);
  parent.exit();
  assert.notDeepEqual(kernel.leaks(), []);
  assert.equal(child.descriptors.length, 1);
  child.exit();
  assert.deepEqual(kernel.leaks(), []);
});

test('memory of a client: what is not mapped or read-only is refused with EFAULT', () => {
  const client = new InProcessClient();
  const address = client.allocate(1, { readOnly: true });
  assert.deepEqual(client.read(address + 4000n, 96), new Uint8Array(96));
  assert.throws(() => client.read(address + 4000n, 97), { code: 'EFAULT' });
  assert.throws(
    () => {
      client.write(address, new Uint8Array(1));
    },
    { code: 'EFAULT' },
  );
  assert.throws(() => client.read(2n ** 64n - 1n, 2), { code: 'EFAULT' });
  client.memory.unmap(address, 1);
  assert.throws(
    () => client.read(address, 1),
    (error) => error instanceof Errno,
  );
});

test('a file says what it cannot do', () => {
  const kernel = boot('selftest');
  const client = new InProcessClient();
  const file = client.open(kernel, '/dev/iommu');
  assert.throws(() => client.open(kernel, '/dev/null'), { code: 'ENOENT' });
  assert.throws(() => file.read(8), { code: 'EINVAL' });
  assert.throws(() => file.write(new Uint8Array(8)), { code: 'EINVAL' });
  assert.equal(file.readable, false);
  assert.throws(() => file.mmap(0n, 4096n), { code: 'ENXIO' });
  file.close();
  assert.throws(
    () => {
      file.close();
    },
    { code: 'EBADF' },
  );
});
