/**
 * What a program built on the kernel's kselftest harness says: TAP lines on standard output, assertions that failed as
 * comments in between.
 */

export type TestResult = {
  readonly name: string;
  readonly outcome: 'pass' | 'fail' | 'skip';
  /** the assertions that failed, or why it was skipped */
  readonly reasons: readonly string[];
};

export type Report = {
  readonly results: readonly TestResult[];
  /** how many the program planned to run; undefined before it said so */
  readonly planned: number | undefined;
  /** the test that had begun and not ended */
  readonly running: string | undefined;
};

const RESULT = /^(not ok|ok) \d+ (\S+)(?: # (SKIP|XFAIL|XPASS)\s*(.*))?/;

/** @param output of the program, both streams in the order of writing, complete or cut off anywhere */
export function parseTap(output: string): Report {
  const results: TestResult[] = [];
  let planned: number | undefined;
  let running: string | undefined;
  let reasons: string[] = [];
  for (const line of output.split('\n')) {
    const plan = /^1\.\.(\d+)/.exec(line);
    if (plan !== null) planned = Number(plan[1]);
    const begun = /^#\s+RUN\s+(\S+)/.exec(line);
    if (begun !== null) {
      running = begun[1];
      reasons = [];
      continue;
    }
    const result = RESULT.exec(line);
    if (result === null) {
      if (/^# \S+\.[ch]:\d+:|^# .*(terminated|timed out|signal)/.test(line)) {
        reasons.push(line.slice(2));
      }
      continue;
    }
    const [, ok, name = '', directive, why = ''] = result;
    const outcome = directive === 'SKIP' ? 'skip' : ok === 'ok' ? 'pass' : 'fail';
    results.push({ name, outcome, reasons: outcome === 'skip' ? [why] : reasons });
    running = undefined;
    reasons = [];
  }
  return { results, planned, running };
}

export type Tally = { readonly pass: number; readonly fail: number; readonly skip: number };

/** Tests that never ended count as failed. */
export function tally({ results, planned }: Report): Tally {
  const count = (outcome: TestResult['outcome']): number =>
    results.filter((result) => result.outcome === outcome).length;
  const lost = Math.max(0, (planned ?? results.length) - results.length);
  return { pass: count('pass'), fail: count('fail') + lost, skip: count('skip') };
}
