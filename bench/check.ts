/**
 * The checker: a million states of two devices in two groups with three users. Counted is the processor time of all threads
 * together: it depends less than the clock on what else the computer does.
 */
import { DEFAULT_BOUNDS, BUILT_IN_MACHINES } from '../src/check/model.ts';
import { explore } from '../src/cli/explore.ts';
import type { Bench, Figure } from './measure.ts';

const STATES = 1_000_000;
const THREADS = 2;
const LIMIT_S = 60;
const LIMIT_MIB = 2048;

async function million(): Promise<Figure[]> {
  const machine = BUILT_IN_MACHINES.find(({ name }) => name === 'two-groups');
  if (machine === undefined) throw new Error('the machine two-groups is gone');
  const before = process.cpuUsage();
  const start = performance.now();
  const bounds = { ...DEFAULT_BOUNDS, users: 3 };
  const task = { machine, profile: 'linux', bounds, rulesOff: [] } as const;
  const outcome = await explore(task, { threads: THREADS, maxStates: STATES });
  const { user, system } = process.cpuUsage(before);
  const wall = ((performance.now() - start) / 1e3).toFixed(1);
  const detail = `${outcome.states} states, ${outcome.steps} steps, ${wall} s by the clock`;
  return [
    {
      name: `${STATES} states: processor time of all threads`,
      value: (user + system) / 1e6,
      unit: 's',
      atMost: LIMIT_S,
      detail,
    },
    {
      name: `${STATES} states: memory`,
      value: process.resourceUsage().maxRSS / 1024,
      unit: 'MiB',
      atMost: LIMIT_MIB,
    },
  ];
}

export const benches: readonly Bench[] = [{ name: 'check', run: million }];
