import assert from 'node:assert/strict';
import test from 'node:test';
import { Eventfd } from './eventfd.ts';

test('an eventfd adds up what is written and signalled, and is 0 once read', () => {
  const eventfd = new Eventfd();
  assert.throws(() => eventfd.read(), { code: 'EAGAIN' });
  eventfd.write(3n);
  eventfd.signal().signal();
  assert.equal(eventfd.read(), 4n);
  assert.throws(() => eventfd.read(), { code: 'EAGAIN' });
});

test('a full eventfd refuses writes and loses signals', () => {
  const eventfd = new Eventfd();
  eventfd.write(2n ** 64n - 2n);
  assert.throws(
    () => {
      eventfd.write(1n);
    },
    { code: 'EAGAIN' },
  );
  eventfd.signal().signal();
  assert.equal(eventfd.read(), 2n ** 64n - 2n);
});

test('a listener is called for what was there and takes nothing then; afterwards it takes each count', () => {
  const eventfd = new Eventfd();
  eventfd.write(1n);
  let heard = 0;
  const signal = eventfd.signal();
  signal.listen(() => {
    heard++;
  });
  assert.equal(heard, 1);
  assert.equal(eventfd.read(), 1n);
  eventfd.write(5n);
  assert.equal(heard, 2);
  assert.throws(() => eventfd.read(), { code: 'EAGAIN' });
  signal.unlisten();
  eventfd.write(1n);
  assert.equal(heard, 2);
});

test('an eventfd is closed when its last fd is', () => {
  const eventfd = new Eventfd();
  const signal = eventfd.signal();
  eventfd.get();
  eventfd.put();
  assert.equal(signal.closed, false);
  eventfd.put();
  assert.equal(signal.closed, true);
});
