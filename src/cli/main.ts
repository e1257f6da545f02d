/** The command line: finds the subcommand, shows help, turns wrong usage into one message and exit status 2. */
import { UiommuError } from '../base/error.ts';
import { UsageError, type Command } from './command.ts';
import { complain, print } from './output.ts';

const WRONG_USAGE = 2;
// As env, timeout and container tools say that they failed themselves.
const UNSUPPORTED = 125;

// Loaded when asked for: what the other commands need would be most of the start-up of `run`.
const COMMANDS: readonly (readonly [name: string, load: () => Promise<Command>])[] = [
  ['run', async () => (await import('./commands/run.ts')).runCommand],
  ['ls', async () => (await import('./commands/ls.ts')).lsCommand],
  ['why', async () => (await import('./commands/why.ts')).whyCommand],
  ['diff', async () => (await import('./commands/diff.ts')).diffCommand],
  ['capture', async () => (await import('./commands/capture.ts')).captureCommand],
  ['check', async () => (await import('./commands/check.ts')).checkCommand],
];

async function overview(): Promise<string> {
  const commands = await Promise.all(COMMANDS.map(([, load]) => load()));
  const width = Math.max(4, ...commands.map(({ name }) => name.length));
  const rows = commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'uiommu: IOMMU groups, DMA ownership, IOMMUFD and VFIO of Linux, in user space',
    '',
    'usage: uiommu COMMAND [ARGUMENTS]',
    '',
    ...rows,
    '',
    'Run `uiommu help COMMAND` for details.',
    '',
  ].join('\n');
}

async function find(name: string): Promise<Command> {
  const command = COMMANDS.find(([candidate]) => candidate === name);
  if (command === undefined) {
    const names = COMMANDS.map(([candidate]) => candidate).join(', ');
    throw new UsageError(`unknown command "${name}"; there are: ${names}`);
  }
  return command[1]();
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
      print(await overview());
      return name === undefined ? 2 : 0;
    }
    const command = await find(name === 'help' ? (rest[0] ?? '') : name);
    const own = rest.slice(0, rest.includes('--') ? rest.indexOf('--') : rest.length);
    if (name === 'help' || own.includes('--help')) {
      print(command.help);
      return 0;
    }
    return await command.run(rest);
  } catch (error) {
    if (!(error instanceof UiommuError)) throw error;
    complain(`uiommu: ${error.message}
`);
    return error.code === 'UNSUPPORTED' ? UNSUPPORTED : WRONG_USAGE;
  }
}
