/**
 * Groups at scale: forming them at 100, 1,000 and 10,000 devices grows no worse than n log n, and a capture of 10,000 devices
 * is listed in so many times the processor time of `node -e 0`, start-up of the program included.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { formGroups } from '../src/iommu/group-builder.ts';
import { formatMachine } from '../src/machine/file/write.ts';
import { bigMachine } from '../src/testing/big-machine.ts';
import { commandCpu, type Bench, type Figure } from './measure.ts';

const SIZES = [100, 1_000, 10_000];
const ROUNDS = 12;
const LISTINGS = 7;
// Caches get worse with size; the promise is about the algorithm.
const GROWTH_AT_MOST = 2;
const LIST_AT_MOST = 50;

function seconds(run: () => void): number {
  const start = performance.now();
  run();
  return (performance.now() - start) / 1e3;
}

/** Times the sizes in turns; small machines many times over, so that each turn is as long. */
function growth(): Figure[] {
  const machines = SIZES.map((size) => bigMachine(size));
  const fastest = SIZES.map(() => Infinity);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [index, machine] of machines.entries()) {
      const times = Math.max(1, Math.round(10_000 / machine.deviceCount));
      const took = seconds(() => {
        for (let i = 0; i < times; i += 1) formGroups(machine);
      });
      fastest[index] = Math.min(fastest[index] ?? Infinity, took / times);
    }
  }
  const scaled = SIZES.map((size, index) => (fastest[index] ?? NaN) / (size * Math.log2(size)));
  const words = SIZES.map((size, index) => {
    const each = ((fastest[index] ?? NaN) / size) * 1e6;
    return `${size} devices: ${each.toFixed(1)} µs each`;
  });
  return [
    {
      name: 'forming groups, 10,000 against 100 devices, per n log n',
      value: (scaled.at(-1) ?? NaN) / (scaled[0] ?? NaN),
      unit: 'times',
      atMost: GROWTH_AT_MOST,
      detail: words.join(', '),
    },
  ];
}

function listing(): Figure[] {
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  const folder = mkdtempSync(join(tmpdir(), 'uiommu-bench-'));
  const file = join(folder, 'capture.yaml');
  const size = SIZES.at(-1) ?? 0;
  const capture = { kernel: '7.3', readAs: 'root', unreadable: [] } as const;
  const text = formatMachine(bigMachine(size), capture);
  writeFileSync(file, text);
  const listings: number[] = [];
  const node: number[] = [];
  for (let round = 0; round < LISTINGS; round += 1) {
    node.push(commandCpu([process.execPath, '-e', '0']));
    listings.push(commandCpu([process.execPath, join(root, 'bin/uiommu.js'), 'ls', '-m', file]));
  }
  rmSync(folder, { recursive: true });
  const [own, bare] = [Math.min(...listings), Math.min(...node)];
  return [
    {
      name: `uiommu ls of a capture of ${size} devices, to node -e 0, processor time`,
      value: own / bare,
      unit: 'times',
      atMost: LIST_AT_MOST,
      detail: `${own.toFixed(0)} ms against ${bare.toFixed(0)} ms, ${(text.length / 1e6).toFixed(1)} MB`,
    },
  ];
}

export const benches: readonly Bench[] = [
  { name: 'forming groups', run: growth },
  { name: 'listing', run: listing },
];
