/** What `uiommu run` adds to the start and end of a program that does nothing; measured in turns with the program alone. */
import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Bench, Figure } from './measure.ts';

const ROUNDS = 15;
const PROMISE = 250; // milliseconds

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

function time(command: readonly string[]): number {
  const [file = '', ...args] = command;
  const begin = performance.now();
  const { status } = spawnSync(file, args, { stdio: 'ignore' });
  if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}`);
  return performance.now() - begin;
}

// Of ascending times the third: whatever else the machine does only adds time.
const fast = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[2] ?? NaN;

function startup(): Figure[] {
  const plain: number[] = [];
  const supervised: number[] = [];
  const node: number[] = [];
  const uiommu = [process.execPath, join(root, 'bin', 'uiommu.js'), 'run', '--', '/bin/true'];
  for (let round = 0; round < ROUNDS; round++) {
    plain.push(time(['/bin/true']));
    node.push(time([process.execPath, '-e', '0']));
    supervised.push(time(uiommu));
  }
  const [alone, under, bare] = [fast(plain), fast(supervised), fast(node)];
  return [
    {
      name: 'uiommu run -- /bin/true, beyond /bin/true',
      value: under - alone,
      unit: 'ms',
      atMost: PROMISE,
      detail: `${under.toFixed(0)} ms against ${alone.toFixed(0)} ms; node alone ${bare.toFixed(0)} ms`,
    },
  ];
}

export const benches: readonly Bench[] = [{ name: 'start-up', run: startup }];
