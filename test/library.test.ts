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
  InputError,
  UiommuError,
  boot,
  bootMachine,
  describeCall,
  loadMachine,
  type CallEvent,
} from '../src/index.ts';
import { assertNoLeaks, assertRefused } from '../src/testing.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

const EXAMPLES = ['library.ts', 'library-events.ts'];

test('the examples of docs/library.md are those in examples/', () => {
  const page = readFileSync(join(root, 'docs', 'library.md'), 'utf8');
  const shown = [...page.matchAll(/```ts\n([^`]*(?:`[^`]+`[^`]*)*?)```/g)].map(([, code]) => code);
  const files = EXAMPLES.map((name) => {
    const lines = readFileSync(join(root, 'examples', name), 'utf8').split('\n');
    return lines.slice(1).join('\n'); // all but the first line, which is for readers of the file
  });
  assert.deepEqual(shown, files);
});

for (const name of EXAMPLES) {
  test(`the example ${name} of docs/library.md runs`, async () => {
    const path = new URL(`../examples/${name.replace(/ts$/, 'js')}`, import.meta.url);
    const example: unknown = await import(path.href);
    assert.deepEqual(Object.keys(example as object), []);
  });
}

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

test('an uncaught refusal shows the call, the reason and the line of the program, none of the engine', () => {
  const file = new InProcessClient().open(boot('selftest'), '/dev/iommu');
  let refusal: unknown;
  try {
    file.ioctl('IOMMU_DESTROY', { id: 77 });
  } catch (error) {
    refusal = error;
  }
  assert.ok(refusal instanceof Errno && refusal instanceof UiommuError);
  assert.equal(refusal.call, 'IOMMU_DESTROY');
  assert.equal(refusal.message, `IOMMU_DESTROY: ${refusal.reason}`);
  const [head, first] = (refusal.stack ?? '').split('\n');
  assert.equal(head, `Errno: IOMMU_DESTROY: ${refusal.reason}`);
  assert.match(first ?? '', /library\.test\.[jt]s:\d+:\d+/);
  assert.doesNotMatch(refusal.stack ?? '', /src\/iommufd|src\/client/);
});

test('a refused open shows the line of the program', () => {
  const client = new InProcessClient();
  assert.throws(
    () => client.open(boot('selftest'), '/dev/toaster'),
    (error) => error instanceof Errno && /library\.test\.[jt]s/.test(error.stack ?? ''),
  );
});

test('without stacks a refusal is cheap and nameless', () => {
  const file = new InProcessClient({ stacks: false }).open(boot('selftest'), '/dev/iommu');
  assert.throws(
    () => file.ioctl('IOMMU_DESTROY', { id: 77 }),
    (error) => error instanceof Errno && error.message === error.reason,
  );
});

test('kernel.on: a listener gets every call with its arguments, until it is taken away', () => {
  const kernel = boot('selftest');
  const client = new InProcessClient({ pid: 1234 });
  const events: CallEvent[] = [];
  const off = kernel.on('call', (event) => events.push(event));
  const file = client.open(kernel, '/dev/iommu');
  const { out_ioas_id: ioas } = file.ioctl('IOMMU_IOAS_ALLOC');
  assert.throws(() => file.ioctl('IOMMU_DESTROY', { id: 77 }), { code: 'ENOENT' });
  off();
  file.ioctl('IOMMU_DESTROY', { id: ioas });
  const [open, alloc, destroy, ...rest] = events;
  assert.deepEqual(rest, []);
  assert.deepEqual([open?.syscall, open?.arguments], ['openat', ['AT_FDCWD', '"/dev/iommu"']]);
  assert.ok(alloc !== undefined && destroy !== undefined);
  assert.deepEqual([alloc.pid, alloc.call, alloc.result], [1234, 'IOMMU_IOAS_ALLOC', 0]);
  assert.deepEqual(describeCall(alloc).output, { out_ioas_id: ioas });
  assert.deepEqual([destroy.result, destroy.error], [-1, 'ENOENT']);
  assert.deepEqual(describeCall(destroy).input, { id: 77 });
});

test('wrong input is an InputError with a code, like every error of uiommu', () => {
  assert.throws(
    () => loadMachine('devices: 7', 'seven'),
    (error) =>
      error instanceof InputError && error instanceof UiommuError && error.code === 'INPUT',
  );
});

test('uiommu/testing: assertRefused and assertNoLeaks say what is not as expected', () => {
  const kernel = boot('selftest');
  const client = new InProcessClient();
  const file = client.open(kernel, '/dev/iommu');
  const destroy = (): unknown => file.ioctl('IOMMU_DESTROY', { id: 77 });
  assert.match(assertRefused('ENOENT', destroy).reason, /77/);
  assert.throws(() => assertRefused('EBUSY', destroy), /expected EBUSY, was refused with ENOENT/);
  assert.throws(() => assertRefused('EBUSY', () => 0), /expected EBUSY, but the call succeeded/);
  assert.throws(() => {
    assertNoLeaks(kernel);
  }, /left after every client has exited/);
  assertNoLeaks(kernel, client);
});
