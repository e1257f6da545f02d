/**
 * Start and end of `uiommu run` with a program that does nothing, as a multiple of `node -e 0`, from a clone and as the package
 * has it; and importing the library, as a multiple of importing `yaml` alone. Processor time of all that is started, measured
 * in turns.
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { commandCpu, UIOMMU_RUN, type Bench, type Figure } from './measure.ts';

const ROUNDS = 15;
const CLONE_PROMISE = 7;
const PACKAGE_PROMISE = 3;
const IMPORT_PROMISE = 1.5;

// Of ascending times the third: whatever else the machine does only adds time.
const fast = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[2] ?? NaN;

/** Node with a script. */
const script = (text: string): string[] => [process.execPath, '-e', text];

const lib = (name: string): string =>
  JSON.stringify(join(fileURLToPath(new URL('../..', import.meta.url)), 'dist', 'lib', name));

/** `main` of the bundle does what the package's `bin/uiommu.js` does. */
const PACKAGED = script(
  `import(${lib('cli.js')}).then((cli) => cli.main(['run', '--', '/bin/true'])).then((status) => process.exit(status))`,
);

/** The fast rounds of commands that run in turns, in milliseconds of processor time. */
function inTurns(commands: readonly (readonly string[])[]): number[] {
  const times = commands.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, command] of commands.entries()) times[i]?.push(commandCpu([...command]));
  }
  return times.map(fast);
}

function figure(name: string, subject: number, baseline: number, atMost: number): Figure {
  const detail = `${subject.toFixed(0)} ms against ${baseline.toFixed(0)} ms`;
  return { name, value: subject / baseline, unit: 'times', atMost, detail };
}

function startup(): Figure[] {
  const [bare = NaN, clone = NaN, packaged = NaN] = inTurns([
    script('0'),
    [...UIOMMU_RUN, '--', '/bin/true'],
    PACKAGED,
  ]);
  const what = 'uiommu run -- /bin/true';
  return [
    figure(`${what} from a clone, to node -e 0`, clone, bare, CLONE_PROMISE),
    figure(`${what} as packaged, to node -e 0`, packaged, bare, PACKAGE_PROMISE),
  ];
}

function importing(): Figure[] {
  const [yaml = NaN, library = NaN] = inTurns([
    script("import('yaml')"),
    script(`import(${lib('index.js')})`),
  ]);
  return [figure("import 'uiommu', to import 'yaml'", library, yaml, IMPORT_PROMISE)];
}

export const benches: readonly Bench[] = [
  { name: 'start-up', run: startup },
  { name: 'import', run: importing },
];
