/** The bytes of our machine code against GNU as. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';

import { GUARD } from './guard.ts';
import { CALL_LIST, machineCode, type Line } from './machine-code.ts';

const available = (name: string): boolean =>
  spawnSync('sh', ['-c', 'command -v "$1"', 'sh', name]).status === 0;

for (const [name, lines] of Object.entries({ CALL_LIST, GUARD })) {
  const skip = !(available('as') && available('objcopy')) && 'there are no binutils';
  test(
    `machine code: the bytes of ${name} are what GNU as makes of its instructions`,
    { skip },
    (t) => {
      const folder = mkdtempSync(join(tmpdir(), 'uiommu-test-'));
      t.after(() => {
        rmSync(folder, { recursive: true });
      });
      assert.deepEqual(machineCode(lines), assembled(lines, folder));
    },
  );
}

function assembled(lines: readonly Line[], folder: string): Uint8Array {
  const [object, binary] = [join(folder, 'object'), join(folder, 'binary')];
  const input = ['.intel_syntax noprefix', ...lines.map(([text]) => text), ''].join('\n');
  const as = spawnSync('as', ['--64', '-o', object], { input, encoding: 'utf8' });
  assert.equal(as.status, 0, as.stderr);
  const objcopy = spawnSync('objcopy', ['-O', 'binary', '-j', '.text', object, binary]);
  assert.equal(objcopy.status, 0);
  return new Uint8Array(readFileSync(binary));
}
