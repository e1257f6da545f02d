/**
 * npm run check-field -- [DIR] [NN …]: runs field cases, machines and programs from public reports with what the reporter's Linux
 * did. DIR defaults to ../shared/field beside the repository (UIOMMU_SHARED names another place); NN are the first letters
 * of cases.
 *
 * NN-name.yaml with NN-name.expected lists groups, a line each, "GROUP: ADDRESS …": the same sets of members are wanted, the same
 * numbers too where a line says "numbers"; where one says "partial" there may be other groups. "why DEVICE has TEXT" and "why
 * DEVICE lacks TEXT" ask for words. NN-name.py or .c is run under `uiommu run` with the options of a "uiommu:" line in its head,
 * and prints exactly what NN-name.expected holds. Lines after "#" are comments.
 *
 * A program that fails at a call which uiommu does not have yet is named as not possible yet, with the calls. Closes with
 * `I of M as Linux`; exit status 0 if all are, or only those that are not possible yet are missing.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { refuse } from './arguments.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const UIOMMU = join(root, 'bin', 'uiommu.js');

export type Case = {
  /** "07-epyc-gpu-host-bridge" */
  readonly name: string;
  readonly folder: string;
  /** program to run; undefined for a machine whose groups are wanted */
  readonly source: string | undefined;
};

export type Outcome = {
  readonly differences: readonly string[];
  /** calls that uiommu does not have yet */
  readonly missing: readonly string[];
};

/** Field cases in a folder, by name. */
export function casesIn(folder: string): Case[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.expected'))
    .sort()
    .map((file) => {
      const name = file.slice(0, -'.expected'.length);
      const sources = ['.py', '.c'].map((ending) => join(folder, name + ending));
      return { name, folder, source: sources.find((path) => existsSync(path)) };
    });
}

export function runCase(field: Case): Outcome {
  const lines = readFileSync(join(field.folder, `${field.name}.expected`), 'utf8').split('\n');
  return field.source === undefined ? checkGroups(field, lines) : checkProgram(field, lines);
}

function uiommu(
  args: readonly string[],
  cwd: string,
): { out: string; err: string; status: number } {
  const result = spawnSync(process.execPath, [UIOMMU, ...args], { cwd, encoding: 'utf8' });
  return { out: result.stdout, err: result.stderr, status: result.status ?? 1 };
}

type Words = { readonly device: string; readonly wanted: boolean; readonly text: string };

/** What a file of groups wants. */
type Wanted = {
  readonly groups: ReadonlyMap<number, string>;
  readonly numbers: boolean;
  readonly partial: boolean;
  readonly words: readonly Words[];
};

const fullAddress = (address: string): string =>
  address.split(':').length === 3 ? address : `0000:${address}`;

/** Members of a group as one text, in order, so that two groups can be compared. */
const key = (members: readonly string[]): string => [...members].sort().join(' ');

export function parseExpected(lines: readonly string[]): Wanted {
  const groups = new Map<number, string>();
  const words: Words[] = [];
  const marks = new Set<string>();
  for (const raw of lines) {
    const line = (raw.split('#')[0] ?? '').trim();
    const asked = /^why (\S+) (has|lacks) (.*)$/.exec(line);
    const group = /^(\d+):(.*)$/.exec(line);
    if (asked !== null) {
      const [, device = '', verb, text = ''] = asked;
      words.push({ device, wanted: verb === 'has', text });
    } else if (group !== null) {
      const members = (group[2] ?? '').trim().split(/\s+/).filter(Boolean);
      groups.set(Number(group[1]), key(members.map(fullAddress)));
    } else if (line !== '') {
      marks.add(line);
    }
  }
  return { groups, words, numbers: marks.has('numbers'), partial: marks.has('partial') };
}

function checkGroups({ name, folder }: Case, lines: readonly string[]): Outcome {
  const machine = join(folder, `${name}.yaml`);
  const wanted = parseExpected(lines);
  const { out, err, status } = uiommu(['ls', '--json', '-m', machine], folder);
  if (status !== 0) return { differences: [`ls failed: ${err.trim()}`], missing: [] };
  const listed = JSON.parse(out) as { groups: { id: number; members: string[] }[] };
  const found = new Map(
    listed.groups
      .filter(({ members }) => members.length > 0)
      .map(({ id, members }) => [id, key(members)] as const),
  );
  const said = wanted.words.flatMap(({ device, wanted: has, text }) => {
    const answer = uiommu(['why', '-m', machine, device], folder).out;
    if (answer.includes(text) === has) return [];
    return [`why ${device} ${has ? 'lacks' : 'says'}: ${text}`];
  });
  return { differences: [...said, ...groupDifferences(wanted, found)], missing: [] };
}

export function groupDifferences(
  { groups, numbers, partial }: Pick<Wanted, 'groups' | 'numbers' | 'partial'>,
  found: ReadonlyMap<number, string>,
): string[] {
  if (numbers) {
    const ids = [...new Set([...groups.keys(), ...found.keys()])].sort((a, b) => a - b);
    return ids
      .filter((id) => groups.get(id) !== found.get(id))
      .map((id) => `group ${id}: Linux ${groups.get(id) ?? '-'}, uiommu ${found.get(id) ?? '-'}`);
  }
  const [linux, own] = [new Set(groups.values()), new Set(found.values())];
  const without = (these: ReadonlySet<string>, those: ReadonlySet<string>): string[] =>
    [...these].filter((members) => !those.has(members)).sort();
  return [
    ...without(linux, own).map((members) => `Linux only: ${members}`),
    ...(partial ? [] : without(own, linux).map((members) => `uiommu only: ${members}`)),
  ];
}

const HEAD = 2000;
const STDERR_SHOWN = 400;

function checkProgram({ name, folder, source = '' }: Case, lines: readonly string[]): Outcome {
  const scratch = mkdtempSync(join(tmpdir(), 'uiommu-field-'));
  try {
    const program = source.endsWith('.c')
      ? compile(source, join(scratch, name))
      : ['python3', source];
    const head = readFileSync(source, 'utf8').slice(0, HEAD);
    const options = shellWords(/uiommu: (.*)/.exec(head)?.[1] ?? '');
    const trace = join(scratch, 'trace');
    const { out, err, status } = uiommu(
      ['run', `--trace=${trace}`, '--json', ...options, '--', ...program],
      folder,
    );
    const wanted = lines.filter((line) => !line.startsWith('#'));
    const differences = lineDifferences(withoutLast(wanted), withoutLast(out.split('\n')));
    if (status !== 0) differences.push(err.trim().slice(-STDERR_SHOWN));
    const missing = existsSync(trace) ? missingCalls(readFileSync(trace, 'utf8')) : [];
    return { differences, missing };
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

function compile(source: string, to: string): string[] {
  const { status, stderr } = spawnSync('cc', ['-O1', '-o', to, source], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${source} does not compile: ${stderr}`);
  return [to];
}

/** Splits as a shell does, quotes included. */
export function shellWords(text: string): string[] {
  return [...text.matchAll(/(?:[^\s"']|"[^"]*"|'[^']*')+/g)].map(([word]) =>
    word.replace(/"([^"]*)"|'([^']*)'/g, '$1$2'),
  );
}

/** The text after the last newline is not a line. */
function withoutLast(lines: readonly string[]): readonly string[] {
  return lines.at(-1) === '' ? lines.slice(0, -1) : lines;
}

function lineDifferences(wanted: readonly string[], found: readonly string[]): string[] {
  const count = Math.max(wanted.length, found.length);
  return Array.from({ length: count }, (_, index) => [wanted[index], found[index]] as const)
    .filter(([want, have]) => want !== have)
    .map(([want = '(nothing)', have = '(nothing)']) => `expected "${want}", got "${have}"`);
}

type TracedCall = { call?: string; syscall?: string; error?: string; reason?: string };

/** Calls of Linux that were refused because uiommu does not have them yet. */
export function missingCalls(trace: string): string[] {
  const names = trace
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as TracedCall)
    .filter(({ error, reason = '' }) => error !== undefined && NOT_YET.test(reason))
    .map(({ call, syscall = '' }) => call ?? syscall);
  return [...new Set(names)];
}

const NOT_YET = /\bnot supported\b|cannot be (?:read|written|mapped)/;

function defaultFolder(): string {
  return join(process.env['UIOMMU_SHARED'] ?? join(root, '..', 'shared'), 'field');
}

export function main(args: readonly string[]): number {
  const [first, ...rest] = args;
  const named = first !== undefined && existsSync(first);
  const folder = named ? first : defaultFolder();
  const chosen = named || first === undefined ? rest : args;
  if (!existsSync(folder)) {
    console.log(`skipped: field cases (there is no ${folder})`);
    return 0;
  }
  const cases = casesIn(folder).filter(
    ({ name }) => chosen.length === 0 || chosen.some((start) => name.startsWith(start)),
  );
  if (cases.length === 0) refuse('check-field', `there is no field case in ${folder} to run`);
  const results = cases.map(report);
  const good = results.filter((result) => result === 'ok').length;
  console.log(`${good} of ${cases.length} as Linux`);
  return results.includes('FAIL') ? 1 : 0;
}

/** Runs a case and prints what came of it. */
function report(field: Case): 'ok' | 'not yet' | 'FAIL' {
  const { differences, missing } = runCase(field);
  const impossible = differences.length > 0 && missing.length > 0;
  const result = differences.length === 0 ? 'ok' : impossible ? 'not yet' : 'FAIL';
  console.log(`${result.padEnd(7)}  ${field.name}`);
  if (impossible) console.log(`         not possible yet: ${missing.join(', ')}`);
  else for (const line of differences) console.log(`         ${line}`);
  return result;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  process.exitCode = main(process.argv.slice(2));
