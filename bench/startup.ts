/** What `uiommu run` adds to the start and end of a program that does nothing; measured in turns with the program alone. */
import { commandTime, UIOMMU_RUN, type Bench, type Figure } from './measure.ts';

const ROUNDS = 15;
const PROMISE = 250; // milliseconds

// Of ascending times the third: whatever else the machine does only adds time.
const fast = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[2] ?? NaN;

function startup(): Figure[] {
  const plain: number[] = [];
  const supervised: number[] = [];
  const node: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    plain.push(commandTime(['/bin/true']));
    node.push(commandTime([process.execPath, '-e', '0']));
    supervised.push(commandTime([...UIOMMU_RUN, '--', '/bin/true']));
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
