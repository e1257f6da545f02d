/**
 * Start and end of `uiommu run` with a program that does nothing, as a multiple of `node -e 0`: processor time of all that is
 * started, measured in turns.
 */
import { commandCpu, UIOMMU_RUN, type Bench, type Figure } from './measure.ts';

const ROUNDS = 15;
const PROMISE = 7;

// Of ascending times the third: whatever else the machine does only adds time.
const fast = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[2] ?? NaN;

function startup(): Figure[] {
  const supervised: number[] = [];
  const node: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    node.push(commandCpu([process.execPath, '-e', '0']));
    supervised.push(commandCpu([...UIOMMU_RUN, '--', '/bin/true']));
  }
  const [under, bare] = [fast(supervised), fast(node)];
  return [
    {
      name: 'uiommu run -- /bin/true from a clone, to node -e 0, processor time',
      value: under / bare,
      unit: 'times',
      atMost: PROMISE,
      detail: `${under.toFixed(0)} ms against ${bare.toFixed(0)} ms`,
    },
  ];
}

export const benches: readonly Bench[] = [{ name: 'start-up', run: startup }];
