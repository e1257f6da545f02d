/** What a run amounted to, for people who have not read the trace: calls by kind, refusals with their reasons, leftovers. */
import type { TimedCall, Observer } from './observer.ts';

const MOST_REFUSALS = 10;
/** Different ones that are kept; a program can make millions. Twice as many at times, and then the rare ones go. */
const MOST_KEPT = 1000;
/** of a reason, in characters */
const LONGEST_REASON = 500;

type Refusal = { readonly text: string; count: number };

/** Counts calls while a program runs. */
export class Summary implements Observer {
  readonly #calls = new Map<string, number>();
  readonly #refusals = new Map<string, Refusal>();
  readonly #processes = new Set<number>();
  /** refusals of which only the number is kept */
  #forgotten = 0;
  #opened = 0;
  #released = 0;

  call(event: TimedCall): void {
    this.#processes.add(event.pid);
    const name = event.call ?? event.syscall;
    this.#calls.set(name, (this.#calls.get(name) ?? 0) + 1);
    if (event.opened !== undefined) this.#opened++;
    if (event.error === undefined) return;
    const reason = (event.reason ?? 'no reason given').slice(0, LONGEST_REASON);
    const text = `${name}: ${event.error}, ${reason}`;
    const refusal = this.#refusals.get(text) ?? { text, count: 0 };
    refusal.count++;
    this.#refusals.set(text, refusal);
    if (this.#refusals.size > 2 * MOST_KEPT) this.#forgetRare();
  }

  #forgetRare(): void {
    for (const { text, count } of this.#byCount().slice(MOST_KEPT)) {
      this.#refusals.delete(text);
      this.#forgotten += count;
    }
  }

  #byCount(): Refusal[] {
    return [...this.#refusals.values()].sort((a, b) => b.count - a.count);
  }

  waiting(): void {
    // it is counted when it is answered
  }

  released(): void {
    this.#released++;
  }

  /**
   * The closing words.
   * @param leaks what was left behind
   */
  text(status: number, leaks: readonly string[]): string {
    const calls = [...this.#calls].sort(([, a], [, b]) => b - a);
    const total = calls.reduce((sum, [, count]) => sum + count, 0);
    const refused = this.#byCount();
    const refusedTotal = refused.reduce((sum, { count }) => sum + count, this.#forgotten);
    const shown = refused.slice(0, MOST_REFUSALS).map(({ text, count }) => {
      return `    ${count > 1 ? `${count} times ` : ''}${text}`;
    });
    const hidden = refused.length - shown.length;
    return [
      '',
      'uiommu: summary',
      `  the program ended with status ${status}${status > 128 ? ` (signal ${status - 128})` : ''}`,
      total === 0
        ? '  it made no call to the machine (it never touched /dev/iommu)'
        : `  ${plural(total, 'call')} to the machine, by ${plural(this.#processes.size, 'process', 'es')}:`,
      ...calls.map(([name, count]) => `    ${String(count).padStart(6)}  ${name}`),
      refusedTotal === 0
        ? '  none was refused'
        : `  ${plural(refusedTotal, 'call')} ${refusedTotal === 1 ? 'was' : 'were'} refused:`,
      ...shown,
      ...(hidden > 0
        ? [`    and ${plural(hidden, 'other reason')}${this.#forgotten > 0 ? ' or more' : ''}`]
        : []),
      `  ${plural(this.#opened, 'file')} opened, ${this.#released} closed`,
      leaks.length === 0 ? '  no leaks' : '  leaks:',
      ...leaks.map((leak) => `    ${leak}`),
      '',
    ].join('\n');
  }
}

function plural(count: number, noun: string, ending = 's'): string {
  return `${count} ${noun}${count === 1 ? '' : ending}`;
}
