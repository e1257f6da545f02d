/** The command line: finds the subcommand, shows help, turns wrong usage into one message and exit status 2. */
import { UsageError, type Command } from './command.ts';
import { captureCommand } from './commands/capture.ts';
import { diffCommand } from './commands/diff.ts';
import { lsCommand } from './commands/ls.ts';
import { runCommand } from './commands/run.ts';
import { whyCommand } from './commands/why.ts';

const COMMANDS: readonly Command[] = [
  runCommand,
  lsCommand,
  whyCommand,
  diffCommand,
  captureCommand,
];

function overview(): string {
  const width = Math.max(4, ...COMMANDS.map(({ name }) => name.length));
  const rows = COMMANDS.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'uiommu: IOMMU groups, DMA ownership, IOMMUFD and VFIO of Linux, in user space',
    '',
    'usage: uiommu COMMAND [ARGUMENTS]',
    '',
    ...rows,
    '',
    'uiommu help COMMAND tells more.',
    '',
  ].join('\n');
}

function find(name: string): Command {
  const command = COMMANDS.find((candidate) => candidate.name === name);
  if (command === undefined) {
    const names = COMMANDS.map((candidate) => candidate.name).join(', ');
    throw new UsageError(`unknown command "${name}"; there are: ${names}`);
  }
  return command;
}

/**
 * Runs one command line.
 * @param args what follows the program's name
 * @returns the exit status
 */
export async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  try {
    if (name === undefined || name === '--help' || name === '-h' || (name === 'help' && !rest[0])) {
      process.stdout.write(overview());
      return name === undefined ? 2 : 0;
    }
    const command = find(name === 'help' ? (rest[0] ?? '') : name);
    const own = rest.slice(0, rest.includes('--') ? rest.indexOf('--') : rest.length);
    if (name === 'help' || own.includes('--help')) {
      process.stdout.write(command.help);
      return 0;
    }
    return await command.run(rest);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`uiommu: ${error.message}\n`);
    return 2;
  }
}
