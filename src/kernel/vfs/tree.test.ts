import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Errno } from '../../base/errno.ts';
import {
  atOnce,
  Directory,
  fixed,
  linkTo,
  lookup,
  NameChanges,
  readable,
  readAttribute,
  writable,
  writeAttribute,
  type Attribute,
} from './tree.ts';

const file = readable(() => 'text\n');
const root = fixed({
  sys: fixed({
    bus: fixed({ pci: fixed({ x: linkTo('/sys/bus/pci', '/sys/devices/x') }) }),
    devices: fixed({ x: fixed({ file, up: linkTo('/sys/devices/x', '/sys/devices') }) }),
    loop: { kind: 'link', target: 'loop' },
  }),
});

// fs/kernfs/symlink.c: up to where the paths part, and the target is always named.
test('linkTo is relative, and names the target also where it is above', () => {
  assert.equal(linkTo('/sys/bus/pci', '/sys/devices/x').target, '../../devices/x');
  assert.equal(linkTo('/sys/a/b/c', '/sys/a/b').target, '../../b');
  assert.equal(linkTo('/sys/a', '/sys/a/b').target, 'b');
});

test('lookup follows links on the way and the last one when asked', () => {
  assert.equal(lookup(root, '/sys/bus/pci/x')?.kind, 'link');
  assert.equal(lookup(root, '/sys/bus/pci/x', true)?.kind, 'directory');
  assert.equal(lookup(root, '/sys/bus/pci/x/file'), file);
  assert.equal(lookup(root, '/sys/bus/pci/x/up/x/../x//./file'), file);
  assert.equal(lookup(root, '/sys/bus/../../../sys/devices/x/file'), file);
});

test('lookup finds nothing below a file, behind a loop, and where there is no name', () => {
  assert.equal(lookup(root, '/sys/devices/x/file/y'), undefined);
  assert.equal(lookup(root, '/sys/devices/x/file/..'), undefined);
  assert.equal(lookup(root, '/sys/loop/x'), undefined);
  assert.equal(lookup(root, '/sys/none'), undefined);
});

test('a directory shows what there is at that moment', () => {
  const names = ['a'];
  const directory = new Directory({ list: () => names.map((name) => [name, file] as const) });
  assert.equal(directory.find('b'), undefined);
  names.push('b');
  assert.equal(directory.find('b'), file);
});

test('reading an attribute stops at a page and starts where it is asked to', () => {
  const long = readable(() => 'x'.repeat(5000));
  assert.equal(readAttribute(long, 0, 9000).length, 4096);
  assert.equal(Buffer.from(readAttribute(file, 2, 10)).toString(), 'xt\n');
  assert.equal(readAttribute(file, 5, 10).length, 0);
});

function outcome(attribute: Attribute, text: string): Errno | 'done' | 'waits' {
  const heard: (Errno | 'done')[] = [];
  writeAttribute(attribute, { bytes: Buffer.from(text), offset: 0 }, (error) => {
    heard.push(error ?? 'done');
  });
  return heard[0] ?? 'waits';
}

test('writing nothing does nothing, and a refusal is told', () => {
  const written: string[] = [];
  const attribute = writable(
    atOnce((text) => {
      if (text === 'bad') throw new Errno('EINVAL', 'bad is not good');
      written.push(text);
    }),
  );
  assert.equal(outcome(attribute, ''), 'done');
  assert.equal(outcome(attribute, 'good\n'), 'done');
  const refusal = outcome(attribute, 'bad');
  assert.ok(refusal instanceof Errno && refusal.code === 'EINVAL');
  assert.deepEqual(written, ['good\n']);
  assert.equal(
    outcome(
      writable(() => undefined),
      'x',
    ),
    'waits',
  );
});

test('NameChanges tells everybody who listens, and nobody who stopped', () => {
  const changes = new NameChanges();
  const heard: string[] = [];
  const stop = changes.listen((path) => heard.push(path));
  changes.tell('/a', '/b');
  stop();
  changes.tell('/c');
  assert.deepEqual(heard, ['/a', '/b']);
});
