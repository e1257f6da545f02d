/**
 * The calls that were received and have no answer yet, in memory that another process can read: the guard's way to their
 * callers, who would wait for ever once this process has gone (guard.ts).
 *
 * A page of entries of 16 bytes: ID of the notification, thread, unused. It begins with the struct seccomp_notif of the call
 * received last, whose first bytes are such an entry, and whose others are the ID of no call. An ID that is zero or whose
 * caller has gone means nothing, so entries need not be taken out at once.
 */
import { allocateShared } from './files.ts';

const SIZE = 4096;
const ENTRY = 4; // words
const NOTIF = 20; // words of struct seccomp_notif

export class OpenCalls {
  readonly #memory = allocateShared('uiommu-calls', SIZE);
  readonly #words = new Uint32Array(this.#memory.bytes.buffer, 0, SIZE / 4);
  readonly #entries = new Map<string, number>();
  readonly #free: number[] = [];
  readonly #caller: (low: number, high: number) => boolean;

  /** @param callerWaits asked where there is no room */
  constructor(callerWaits: (low: number, high: number) => boolean) {
    this.#caller = callerWaits;
    for (let at = SIZE / 4 - ENTRY; at >= NOTIF; at -= ENTRY) this.#free.push(at);
  }

  /** The struct seccomp_notif of the call received last. */
  get request(): {
    readonly address: number;
    readonly words: Uint32Array;
    readonly view: DataView;
  } {
    const { address, view } = this.#memory;
    return { address, view, words: this.#words.subarray(0, NOTIF) };
  }

  /** The file that others can read all this from. */
  get fd(): number {
    return this.#memory.fd;
  }

  /** The call received last stays open while others are received. */
  keepRequest(): void {
    const [low = 0, high = 0, tid = 0] = this.#words;
    if (this.#free.length === 0) this.#sweep();
    const at = this.#free.pop();
    // More calls than the supervisor leaves open (pending.ts, suspended.ts).
    if (at === undefined) return;
    this.#words.set([low, high, tid], at);
    this.#entries.set(`${low}:${high}`, at);
  }

  /** A call has its answer, or is the one handled again. */
  drop(low: number, high: number): void {
    const at = this.#entries.get(`${low}:${high}`);
    if (at === undefined) return;
    this.#entries.delete(`${low}:${high}`);
    this.#words.fill(0, at, at + ENTRY);
    this.#free.push(at);
  }

  #sweep(): void {
    for (const at of [...this.#entries.values()]) {
      const [low = 0, high = 0] = this.#words.subarray(at, at + 2);
      if (!this.#caller(low, high)) this.drop(low, high);
    }
  }
}
