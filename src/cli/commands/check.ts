/** `uiommu check`: every interleaving of drivers, claims and VFIO calls on a small machine. */
import { availableParallelism } from 'node:os';
import {
  describeBounds,
  INVARIANT_COUNT,
  type Outcome,
  type Task,
} from '../../check/exploration.ts';
import { INVARIANTS } from '../../check/invariants.ts';
import { BUILT_IN_MACHINES, DEFAULT_BOUNDS, DEMONSTRATIONS } from '../../check/model.ts';
import { OWNERSHIP_RULES, PROFILE_NAMES, type OwnershipRule } from '../../iommu/profile.ts';
import { checkMachine } from '../check-machine.ts';
import { UsageError, type Command } from '../command.ts';
import { explore } from '../explore.ts';
import { chosenProfile, oneOf, parseOptions } from '../options.ts';
import { print } from '../output.ts';

const RULE_NAMES = Object.keys(OWNERSHIP_RULES) as OwnershipRule[];

const HELP = `usage: uiommu check [MACHINE] [--profile P] [--without RULE[,RULE]] [bounds] [--json]
       uiommu check --rules

Visits every state that drivers and programs can bring a small machine into, and checks the invariants in each: no kernel
DMA and user space in one group, two owners, memory that its owner did not map, and so on. What is done: probe (in two
steps), failed probe, unbind, driver_override, hot-add, hot-remove, reset; device nodes opened, bound, attached, replaced,
detached, also by PASID; group files, containers, an IOMMUFD as container; everything closed in any order; by several users.

If an invariant is broken, the shortest counterexample is printed. A rule can be switched off to see what it protects from:
that is how to try a change of the rules before it is made.

  MACHINE              ${BUILT_IN_MACHINES.map(({ name }) => name).join(', ')}, or a machine file, capture or
                       recording, of which one group is taken. Default: pair, two devices in one group
  --group N            which group of a machine. Default: the one with most devices
  --profile P          ${PROFILE_NAMES.join(', ')}. Default: linux
  --without RULE       switches rules off, by name
  --rules              shows all rules and invariants, and a counterexample for each rule when it is off

bounds:
  --users N            programs that compete, 1 to 4. Default: ${DEFAULT_BOUNDS.users}
  --ioases N           IOASes of each, 1 or 2. Default: ${DEFAULT_BOUNDS.ioases}
  --override           driver_override is a state of its own
  --no-hotplug         no hot-add and hot-remove
  --no-group-files     device nodes alone
  --max-states N       stop after N states. Default: 20,000,000
  --threads N          Default: as many as the computer has cores

Ctrl-C stops and says what was covered.

Exit status: 0 all invariants hold, 1 a counterexample was found, 2 wrong usage, 3 stopped before every state was visited.

examples:
  uiommu check                                             two devices, two users, as Linux 7.3 does it
  uiommu check --without claim-needs-no-kernel-dma         what that rule protects from
  uiommu check pair-direct                                 a weakness of Linux 7.3: docs/divergence.md
  uiommu check host.yaml --group 14 --profile subgroup
`;

const OPTIONS = {
  group: { type: 'string' },
  profile: { type: 'string' },
  without: { type: 'string', multiple: true },
  rules: { type: 'boolean' },
  users: { type: 'string' },
  ioases: { type: 'string' },
  override: { type: 'boolean' },
  'no-hotplug': { type: 'boolean' },
  'no-group-files': { type: 'boolean' },
  'max-states': { type: 'string' },
  threads: { type: 'string' },
  json: { type: 'boolean' },
} as const;

function numberOf(
  option: string,
  written: string | undefined,
  range: { readonly least: number; readonly most: number; readonly otherwise: number },
): number {
  if (written === undefined) return range.otherwise;
  const value = Number(written);
  if (Number.isInteger(value) && value >= range.least && value <= range.most) return value;
  throw new UsageError(
    `--${option} ${written}: expected a whole number from ${range.least} to ${range.most}`,
  );
}

function count(number: number): string {
  return number.toLocaleString('en-US');
}

/** One line on standard error, rewritten on a terminal, every few seconds elsewhere. */
function reporter(stream: NodeJS.WriteStream): {
  step(now: { readonly states: number; readonly expanded: number }): void;
  end(): void;
} {
  const start = Date.now();
  const every = stream.isTTY ? 200 : 5000;
  let shown = start;
  let dirty = false;
  return {
    step({ states, expanded }) {
      const now = Date.now();
      if (now - shown < every) return;
      shown = now;
      const rate = Math.round(expanded / Math.max(1, now - start)) * 1000;
      const line = `check: ${count(states)} states found, ${count(expanded)} visited, ${count(rate)} a second`;
      dirty = stream.isTTY;
      stream.write(stream.isTTY ? `\r${line}\u001b[K` : `${line}\n`);
    },
    end() {
      if (dirty) stream.write('\r\u001b[K');
    },
  };
}

async function runOne(
  task: Task,
  limits: { readonly threads: number; readonly maxStates: number },
): Promise<Outcome & { readonly seconds: number }> {
  const interrupt = new AbortController();
  const onSignal = (): void => {
    interrupt.abort();
  };
  process.once('SIGINT', onSignal);
  const report = reporter(process.stderr);
  const start = Date.now();
  try {
    const outcome = await explore(task, {
      ...limits,
      signal: interrupt.signal,
      progress: (now) => {
        report.step(now);
      },
    });
    return { ...outcome, seconds: (Date.now() - start) / 1000 };
  } finally {
    report.end();
    process.off('SIGINT', onSignal);
  }
}

function tellOutcome(task: Task, outcome: Outcome & { readonly seconds: number }): string {
  const { states, expanded, steps, seconds, story } = outcome;
  const off = task.rulesOff.length === 0 ? '' : `, without ${task.rulesOff.join(', ')}`;
  const head = `${task.machine.name}, profile ${task.profile}${off}`;
  const cost = `${count(steps)} steps, ${seconds.toFixed(1)} s, ${(outcome.memory / 2 ** 20).toFixed(0)} MiB of states`;
  const covered: Readonly<Record<Outcome['end'], string>> = {
    whole: `all ${count(states)} states visited, ${INVARIANT_COUNT} invariants hold in each`,
    counterexample: `counterexample after ${count(expanded)} of ${count(states)} states`,
    limit: `stopped at the limit: ${count(expanded)} of ${count(states)} states found were visited, nothing wrong in them`,
    interrupted: `interrupted: ${count(expanded)} of ${count(states)} states found were visited, nothing wrong in them`,
  };
  const lines = [`${head}: ${covered[outcome.end]} (${cost})`, `  bounds: ${describeBounds(task)}`];
  if (story !== undefined) {
    lines.push(...story.steps.map((step, i) => `  ${String(i + 1).padStart(2)}. ${step}`));
    lines.push(`  => ${story.end}`);
  }
  return `${lines.join('\n')}\n`;
}

const STATUS: Readonly<Record<Outcome['end'], number>> = {
  whole: 0,
  counterexample: 1,
  limit: 3,
  interrupted: 3,
};

async function showRules(limits: {
  readonly threads: number;
  readonly maxStates: number;
}): Promise<number> {
  print('Invariants, looked for in every state:\n\n');
  for (const { name, demands } of INVARIANTS) {
    print(`  ${name.padEnd(24)} ${demands}\n`);
  }
  print('\nRules, each with what happens without it:\n');
  let silent = 0;
  for (const rule of RULE_NAMES) {
    const { machine, profile } = DEMONSTRATIONS[rule];
    const task: Task = {
      machine: checkMachine(machine, { profile }),
      profile,
      bounds: DEFAULT_BOUNDS,
      rulesOff: [rule],
    };
    const outcome = await runOne(task, limits);
    if (outcome.end !== 'counterexample') silent++;
    print(`\n${rule}: ${OWNERSHIP_RULES[rule]}\n${tellOutcome(task, outcome)}`);
  }
  return silent === 0 ? 0 : 1;
}

export const checkCommand: Command = {
  name: 'check',
  summary: 'visits every interleaving of drivers, claims and VFIO calls on a small machine',
  help: HELP,
  async run(args) {
    const { values, positionals } = parseOptions('check', args, OPTIONS);
    if (positionals.length > 1) {
      throw new UsageError(`check takes one machine, not ${positionals.join(' and ')}`);
    }
    const limits = {
      threads: numberOf('threads', values.threads, {
        least: 1,
        most: 64,
        otherwise: availableParallelism(),
      }),
      maxStates: numberOf('max-states', values['max-states'], {
        least: 1,
        most: 1e9,
        otherwise: 20_000_000,
      }),
    };
    if (values.rules === true) return showRules(limits);
    const group = values.group === undefined ? undefined : groupNumber(values.group);
    const profile = chosenProfile(values.profile);
    const task: Task = {
      machine: checkMachine(positionals[0] ?? 'pair', { group, profile }),
      profile,
      bounds: {
        users: numberOf('users', values.users, { least: 1, most: 4, otherwise: 2 }),
        ioases: numberOf('ioases', values.ioases, { least: 1, most: 2, otherwise: 2 }),
        override: values.override ?? false,
        hotplug: values['no-hotplug'] !== true,
        groupFiles: values['no-group-files'] !== true,
      },
      rulesOff: (values.without ?? [])
        .flatMap((list) => list.split(','))
        .map((name) => oneOf('--without', name, RULE_NAMES)),
    };
    const outcome = await runOne(task, limits);
    print(
      values.json === true
        ? `${JSON.stringify({ ...task, ...outcome }, undefined, 2)}\n`
        : tellOutcome(task, outcome),
    );
    return STATUS[outcome.end];
  },
};

function groupNumber(written: string): number {
  return numberOf('group', written, { least: 0, most: 0x7fff_ffff, otherwise: 0 });
}
