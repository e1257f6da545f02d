/** Summary: what is shown of very many refusals. */
import assert from 'node:assert/strict';
import test from 'node:test';

import type { TimedCall } from './observer.ts';
import { Summary } from './summary.ts';

const refusal = (reason: string): TimedCall => ({
  pid: 1,
  tid: 1,
  syscall: 'ioctl',
  arguments: [],
  call: 'IOMMU_IOAS_UNMAP',
  result: -1,
  error: 'ENOENT',
  reason,
  microseconds: 1,
});

test('Summary counts all refusals, shows the most frequent, and keeps a bounded number of them', () => {
  const summary = new Summary();
  for (let i = 0; i < 100; i++) summary.call(refusal('again and again'));
  for (let i = 0; i < 10_000; i++) summary.call(refusal(`once, at ${i}`));
  const text = summary.text(0, []);
  assert.match(
    text,
    /10100 calls were refused:\n {4}100 times IOMMU_IOAS_UNMAP: ENOENT, again and again\n/,
  );
  const others = /and (\d+) other reasons or more/.exec(text)?.[1];
  assert.ok(Number(others) < 2000, text);
});
