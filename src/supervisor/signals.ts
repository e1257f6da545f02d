/**
 * Signals sent to uiommu while a program runs. What asks for an end (TERM, HUP) goes to every process of the run, the rest to
 * the main program; what the terminal sends (INT, QUIT), it sends to the program itself, too, and is passed on only where
 * uiommu does not run in the foreground of one. A second TERM, some time after the first, ends uiommu, and the run by force.
 *
 * What it does not do: pass on WINCH, CONT and the stops, which come from the terminal; the signals of faults and limits;
 * those above 31, which Node cannot receive. The last end uiommu, and the guard ends the run.
 */
import { readdirSync } from 'node:fs';
import { constants } from 'node:os';

import { readText } from '../os/files.ts';
import { signalPid } from '../os/process.ts';
import { threadStatus } from './process-table.ts';

/** Whom signals are meant for. */
export type Recipients = {
  /** the main program, while it lives */
  main(): number | undefined;
  /** The process that does not belong to the run, though it is a child. */
  guard(): number | undefined;
  /** Ends uiommu itself. */
  end(): void;
};

const SIGKILL = 9;
// timeout(1) sends TERM twice at once, to its child and to the group. That is one request.
const SECOND_REQUEST = 1000; // milliseconds

const TO_MAIN: readonly NodeJS.Signals[] = [
  'SIGUSR1',
  'SIGUSR2',
  'SIGALRM',
  'SIGVTALRM',
  'SIGPROF',
  'SIGIO',
  'SIGURG',
  'SIGPWR',
];
const OF_THE_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];

/**
 * Passes signals on from now.
 * @returns ends that
 */
export function passSignals(run: Recipients): () => void {
  const handlers = new Map<NodeJS.Signals, () => void>();
  const toMain = (name: NodeJS.Signals): void => {
    const pid = run.main();
    if (pid !== undefined) signalPid(pid, constants.signals[name]);
  };
  for (const name of TO_MAIN) {
    handlers.set(name, () => {
      toMain(name);
    });
  }
  for (const name of OF_THE_TERMINAL) {
    handlers.set(name, () => {
      if (!inForeground()) toMain(name);
    });
  }
  handlers.set('SIGHUP', () => {
    signalRun(run.guard(), constants.signals.SIGHUP);
  });
  let asked: number | undefined;
  handlers.set('SIGTERM', () => {
    const now = performance.now();
    asked ??= now;
    if (asked === now) signalRun(run.guard(), constants.signals.SIGTERM);
    else if (now - asked >= SECOND_REQUEST) run.end();
  });
  // What main set until now: a program is there to receive it from now on.
  process.removeAllListeners('SIGUSR1');
  for (const [signal, handler] of handlers) process.on(signal, handler);
  return () => {
    for (const [signal, handler] of handlers) process.off(signal, handler);
  };
}

/** Ends all processes of the run. */
export function killRun(guard: number | undefined): void {
  signalRun(guard, SIGKILL);
}

function signalRun(guard: number | undefined, signal: number): void {
  for (const pid of descendants(process.pid)) if (pid !== guard) signalPid(pid, signal);
}

/** The terminal's own signals go to us, and to what runs in our process group. */
function inForeground(): boolean {
  const text = readText('/proc/self/stat') ?? '';
  const [, , group, , , foreground] = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return group !== undefined && group === foreground;
}

/** Processes that were started by `pid`, by what they started, and so on. */
function descendants(pid: number): number[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync('/proc')) {
    const status = /^\d+$/.test(name) ? threadStatus(Number(name)) : undefined;
    if (status === undefined) continue;
    children.set(status.parent, [...(children.get(status.parent) ?? []), status.pid]);
  }
  const found: number[] = [];
  for (let level = children.get(pid) ?? []; level.length > 0;) {
    found.push(...level);
    level = level.flatMap((each) => children.get(each) ?? []);
  }
  return found;
}
