/**
 * The loop that receives calls and answers them: the only asynchronous place. One call is handled from its arrival to its
 * answer without a pause, so the engine never sees two at a time; one that begins an operation that ends later is parked
 * (pending.ts), and the next one is handled.
 *
 * A call that cannot go on is left in the middle, and begun again when its turn comes (turn.ts): every other one is answered
 * meanwhile.
 *
 * The event loop wakes us for the first call; while calls keep coming we wait for the next one ourselves, a moment each time,
 * because going back to the event loop costs as much as a third of a call.
 */
import { PENDING, type Outcome } from '../base/answer-later.ts';
import { Errno } from '../base/errno.ts';
import { closeFile } from '../os/files.ts';
import { writeLater } from '../os/later.ts';
import { watchReadable, type Watch } from '../os/libc.ts';
import type { Listener } from '../os/seccomp.ts';
import { beginCall } from './call.ts';
import { CONTINUE, type Context } from './context.ts';
import type { Observer } from './trace/observer.ts';
import { SuspendedCalls } from './suspended.ts';
import { SYSCALLS, type Syscall } from './syscalls/table.ts';
import { Turn } from './turn.ts';

const PATIENCE = 2; // milliseconds
const BURST = 4096; // calls, after which timers and signals get their turn
/** A call that was left in the middle gets at most half of the time while others come, in milliseconds each. */
const OTHERS_TURN = 2;

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
  /** {@link collect} is to be called soon */
  #collecting = false;
  readonly #suspended = new SuspendedCalls(() => {
    this.#serveSoon();
  });
  /** when one of the suspended calls last had its turn */
  #lastTurn = 0;

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

  /** Leaves the calls of all clients unanswered from now on. */
  abandon(): void {
    this.#abandoned = true;
  }

  stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
  }

  #serve(): void {
    for (let calls = 0; calls < BURST && this.#watch !== undefined; calls++) {
      const { anyReady } = this.#suspended;
      switch (this.#listener.wait(anyReady ? 0 : PATIENCE)) {
        case 'call':
          if (this.#listener.receive()) this.#received();
          if (anyReady && performance.now() - this.#lastTurn > OTHERS_TURN) this.#goOn();
          break;
        case 'companion':
          this.collect();
          break;
        case 'hangup':
          this.stop();
          this.#end.hangup();
          return;
        case 'nothing':
          if (!anyReady) return;
          this.#goOn();
          break;
      }
    }
    if (this.#suspended.anyReady && this.#watch !== undefined) this.#serveSoon();
  }

  #received(): void {
    // What happened before the call was ready when the wait for it ended: files that are gone, and processes whose
    // numbers may mean others by now.
    if (this.#listener.companionReady || this.#context.files.settling) this.collect();
    if (this.#abandoned) return;
    this.#handle(new Turn(this.#context.current.observed ? process.hrtime.bigint() : 0n));
  }

  // The event loop comes first, so that timers and signals have their turn.
  #serveSoon(): void {
    setImmediate(() => {
      this.#serve();
    });
  }

  /** Takes up the suspended call whose turn it is. */
  #goOn(): void {
    const call = this.#suspended.next();
    if (call === undefined || this.#abandoned) return;
    this.collect();
    if (this.#listener.resume(call.received)) call.goOn();
    this.#lastTurn = performance.now();
  }

  /** Takes in what happened besides calls: files released, processes ended. */
  collect(): void {
    const { files, processes, eventfds } = this.#context;
    this.#release(() => {
      files.drain();
      eventfds.collect();
      // Told of a limited number at a time; each that has ended is not told of again.
      while (processes.processesEnded(files.events.ready()) > 0);
    });
    if (files.settling) this.#collectSoon();
  }

  #collectSoon(): void {
    if (this.#collecting) return;
    this.#collecting = true;
    setTimeout(() => {
      this.#collecting = false;
      if (this.#watch !== undefined && !this.#abandoned) this.collect();
    }, 1);
  }

  // Releasing runs the engine too: a bug there ends the client and is reported, like one in a call.
  #release(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#end.broken(error, 'close');
    }
  }

  #handle(turn: Turn): void {
    const listener = this.#listener;
    this.#context.fdCache.called(listener.tid);
    const syscall = SYSCALLS.get(listener.nr);
    if (syscall === undefined) {
      listener.proceed();
      return;
    }
    const { current } = this.#context;
    const { began } = turn;
    forget(current);
    current.turn = turn;
    turn.begin();
    let outcome: Outcome;
    try {
      outcome = syscall.handle(this.#context);
      if (outcome === PENDING) this.#park(syscall, began);
    } catch (error) {
      if (!(error instanceof Errno)) {
        this.#end.broken(error, current.call?.record?.call ?? syscall.name);
        return;
      }
      outcome = error;
    }
    current.call?.end();
    if (outcome instanceof Errno && turn.again !== undefined) {
      if (this.#suspend(turn)) return;
      outcome = new Errno('EAGAIN', 'too many calls of this run wait for memory or names');
    }
    const written = this.#write(turn);
    if (outcome === PENDING) return;
    this.#context.files.followRegions();
    if (written === undefined) this.#answer(outcome);
    else this.#answerAfter(written, outcome);
    this.#observe(syscall, began)?.(outcome);
  }

  /** Leaves the call in the middle; false if too many are. */
  #suspend(turn: Turn): boolean {
    for (const { memory } of turn.posted.splice(0)) closeFile(memory);
    if (this.#suspended.full) return false;
    const goOn = (): void => {
      this.#handle(turn);
    };
    this.#suspended.add({ received: this.#listener.suspend(), goOn }, turn.again?.ready);
    return true;
  }

  /** What the call writes to memory that is not there yet; undefined if that is nothing. */
  #write({ posted }: Turn): Promise<boolean> | undefined {
    if (posted.length === 0) return undefined;
    return (async () => {
      let written = true;
      for (const { memory, address, bytes } of posted.splice(0)) {
        written = written && (await writeLater(memory, bytes, address));
        closeFile(memory);
      }
      return written;
    })();
  }

  /** Answers when what the call writes has reached the client; it is not undone if that fails. */
  #answerAfter(written: Promise<boolean>, outcome: Outcome): void {
    let reached = false;
    const goOn = (): void => {
      this.#answer(reached ? outcome : new Errno('EFAULT', 'the memory has gone meanwhile'));
    };
    this.#suspended.add(
      { received: this.#listener.suspend(), goOn },
      written.then((all) => (reached = all)),
    );
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
