/** Recordings of abifuzz: blocks of lines, each begun by `== seed N`, one line an operation. */

export type Recording = ReadonlyMap<number, readonly string[]>;

/** A block that was cut off in the middle stays as it is. */
export function parseRecording(text: string): Recording {
  const seeds = new Map<number, string[]>();
  let block: string[] | undefined;
  for (const line of text.split('\n')) {
    const begun = /^== seed (\d+)$/.exec(line);
    if (begun !== null) {
      block = [];
      seeds.set(Number(begun[1]), block);
    } else if (line !== '') {
      block?.push(line);
    }
  }
  return seeds;
}

/** Seeds in stretches without gaps: [first, last] each, ascending. */
export function stretches(seeds: Iterable<number>): [number, number][] {
  const found: [number, number][] = [];
  for (const seed of [...seeds].sort((a, b) => a - b)) {
    const last = found.at(-1);
    if (last !== undefined && seed === last[1] + 1) last[1] = seed;
    else found.push([seed, seed]);
  }
  return found;
}

export type Difference = {
  /** position of the line within its seed, from 0 */
  readonly line: number;
  /** undefined: the recording ends before it */
  readonly recorded: string | undefined;
  /** undefined: ours ends before it */
  readonly ours: string | undefined;
};

/** @returns undefined if both are identical */
export function firstDifference(
  recorded: readonly string[],
  ours: readonly string[],
): Difference | undefined {
  const length = Math.max(recorded.length, ours.length);
  for (let line = 0; line < length; line++) {
    if (recorded[line] !== ours[line]) {
      return { line, recorded: recorded[line], ours: ours[line] };
    }
  }
  return undefined;
}

// Every line is one ioctl, save this one.
const isIoctl = (line: string): boolean => !line.startsWith('reopen ');

/** How many ioctls lines of a recording tell of. */
export function countIoctls(lines: readonly string[]): number {
  return lines.filter(isIoctl).length;
}

/**
 * Which ioctl of the seed a line tells of.
 * @returns its position among the ioctls of the seed, from 0; undefined for a line that tells of none
 */
export function ioctlOfLine(lines: readonly string[], line: number): number | undefined {
  const text = lines[line];
  if (text === undefined || !isIoctl(text)) return undefined;
  return countIoctls(lines.slice(0, line));
}
