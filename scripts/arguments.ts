/** Arguments of the scripts: what is wrong with one is said in one line, with exit status 2. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import type { Recording } from './recording.ts';

/** Says what is wrong with the arguments, and ends the script. */
export function refuse(script: string, complaint: string): never {
  console.error(`${script}: ${complaint}`);
  process.exit(2);
}

/** parseArgs, for whom a mistake is no error of the script. */
export function parseOptions<T extends ParseArgsConfig>(
  script: string,
  config: T,
): ReturnType<typeof parseArgs<T>> {
  try {
    return parseArgs(config);
  } catch (error) {
    return refuse(script, error instanceof Error ? error.message : String(error));
  }
}

/** A number above 0; `whole` for a count. */
export function numberOption(
  script: string,
  option: { readonly name: string; readonly text: string; readonly whole?: boolean },
): number {
  const { name, text, whole = false } = option;
  const value = text.trim() === '' ? NaN : Number(text);
  if (value > 0 && (whole ? Number.isSafeInteger(value) : Number.isFinite(value))) return value;
  return refuse(script, `--${name} takes a ${whole ? 'whole ' : ''}number above 0, not "${text}"`);
}

/**
 * The seeds of a recording that `--seeds` asks for: A or A-B; all of them without.
 */
export function chooseSeeds(
  script: string,
  recording: Recording,
  text: string | undefined,
): number[] {
  if (text === undefined) return [...recording.keys()];
  const range = /^(\d+)(?:-(\d+))?$/.exec(text);
  if (range === null) return refuse(script, `--seeds takes A or A-B, not "${text}"`);
  const [first, last] = [Number(range[1]), Number(range[2] ?? range[1])];
  const chosen = [...recording.keys()].filter((seed) => seed >= first && seed <= last);
  if (chosen.length === 0) refuse(script, `no recording has a seed in ${text}`);
  return chosen;
}
