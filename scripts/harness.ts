/**
 * Programs built on the kernel's kselftest harness: which tests they have, and which of them run together. Each test runs in
 * a process of its own there, so that any of them may run without the others.
 */
import { spawnSync } from 'node:child_process';

const COLUMNS = [20, 25] as const;

/** One column of at least so many characters, then the rest. */
function column(text: string, width: number): [string, string] {
  const word = /^\S*/.exec(text)?.[0] ?? '';
  return [word, text.slice(Math.max(width, word.length) + 1)];
}

/**
 * The tests that a listing (option -l) names: columns for fixture, variant and test, of which the last two only stand beside
 * each other; each variant has each test.
 * @returns names as the harness gives them, FIXTURE.VARIANT.TEST or FIXTURE.TEST, in the order of their running
 */
export function parseListing(text: string): string[] {
  const fixtures: { name: string; variants: string[]; tests: string[] }[] = [];
  for (const line of text.split('\n')) {
    if (line === '' || /^(#|-{20})/.test(line)) continue;
    const [fixture, rest] = column(line, COLUMNS[0]);
    const [variant, test] = column(rest, COLUMNS[1]);
    if (fixture !== '') fixtures.push({ name: fixture, variants: [], tests: [] });
    const last = fixtures.at(-1);
    if (variant !== '') last?.variants.push(variant);
    if (test.trim() !== '') last?.tests.push(test.trim());
  }
  return fixtures.flatMap(({ name, variants, tests }) =>
    (variants.length === 0 ? [name] : variants.map((variant) => `${name}.${variant}`)).flatMap(
      (prefix) => tests.map((test) => `${prefix}.${test}`),
    ),
  );
}

/** The tests of a program; none where it cannot list them. */
export function listTests(program: string): string[] {
  const { stdout, stderr } = spawnSync(program, ['-l'], { encoding: 'utf8', timeout: 10_000 });
  return parseListing(`${stdout}\n${stderr}`);
}

/**
 * Shares tests out, as many to each part, neighbours to different ones: they are alike, and take the same time.
 * @param together those that must not run at the same time as each other: all are in the first part
 */
export function share(names: readonly string[], count: number, together: RegExp): string[][] {
  const parts = Array.from({ length: count }, () => ({
    tests: [] as string[],
    others: 0,
    room: 0,
  }));
  const [first] = parts;
  const kept = names.filter((name) => together.test(name)).length;
  for (const part of parts)
    part.room = Math.max(names.length / count - (part === first ? kept : 0), 0);
  for (const name of names) {
    const alone = together.test(name);
    const next = alone ? first : leastFilled(parts);
    next?.tests.push(name);
    if (next !== undefined && !alone) next.others++;
  }
  return parts.map(({ tests }) => tests).filter((tests) => tests.length > 0);
}

type Filling = { readonly tests: string[]; readonly others: number; readonly room: number };

const leastFilled = <T extends Filling>(parts: readonly T[]): T | undefined =>
  parts.reduce<T | undefined>((least, part) => {
    const filled = (part.others + 1) / part.room;
    return least === undefined || filled < (least.others + 1) / least.room ? part : least;
  }, undefined);
