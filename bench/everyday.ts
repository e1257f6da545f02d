/**
 * What a program pays that has nothing to do with devices: calls that take a path, and those that change low file numbers,
 * are looked at for every program. Each workload is measured in turns natively and under `uiommu run`, whose start-up is taken
 * away.
 */
import { spawnSync } from 'node:child_process';

import {
  commandTime,
  UIOMMU_RUN,
  type Bench,
  type Figure,
  type NamedSkip,
  type Skip,
} from './measure.ts';

const ROUNDS = 7;

type Workload = { readonly name: string; readonly script: string; readonly atMost: number };

const WORKLOADS: readonly Workload[] = [
  {
    name: 'a shell that starts 300 programs',
    script: 'i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done',
    atMost: 2.5,
  },
  {
    name: 'a shell that opens, writes and closes a file 2,000 times',
    script: 'i=0; while [ $i -lt 2000 ]; do echo x >/dev/null; i=$((i+1)); done',
    atMost: 16,
  },
  { name: 'find over /usr/include', script: 'find /usr/include -name x', atMost: 12 },
  {
    name: 'a shell that computes',
    script: 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done',
    atMost: 1.3,
  },
];

/** Milliseconds natively and under uiommu; whatever else the machine does only adds time. */
function measure({ script }: Workload): { readonly native: number; readonly under: number } {
  const native: number[] = [];
  const under: number[] = [];
  const start: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    native.push(commandTime(['sh', '-c', script]));
    start.push(commandTime([...UIOMMU_RUN, '--', '/bin/true']));
    under.push(commandTime([...UIOMMU_RUN, '--', 'sh', '-c', script]));
  }
  return { native: Math.min(...native), under: Math.min(...under) - Math.min(...start) };
}

function everyday(): (Figure | NamedSkip)[] | Skip {
  if (spawnSync('find', ['/usr/include', '-maxdepth', '0']).status !== 0) {
    return { skip: 'there is no find, or no /usr/include' };
  }
  return WORKLOADS.map((workload) => {
    const { native, under } = measure(workload);
    const detail = `${under.toFixed(0)} ms against ${native.toFixed(0)} ms`;
    const figure = { name: workload.name, unit: 'times', atMost: workload.atMost, detail };
    // The start-up that is taken away is that of another moment: on a busy machine it may be the larger one.
    return under > 0
      ? { ...figure, value: under / native }
      : { name: workload.name, skip: `not measurable: ${detail}` };
  });
}

export const benches: readonly Bench[] = [{ name: 'programs without a device', run: everyday }];
