/** The option of GET_DEVICE_FD that carries a token; after vfio_pci_core_match. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../../base/errno.ts';
import { tokenOption } from './vf-token.ts';

const UUID = '00112233-4455-6677-8899-aabbccddeeff';

test('tokenOption refuses another option, a second token and half a UUID with EINVAL', () => {
  for (const options of [
    ' reset',
    ` vf_token=${UUID} vf_token=${UUID}`,
    ' vf_token=0011',
    ` vf_token=${UUID}x`,
  ]) {
    assert.throws(
      () => tokenOption(options),
      (error) => error instanceof Errno && error.code === 'EINVAL',
      options,
    );
  }
});

test('tokenOption reads the bytes in the order of the text, between any blanks', () => {
  assert.equal(tokenOption(''), undefined);
  assert.equal(tokenOption('   '), undefined);
  const expected = Uint8Array.from({ length: 16 }, (_, index) => index * 0x11);
  assert.deepEqual(tokenOption(`  vf_token=${UUID}  `), expected);
});
