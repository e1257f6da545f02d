/** Output: what a machine file or a client names cannot command the terminal. */
import assert from 'node:assert/strict';
import { openSync, closeSync } from 'node:fs';
import test from 'node:test';

import { printable, writeAll } from './output.ts';
import { styleFor } from './style.ts';

test('printable: control characters and changes of direction are written out, lines and tabs stay', () => {
  assert.equal(
    printable('a\u001b[2J\u001b]0;pwn\u0007b\n\tc'),
    'a\\u001b[2J\\u001b]0;pwn\\u0007b\n\tc',
  );
  assert.equal(
    printable('\u009b31m \u007f \u202egnp.exe \u2066x'),
    '\\u009b31m \\u007f \\u202egnp.exe \\u2066x',
  );
  assert.equal(printable('naïve Ω 😀'), 'naïve Ω 😀');
});

test('printable: own colours stay', () => {
  const style = styleFor(true);
  const text = style.bold('x') + style.bad('y');
  assert.equal(printable(text), text);
  assert.equal(printable(`${text}\u001b[8m`), `${text}\\u001b[8m`);
});

test('printable: JSON stays JSON, and is read back as the same', () => {
  const value = { label: '\u009b2J \u202e' };
  assert.deepEqual(JSON.parse(printable(JSON.stringify(value))), value);
});

test('writeAll: says why something cannot be written', () => {
  const fd = openSync('/dev/full', 'w');
  assert.equal(writeAll(fd, 'text')?.code, 'ENOSPC');
  closeSync(fd);
});
