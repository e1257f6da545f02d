/**
 * The loop that receives calls and answers them: the only asynchronous place. One call is handled from its arrival to its
 * answer without a pause, so the engine never sees two at a time; one that begins an operation that ends later is parked
 * (pending.ts), and the next one is handled.
 *
 * The event loop wakes us for the first call; while calls keep coming we wait for the next one ourselves, a moment each time,
 * because going back to the event loop costs as much as a third of a call.
 */
import { PENDING, type Outcome } from '../base/answer-later.ts';
import { Errno } from '../base/errno.ts';
import { watchReadable, type Watch } from '../os/libc.ts';
import { isThreadOf } from '../os/process.ts';
import type { Listener } from '../os/seccomp.ts';
import { beginCall } from './call.ts';
import { CONTINUE, type Context } from './context.ts';
import type { Observer } from './trace/observer.ts';
import { SYSCALLS, type Syscall } from './syscalls/table.ts';

const PATIENCE = 2; // milliseconds
const BURST = 4096; // calls, after which timers and signals get their turn

export type LoopEnd = {
  /** No process is left that runs under the filter. */
  hangup(): void;
  /** The engine threw something that is no Errno. */
  broken(error: unknown, what: string): void;
};

function forget(current: Context['current']): void {
  current.call = undefined;
  current.opened = undefined;
}

export class NotifyLoop {
  readonly #context: Context;
  readonly #listener: Listener;
  readonly #observer: Observer | undefined;
  readonly #end: LoopEnd;
  #watch: Watch | undefined;
  #abandoned = false;

  constructor(context: Context, observer: Observer | undefined, end: LoopEnd) {
    this.#context = context;
    this.#listener = context.listener;
    this.#observer = observer;
    this.#end = end;
  }

  start(): void {
    this.#watch = watchReadable(this.#listener.fd, () => {
      this.#serve();
    });
  }

  /**
   * Leaves the calls of all clients unanswered from now on. The thread that started them is under the filter too, and could
   * not end without answers.
   */
  abandon(): void {
    this.#abandoned = true;
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
  }

  #serve(): void {
    for (let calls = 0; calls < BURST && this.#watch !== undefined; calls++) {
      switch (this.#listener.wait(PATIENCE)) {
        case 'call':
          if (!this.#listener.receive()) break;
          // What happened before the call was ready when the wait for it ended: files that are gone, and processes whose
          // numbers may mean others by now.
          if (this.#listener.companionReady) this.collect();
          if (!this.#abandoned) this.#handle();
          else if (isThreadOf(process.pid, this.#listener.tid)) this.#listener.proceed();
          break;
        case 'companion':
          this.collect();
          break;
        case 'hangup':
          this.stop();
          this.#end.hangup();
          return;
        case 'nothing':
          return;
      }
    }
  }

  /** Takes in what happened besides calls: files released, processes ended. */
  collect(): void {
    const { files, processes } = this.#context;
    this.#release(() => {
      files.drain();
      // Told of a limited number at a time; each that has ended is not told of again.
      while (processes.processesEnded(files.events.ready()) > 0);
    });
  }

  // Releasing runs the engine too: a bug there ends the client and is reported, like one in a call.
  #release(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#end.broken(error, 'close');
    }
  }

  #handle(): void {
    const listener = this.#listener;
    this.#context.fdCache.called(listener.tid);
    const syscall = SYSCALLS.get(listener.nr);
    if (syscall === undefined) {
      listener.proceed();
      return;
    }
    const { current } = this.#context;
    const begin = current.observed ? process.hrtime.bigint() : 0n;
    forget(current);
    let outcome: Outcome;
    try {
      outcome = syscall.handle(this.#context);
      if (outcome === PENDING) this.#park(syscall, begin);
    } catch (error) {
      if (!(error instanceof Errno)) {
        this.#end.broken(error, current.call?.record?.call ?? syscall.name);
        return;
      }
      outcome = error;
    }
    current.call?.end();
    if (outcome === PENDING) return;
    this.#answer(outcome);
    this.#observe(syscall, begin)?.(outcome);
  }

  #answer(outcome: Outcome): void {
    const listener = this.#listener;
    if (outcome instanceof Errno) {
      listener.fail(outcome.number);
      if (this.#context.current.observed) this.#recognise();
    } else if (outcome === CONTINUE) listener.proceed();
    else listener.answer(outcome);
  }

  // The description of the call is kept: others are handled before it ends.
  #park(syscall: Syscall, begin: bigint): void {
    const { call, arguments: args } = this.#context.current;
    const ended = this.#observe(syscall, begin);
    this.#context.pending.park(
      (outcome, delivered) => ended?.(outcome, !delivered),
      (why) => {
        if (call === undefined) return;
        const { record, pid, tid } = call;
        this.#observer?.waiting({
          ...record,
          pid,
          tid,
          syscall: syscall.name,
          arguments: args,
          why,
        });
      },
    );
  }

  // A path may be refused before anything else is known of the call.
  #recognise(): void {
    if (this.#context.current.call !== undefined) return;
    try {
      beginCall(this.#context, undefined, () => []);
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
    }
  }

  /**
   * Describes the call that is being handled, now or later.
   * @param begin when it arrived
   * @returns passes it on with its outcome; undefined where it is not observed
   */
  #observe(
    { name }: Syscall,
    begin: bigint,
  ): ((outcome: Outcome, callerGone?: boolean) => void) | undefined {
    const { call, arguments: args, opened } = this.#context.current;
    const observer = this.#observer;
    if (observer === undefined || call === undefined) return undefined;
    return (outcome, callerGone = false) => {
      const refusal = outcome instanceof Errno ? outcome : undefined;
      observer.call({
        ...call.record,
        pid: call.pid,
        tid: call.tid,
        syscall: name,
        arguments: args,
        result: outcome instanceof Errno ? -1 : outcome,
        ...(opened === undefined || refusal !== undefined ? {} : { opened }),
        ...(refusal === undefined ? {} : { error: refusal.code, reason: refusal.message }),
        microseconds: Number(process.hrtime.bigint() - begin) / 1000,
        ...(callerGone ? { callerGone } : {}),
      });
    };
  }
}
