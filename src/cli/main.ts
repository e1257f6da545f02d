/** The command line: finds the subcommand, shows help, turns wrong usage into one message and exit status 2. */
import { readFileSync } from 'node:fs';
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
  [
    'completion',
    async () => (await import('./commands/completion.ts')).completionCommand(allCommands),
  ],
];

/** Every command, in the order of the overview. */
export function allCommands(): Promise<Command[]> {
  return Promise.all(COMMANDS.map(([, load]) => load()));
}

/** The version of the package that this command is part of. */
export function packageVersion(): string {
  // dist/src/cli in a clone, dist/lib in the package
  for (const up of ['../../../package.json', '../../package.json']) {
    try {
      const text = readFileSync(new URL(up, import.meta.url), 'utf8');
      const { name, version } = JSON.parse(text) as { name?: string; version?: string };
      if (name === 'uiommu' && version !== undefined) return version;
    } catch {
      // not there: the other one is
    }
  }
  return 'unknown';
}

async function overview(): Promise<string> {
  const commands = await allCommands();
  const width = Math.max(4, ...commands.map(({ name }) => name.length));
  const rows = commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'uiommu: IOMMU groups, DMA ownership, IOMMUFD and VFIO of Linux, in user space',
    '',
    'usage: uiommu COMMAND [ARGUMENTS]',
    '',
    ...rows,
    '',
    'Run `uiommu help COMMAND` for details; `uiommu --version` shows the version.',
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
  try {
    return await dispatch(args);
  } catch (error) {
    if (!(error instanceof UiommuError)) throw error;
    complain(`uiommu: ${error.message}\n`);
    return error.code === 'UNSUPPORTED' ? UNSUPPORTED : WRONG_USAGE;
  }
}

async function dispatch([name, ...rest]: readonly string[]): Promise<number> {
  if (name === undefined || name === '--help' || name === '-h' || (name === 'help' && !rest[0])) {
    print(await overview());
    return name === undefined ? WRONG_USAGE : 0;
  }
  if (name === '--version' || name === '-V') {
    print(`uiommu ${packageVersion()}\n`);
    return 0;
  }
  const command = await find(name === 'help' ? (rest[0] ?? '') : name);
  const own = rest.slice(0, rest.includes('--') ? rest.indexOf('--') : rest.length);
  if (name === 'help' || own.includes('--help')) {
    print(command.help);
    return 0;
  }
  return command.run(rest);
}
