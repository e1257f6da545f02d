import assert from 'node:assert/strict';
import test from 'node:test';
import { Events } from './events.ts';

type Kinds = { call: { readonly nr: number }; close: string };

test('Events: listeners get what is emitted for their kind until they are taken away', () => {
  const events = new Events<Kinds>();
  const got: unknown[] = [];
  const off = events.on('call', ({ nr }) => got.push(nr));
  events.on('close', (name) => got.push(name));
  events.emit('call', { nr: 1 });
  events.emit('close', 'fd');
  off();
  events.emit('call', { nr: 2 });
  assert.deepEqual(got, [1, 'fd']);
});

test('Events: an event is wanted as long as there is a listener', () => {
  const events = new Events<Kinds>();
  assert.equal(events.wanted('call'), false);
  const off = events.on('call', () => undefined);
  assert.equal(events.wanted('call'), true);
  assert.equal(events.wanted('close'), false);
  off();
  assert.equal(events.wanted('call'), false);
});
