/** Command-line options: parsed by Node, wrong ones answered with the nearest right one. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { nearestWord } from '../base/nearest.ts';
import { PROFILE_NAMES, type ProfileName } from '../iommu/profile.ts';
import { UsageError } from './command.ts';

type Options = NonNullable<ParseArgsConfig['options']>;
type Parsed<T extends Options> = ReturnType<
  typeof parseArgs<{ args: string[]; options: T; allowPositionals: true; strict: true }>
>;

/** Options that every command about a machine has. */
export const MACHINE_OPTIONS = {
  machine: { type: 'string', short: 'm' },
  host: { type: 'boolean' },
  json: { type: 'boolean' },
  color: { type: 'string' },
  profile: { type: 'string' },
} as const satisfies Options;

/** Parses `args`; a wrong one is a UsageError. */
export function parseOptions<T extends Options>(
  command: string,
  args: readonly string[],
  options: T,
): Parsed<T> {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const wrong = /'(-{1,2}[\w-]+)/.exec(message)?.[1];
    const close =
      wrong === undefined
        ? undefined
        : nearestWord(
            wrong,
            Object.keys(options).map((name) => `--${name}`),
          );
    const hint = close === undefined || close === wrong ? '' : `; did you mean ${close}?`;
    const first = message.split('. ')[0] ?? message;
    throw new UsageError(`${command}: ${first}${hint} (uiommu help ${command} shows all options)`);
  }
}

/** The value of an option that takes one of some names; another one is a UsageError. */
export function oneOf<T extends string>(option: string, written: string, names: readonly T[]): T {
  const found = names.find((name) => name === written);
  if (found !== undefined) return found;
  const close = nearestWord(written, names);
  const hint = close === undefined ? '' : `; did you mean ${close}?`;
  throw new UsageError(`${option} ${written} is none of ${names.join(', ')}${hint}`);
}

/** `--profile`: the same names for every command. */
export function chosenProfile(written = 'linux'): ProfileName {
  return oneOf('--profile', written, PROFILE_NAMES);
}
