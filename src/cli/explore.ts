/**
 * Drives an exploration: keeps the states, gives batches to the expanders, shows progress, stops on Ctrl-C.
 *
 * Small worlds are explored in this thread; once there are more states than a thread is worth, worker threads expand them, and this
 * one only keeps and compares. Batches may come back in any order, so that a counterexample is the shortest in its level only
 * if levels are kept apart: no batch of a level is sent before the previous level is done.
 */
import { Worker } from 'node:worker_threads';
import { worldOf, type Outcome, type Task } from '../check/exploration.ts';
import { Expander, Frontier, type Expansion } from '../check/explorer.ts';
import { explain } from '../check/trace.ts';

export type ExploreOptions = {
  /** worker threads; 1 for none */
  readonly threads: number;
  /** stop after this many states */
  readonly maxStates: number;
  /** called now and then */
  progress?(now: { readonly states: number; readonly expanded: number }): void;
  /** aborted: stop and say what was covered */
  readonly signal?: AbortSignal;
};

const BATCH = 1024;
/** Below this many states a thread costs more than it brings. */
const WORTH_THREADS = 20_000;

/** Something that expands batches, one after the other. */
type StateWorker = {
  expand(states: Uint32Array<ArrayBuffer>): Promise<Expansion>;
  close(): void;
};

function localWorker(task: Task): StateWorker {
  const expander = new Expander(worldOf(task));
  return {
    expand: async (states) => {
      // Lets signals and timers in between two batches.
      await new Promise((resolve) => setImmediate(resolve));
      return expander.expand(states);
    },
    close: () => undefined,
  };
}

function threadWorker(task: Task): StateWorker {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const worker = new Worker(new URL(`./check-worker.${extension}`, import.meta.url), {
    workerData: task,
  });
  return {
    expand: (states) =>
      new Promise((resolve, reject) => {
        worker.once('error', reject);
        worker.once('message', (expansion: Expansion) => {
          worker.off('error', reject);
          resolve(expansion);
        });
        worker.postMessage(states, [states.buffer]);
      }),
    close: () => void worker.terminate(),
  };
}

type Failure = { readonly index: number; readonly what: string };

class Exploration {
  readonly #task: Task;
  readonly #options: ExploreOptions;
  readonly #frontier: Frontier;
  #workers: StateWorker[];
  #steps = 0;
  #failure: Failure | undefined;

  constructor(task: Task, options: ExploreOptions) {
    this.#task = task;
    this.#options = options;
    const world = worldOf(task);
    this.#frontier = new Frontier(world.packing.words);
    this.#frontier.add(world.start(), 0, 0);
    this.#workers = [localWorker(task)];
  }

  async run(): Promise<Outcome> {
    try {
      let end: Outcome['end'] | undefined;
      while (end === undefined) {
        this.#startWorkers();
        await this.#level();
        end = this.#end();
      }
      return this.#outcome(end);
    } finally {
      for (const worker of this.#workers) worker.close();
    }
  }

  #startWorkers(): void {
    const { threads } = this.#options;
    if (threads < 2 || this.#workers.length > 1 || this.#frontier.count < WORTH_THREADS) return;
    this.#workers = Array.from({ length: threads }, () => threadWorker(this.#task));
  }

  // All states that were there when the level began; what they lead to is the next level.
  async #level(): Promise<void> {
    const last = this.#frontier.count;
    await Promise.all(this.#workers.map((worker) => this.#work(worker, last)));
  }

  async #work(worker: StateWorker, last: number): Promise<void> {
    while (!this.#mustStop() && this.#frontier.taken < last) {
      const batch = this.#frontier.take(Math.min(BATCH, last - this.#frontier.taken));
      if (batch === undefined) return;
      const expansion = await worker.expand(batch.states);
      this.#keep(batch.first, expansion);
      this.#options.progress?.({
        states: this.#frontier.count,
        expanded: this.#frontier.taken,
      });
    }
  }

  #mustStop(): boolean {
    const { signal, maxStates } = this.#options;
    return (
      this.#failure !== undefined || signal?.aborted === true || this.#frontier.count >= maxStates
    );
  }

  #keep(first: number, { successors, origins, failure, steps }: Expansion): void {
    const { words } = this.#frontier;
    this.#steps += steps;
    for (let i = 0; i < origins.length; i++) {
      this.#frontier.add(successors, i * words, first + (origins[i] ?? 0));
    }
    if (failure === undefined) return;
    const index = first + failure.at;
    if (this.#failure === undefined || index < this.#failure.index) {
      this.#failure = { index, what: failure.what };
    }
  }

  #end(): Outcome['end'] | undefined {
    if (this.#failure !== undefined) return 'counterexample';
    if (this.#options.signal?.aborted === true) return 'interrupted';
    if (this.#frontier.taken === this.#frontier.count) return 'whole';
    return this.#frontier.count >= this.#options.maxStates ? 'limit' : undefined;
  }

  #outcome(end: Outcome['end']): Outcome {
    const frontier = this.#frontier;
    const failure = this.#failure;
    return {
      states: frontier.count,
      expanded: frontier.taken,
      steps: this.#steps,
      memory: frontier.memory,
      end,
      story:
        failure && explain(() => worldOf(this.#task), frontier.path(failure.index), failure.what),
    };
  }
}

/** Explores until every state was visited, an invariant is broken, or the options say stop. */
export function explore(task: Task, options: ExploreOptions): Promise<Outcome> {
  return new Exploration(task, options).run();
}
