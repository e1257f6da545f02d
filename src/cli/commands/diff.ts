/** `uiommu diff A B`: two machines or captures, what moved. */
import { diffMachines, type Difference } from '../../explain/diff.ts';
import { GroupView } from '../../iommu/group-view.ts';
import { readHost } from '../../host/read-host.ts';
import type { Machine } from '../../machine/machine.ts';
import { UsageError, type Command } from '../command.ts';
import { machineFrom } from '../machine-argument.ts';
import { chosenProfile, parseOptions } from '../options.ts';
import { chosenStyle, type Style } from '../style.ts';
import { print } from '../output.ts';

const HELP = `usage: uiommu diff [--profile P] [--json] [--color WHEN] A [B]

Compares two machines: machine files, captures, recordings or built-in machines; "host" is this computer, and stands for a
B that is left out. Devices are known again by what they are and by their slots, so a card that only got another address
is "moved", not gone and new. Groups are compared by their members, not by their number.

  --profile P      linux (default), singleton, shared, subgroup, strict-acs
  --json           as JSON
  --color WHEN     auto, always, never

Exit status: 0 no difference, 1 there are some, 2 wrong usage or input.

examples:
  uiommu diff host.yaml              what changed since the capture
  uiommu diff old.yaml new.yaml
`;

const SIGNS: Readonly<Record<Difference['kind'], string>> = {
  added: '+',
  removed: '-',
  moved: '>',
  driver: '~',
  acs: '~',
  group: '*',
  renumbered: '#',
};

function machineOf(written: string | undefined): Machine {
  return written === undefined || written === 'host' ? readHost() : machineFrom(written);
}

function paint({ kind }: Difference, line: string, style: Style): string {
  if (kind === 'added') return style.good(line);
  if (kind === 'removed') return style.bad(line);
  return kind === 'group' ? style.warn(line) : line;
}

export const diffCommand: Command = {
  name: 'diff',
  summary: 'compare two machines or captures: what moved',
  help: HELP,
  run(args) {
    const { values, positionals } = parseOptions('diff', args, {
      json: { type: 'boolean' },
      color: { type: 'string' },
      profile: { type: 'string' },
    });
    const [first, second, ...rest] = positionals;
    if (first === undefined || rest.length > 0) {
      throw new UsageError('diff needs two machines, A and B (B left out: this computer)');
    }
    const profile = chosenProfile(values.profile);
    const style = chosenStyle(values.color);
    const before = new GroupView(machineOf(first), profile);
    const after = new GroupView(machineOf(second), profile);
    const differences = diffMachines(before, after);
    if (values.json === true) {
      print(`${JSON.stringify(differences, null, 2)}\n`);
    } else {
      const lines = differences.map((one) =>
        paint(one, `${SIGNS[one.kind]} ${one.sentence}`, style),
      );
      const head = `${before.machine.name} → ${after.machine.name}: `;
      const count = differences.length;
      print(
        `${[style.bold(head + (count === 0 ? 'no difference' : `${count} differences`)), ...lines].join('\n')}\n`,
      );
    }
    return differences.length === 0 ? 0 : 1;
  },
};
