import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Errno } from '../../base/errno.ts';
import { boolean, signed, unsigned, unsignedOrInvalid, word } from './parse.ts';

const code = (action: () => unknown): string | undefined => {
  try {
    action();
  } catch (error) {
    return error instanceof Errno ? error.code : String(error);
  }
  return undefined;
};

// lib/kstrtox.c
test('unsigned refuses what kstrtoul refuses', () => {
  for (const text of ['', 'x', '-1', '1x', '1\n\n', ' 1', '08', '0x', '0xg', '\n']) {
    assert.equal(
      code(() => unsigned(text)),
      'EINVAL',
      JSON.stringify(text),
    );
  }
  assert.equal(
    code(() => unsigned('65536', 0xffffn)),
    'ERANGE',
  );
  assert.equal(
    code(() => unsigned('0x10000000000000000')),
    'ERANGE',
  );
  assert.equal(
    code(() => unsignedOrInvalid('0x10000000000000000')),
    'EINVAL',
  );
});

test('unsigned takes decimal, octal and hexadecimal, a plus and one newline', () => {
  assert.equal(unsigned('10\n'), 10n);
  assert.equal(unsigned('010'), 8n);
  assert.equal(unsigned('0'), 0n);
  assert.equal(unsigned('+0XfF\n'), 255n);
  assert.equal(unsigned('1\0garbage'), 1n);
  assert.equal(signed('-1\n'), -1n);
});

test('boolean looks at the first letters only', () => {
  for (const text of ['y', 'Yes', '1\n', 'true', 'on', 'ON']) assert.equal(boolean(text), true);
  for (const text of ['n', 'No', '0', 'false', 'off', 'OFF']) assert.equal(boolean(text), false);
  for (const text of ['', '2', 'o', 'oh', ' 1']) assert.equal(boolean(text), undefined);
});

test('word ends at a zero byte and loses one newline', () => {
  assert.equal(word('name\n'), 'name');
  assert.equal(word('name\n\n'), 'name\n');
  assert.equal(word('a\0b\n'), 'a');
});
