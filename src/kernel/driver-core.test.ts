/** Matching, probing and removing, without any IOMMU behind the devices. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno, type ErrnoCode } from '../base/errno.ts';
import { bareIommu } from '../iommu/hardware/bare.ts';
import { IommuDevice } from '../iommu/domain.ts';
import { DriverCore } from './driver-core.ts';
import { newBusDevice, type BusDevice, type Driver } from './driver-state.ts';

const IDENTITY = { vendor: 0x1234, device: 1, subvendor: 0, subdevice: 0, class: 0x010802 };

function device(name: string): BusDevice {
  return newBusDevice(name, IDENTITY, new IommuDevice({ name, ops: bareIommu() }));
}

function driver(name: string, given: Partial<Driver> = {}): Driver {
  return {
    name,
    managedDma: false,
    ids: [{ vendor: 0x1234, device: 1 }],
    probe: () => undefined,
    remove: (_device, done) => {
      done();
    },
    ...given,
  };
}

function fails(code: ErrnoCode): () => void {
  return () => {
    throw new Errno(code, 'by order');
  };
}

type Start = (done: (error?: Errno) => void) => void;

function outcome(start: Start): string {
  let result = 'waits';
  start((error) => {
    result = error?.code ?? 'ok';
  });
  return result;
}

test('bind: no such device, no such driver and no match are ENODEV; a bound device is EBUSY', () => {
  const core = new DriverCore();
  core.autoprobe = false;
  core.register(driver('one'));
  core.register(driver('none', { ids: [] }));
  core.add(device('a'));
  const bind = (name: string, to: string): string =>
    outcome((done) => {
      core.bind(name, to, done);
    });
  assert.equal(bind('one', 'b'), 'ENODEV');
  assert.equal(bind('two', 'a'), 'ENODEV');
  assert.equal(bind('none', 'a'), 'ENODEV');
  assert.equal(bind('one', 'a'), 'ok');
  assert.equal(bind('one', 'a'), 'EBUSY');
});

test('a failed probe: bind tells the errno, drivers_probe is success, EPROBE_DEFER becomes EAGAIN', () => {
  for (const [code, told] of [
    ['EIO', 'EIO'],
    ['EPROBE_DEFER', 'EAGAIN'],
  ] as const) {
    const core = new DriverCore();
    core.autoprobe = false;
    core.register(driver('failing', { probe: fails(code) }));
    const a = device('a');
    core.add(a);
    const bound = outcome((done) => {
      core.bind('failing', 'a', done);
    });
    const probed = outcome((done) => {
      core.driversProbe('a', done);
    });
    assert.deepEqual([bound, probed, a.bound], [told, 'ok', false]);
  }
});

test('automatic probing goes on after a failed probe', () => {
  const core = new DriverCore();
  core.register(driver('failing', { probe: fails('EIO') }));
  core.register(driver('second'));
  const a = device('a');
  core.add(a);
  core.initialProbe(a);
  assert.equal(a.driver?.name, 'second');
});

test('a deferred device is tried again when another driver was bound', () => {
  const core = new DriverCore();
  let ready = false;
  core.register(
    driver('late', {
      ids: [{ vendor: 0x1234, device: 1 }],
      probe: ({ name }) => {
        if (name === 'a' && !ready) throw new Errno('EPROBE_DEFER', 'not yet');
      },
    }),
  );
  const a = device('a');
  core.add(a);
  core.initialProbe(a);
  assert.equal(a.bound, false);
  ready = true;
  const b = device('b');
  core.add(b);
  core.initialProbe(b);
  assert.equal(a.driver?.name, 'late');
});

test('driver_override: only the named driver, whatever its ids; a newline clears; 4095 bytes are EINVAL', () => {
  const core = new DriverCore();
  core.autoprobe = false;
  const [one, none, only] = [
    driver('one'),
    driver('none', { ids: [] }),
    driver('only', { ids: [{}], overrideOnly: true }),
  ];
  for (const each of [one, none, only]) core.register(each);
  const a = device('a');
  assert.deepEqual(
    [one, none, only].map((each) => core.matches(each, a)),
    [true, false, false],
  );
  core.setOverride(a, 'none\n');
  assert.deepEqual(
    [one, none, only].map((each) => core.matches(each, a)),
    [false, true, false],
  );
  core.setOverride(a, 'only');
  assert.deepEqual(
    [one, none, only].map((each) => core.matches(each, a)),
    [false, false, true],
  );
  core.setOverride(a, '\n');
  assert.equal(a.override, undefined);
  assert.throws(
    () => {
      core.setOverride(a, 'x'.repeat(4095));
    },
    { code: 'EINVAL' },
  );
});

test('new_id binds what has no driver; EEXIST for ids that are known, unless all fields were given; remove_id', () => {
  const core = new DriverCore();
  const none = driver('none', { ids: [] });
  core.register(none);
  const a = device('a');
  core.add(a);
  const row = { vendor: 0x1234, device: 1 };
  core.addId(none, row, false);
  assert.equal(a.driver?.name, 'none');
  assert.throws(
    () => {
      core.addId(none, row, false);
    },
    { code: 'EEXIST' },
  );
  core.addId(none, row, true);
  core.removeId(none, row);
  core.removeId(none, row);
  assert.throws(
    () => {
      core.removeId(none, row);
    },
    { code: 'ENODEV' },
  );
});

test("notifications come in Linux's order, and what waits for a driver comes after it", () => {
  const core = new DriverCore();
  const heard: string[] = [];
  core.listen((event) => heard.push(event));
  let letGo: (() => void) | undefined;
  core.register(
    driver('slow', {
      remove: (_device, done) => {
        letGo = done;
      },
    }),
  );
  const a = device('a');
  core.add(a);
  core.initialProbe(a);
  const unbound = { result: 'waits' };
  core.unbind('slow', 'a', () => {
    unbound.result = 'ok';
  });
  const again = { result: 'waits' };
  core.bind('slow', 'a', () => {
    again.result = 'ok';
  });
  assert.deepEqual([unbound.result, again.result, a.held], ['waits', 'waits', true]);
  letGo?.();
  assert.deepEqual([unbound.result, again.result, a.held], ['ok', 'ok', false]);
  assert.deepEqual(heard, [
    'add',
    'bind-driver',
    'bound-driver',
    'unbind-driver',
    'unbound-driver',
    'bind-driver',
    'bound-driver',
  ]);
});

test('a failed probe is told as not bound; a removed device cannot be bound any more', () => {
  const core = new DriverCore();
  const heard: string[] = [];
  core.listen((event) => heard.push(event));
  core.register(driver('failing', { probe: fails('ENODEV') }));
  const a = device('a');
  core.add(a);
  core.initialProbe(a);
  assert.equal(
    outcome((done) => {
      core.remove(a, done);
    }),
    'ok',
  );
  assert.deepEqual(heard, ['add', 'bind-driver', 'driver-not-bound', 'remove', 'removed']);
  assert.equal(
    outcome((done) => {
      core.bind('failing', 'a', done);
    }),
    'ENODEV',
  );
});
