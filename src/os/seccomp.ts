/**
 * seccomp user notification (include/uapi/linux/seccomp.h): the calls that install a filter, and the listener
 * through which its calls arrive and are answered. Waiting-killable notifications are required: without them a call that
 * a signal interrupts after its arrival is delivered twice under SA_RESTART, and a map would be done twice. Synchronous
 * wake-up is required too: without it an answer takes a scheduler tick in the bad case.
 */
import { allocate } from './arena.ts';
import { systemCall, type SystemCall } from './child.ts';
import { sys3 } from './libc.ts';
import { NR } from './numbers.ts';
import { OpenCalls } from './open-calls.ts';
import { UnsupportedError } from './unsupported.ts';

const PR_SET_NO_NEW_PRIVS = 38;
const SECCOMP_SET_MODE_FILTER = 1;
const FILTER_NEW_LISTENER = 8;
const FILTER_WAIT_KILLABLE_RECV = 32;
const FILTER_SIZE = 8;

const NOTIF_RECV = 0xc0502100;
const NOTIF_SEND = 0xc0182101;
const NOTIF_ID_VALID = 0x40082102;
const NOTIF_ADDFD = 0x40182103;
const NOTIF_SET_FLAGS = 0x40082104;
const SYNC_WAKE_UP = 1;
const RESPONSE_CONTINUE = 1;
const ADDFD_SETFD = 1;
const O_CLOEXEC = 0o2000000;

/** what the high half of a 64-bit word counts */
const WORD = 2 ** 32;

const POLLIN = 1;
const POLLHUP = 16;

const EPERM = 1;
const EINTR = 4;
const EBUSY = 16;
const EINVAL = 22;
const ENOSYS = 38;

/** What a filter's refusal by the kernel means. */
export function installError(errno: number): string {
  switch (errno) {
    case EBUSY:
      return 'this process already runs under a seccomp filter with a listener (another uiommu run, or a container manager); the kernel allows one in a chain, so start outside of it';
    case EINVAL:
      return 'the kernel lacks seccomp notifications that wait killably (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV); Linux 5.19 has them, 6.6 is needed in all';
    case ENOSYS:
    case EPERM:
      return `the kernel or the container does not allow seccomp filters (errno ${errno}); allow the system call seccomp(2)`;
    default:
      return `seccomp refuses the filter: errno ${errno}`;
  }
}

/**
 * The calls by which a process puts itself, and all that it starts from then on, under a filter. The last one answers the
 * listener's descriptor.
 * @param program assembled BPF
 */
export function filterCalls(program: Uint8Array): SystemCall[] {
  const code = allocate(program.length);
  code.bytes.set(program);
  const head = allocate(16);
  head.view.setUint16(0, program.length / FILTER_SIZE, true);
  head.view.setBigUint64(8, BigInt(code.address), true);
  const flags = FILTER_NEW_LISTENER | FILTER_WAIT_KILLABLE_RECV;
  return [
    systemCall(NR.prctl, [PR_SET_NO_NEW_PRIVS, 1]),
    systemCall(NR.seccomp, [SECCOMP_SET_MODE_FILTER, flags, head.address]),
  ];
}

/** How a file goes into the caller's table. */
export type FileOptions = {
  readonly cloexec: boolean;
  readonly at?: number | undefined;
};

/** A call as it was received. */
export type Received = Uint32Array;

/** A call, while its caller waits: low and high half of its ID. */
export type CallId = { readonly low: number; readonly high: number };

/**
 * Receives calls and answers them, one at a time: everything here is about the call received last, save what takes a
 * {@link CallId}.
 */
export class Listener {
  readonly fd: number;
  tid = 0;
  nr = 0;
  /** The companion had something to tell when {@link wait} last returned. */
  companionReady = false;
  #unanswered = false;
  readonly #open = new OpenCalls((low, high) => this.waits({ low, high }));
  readonly #request = this.#open.request;
  readonly #response = allocate(24);
  readonly #parked = allocate(24);
  readonly #addfd = allocate(24);
  readonly #pollfd = allocate(16);
  readonly #requestWords = this.#request.words;
  readonly #responseWords = new Int32Array(
    this.#response.bytes.buffer,
    this.#response.bytes.byteOffset,
    6,
  );

  /** File that says which calls have no answer yet (open-calls.ts). */
  get openCalls(): number {
    return this.#open.fd;
  }

  /** @param companion another descriptor whose readiness ends {@link wait} */
  constructor(fd: number, companion: number) {
    this.fd = fd;
    if (this.#ask(NOTIF_SET_FLAGS, SYNC_WAKE_UP) < 0) {
      throw new UnsupportedError(
        'the kernel lacks synchronous wake-up for seccomp notifications; Linux 6.6 or newer is needed',
      );
    }
    this.#pollfd.view.setInt32(0, fd, true);
    this.#pollfd.view.setInt16(4, POLLIN, true);
    this.#pollfd.view.setInt32(8, companion, true);
    this.#pollfd.view.setInt16(12, POLLIN, true);
  }

  /**
   * Waits for a call.
   * @param timeout in milliseconds
   * @returns what there is: a call, something on the companion, no user of the filter any more, or nothing
   */
  wait(timeout: number): 'call' | 'companion' | 'hangup' | 'nothing' {
    // Mostly the next call is there already: the kernel lets a client that is answered run at once, in our place. Asked
    // without waiting it says so in a third of the time.
    const { address } = this.#pollfd;
    if (sys3(NR.poll, address, 2, 0) <= 0 && sys3(NR.poll, address, 2, timeout) <= 0) {
      return 'nothing';
    }
    this.companionReady = this.#pollfd.view.getInt16(14, true) !== 0;
    const events = this.#pollfd.view.getInt16(6, true);
    if ((events & POLLIN) !== 0) return 'call';
    if ((events & POLLHUP) !== 0) return 'hangup';
    return 'companion';
  }

  /** Takes the next call; false if it went away meanwhile. */
  receive(): boolean {
    this.#leave();
    this.#requestWords.fill(0);
    if (this.#ask(NOTIF_RECV, this.#request.address) < 0) return false;
    this.#begin();
    return true;
  }

  /** The call received last, to be taken up later: {@link resume}. It stays without an answer until then. */
  suspend(): Received {
    return this.#requestWords.slice();
  }

  /** Makes a suspended call the current one again; false if its caller is gone. */
  resume(call: Received): boolean {
    this.#leave();
    this.#requestWords.set(call);
    this.#open.drop(call[0] ?? 0, call[1] ?? 0);
    this.#begin();
    return this.valid;
  }

  // Another call takes the place of the one received last.
  #leave(): void {
    if (this.#unanswered) this.#open.keepRequest();
    this.#unanswered = false;
  }

  #begin(): void {
    this.#unanswered = true;
    this.tid = this.#requestWords[2] ?? 0;
    this.nr = this.#requestWords[4] ?? 0;
    this.#responseWords[0] = this.#requestWords[0] ?? 0;
    this.#responseWords[1] = this.#requestWords[1] ?? 0;
  }

  /** Argument `index` as an int. */
  int(index: number): number {
    return this.#request.view.getInt32(32 + 8 * index, true);
  }

  /** Argument `index` as an unsigned int. */
  uint(index: number): number {
    return this.#requestWords[8 + 2 * index] ?? 0;
  }

  /** Argument `index` in full. */
  word(index: number): bigint {
    return this.#request.view.getBigUint64(32 + 8 * index, true);
  }

  /**
   * The caller still waits. Asked before its memory is written: that is looked up by the thread's number, which may mean
   * another one once the caller is killed, and does so at once where another thread of the process execs.
   */
  get valid(): boolean {
    return this.#ask(NOTIF_ID_VALID, this.#request.address) === 0;
  }

  /** Answers with a value; false if the caller is gone. */
  answer(value: number): boolean {
    return this.#send(value, 0, 0);
  }

  /** Answers with a positive errno. */
  fail(errno: number): boolean {
    return this.#send(-1, -errno, 0);
  }

  /** The call received last, to be answered when others have been received after it. */
  get callId(): CallId {
    return { low: this.#requestWords[0] ?? 0, high: this.#requestWords[1] ?? 0 };
  }

  /** The caller still waits for its answer. */
  waits(call: CallId): boolean {
    this.#putParked(call);
    return this.#ask(NOTIF_ID_VALID, this.#parked.address) === 0;
  }

  /**
   * Answers a call that need not be the one received last.
   * @param result its value, or the negative errno
   * @returns false if the caller is gone
   */
  answerParked(call: CallId, result: number): boolean {
    this.#putParked(call);
    this.#open.drop(call.low, call.high);
    const { view } = this.#parked;
    view.setBigInt64(8, BigInt(Math.max(result, -1)), true);
    view.setInt32(16, Math.min(result, 0), true);
    view.setUint32(20, 0, true);
    return this.#ask(NOTIF_SEND, this.#parked.address) === 0;
  }

  #putParked({ low, high }: CallId): void {
    this.#parked.view.setUint32(0, low, true);
    this.#parked.view.setUint32(4, high, true);
  }

  /** Lets the kernel run the call. */
  proceed(): boolean {
    return this.#send(0, 0, RESPONSE_CONTINUE);
  }

  /**
   * Puts a file of ours into the caller's table. The call still waits for its answer.
   *
   * The kernel could answer with the new fd in the same step (SECCOMP_ADDFD_FLAG_SEND). Before Linux 7.3 a signal to this
   * thread in that moment makes it answer 0 and take the file back.
   *
   * Nothing is taken back if the caller dies before its answer: what shares its table keeps the file, as after an open(2)
   * whose thread is killed on its way back to user space.
   * @param options.at the fd wanted; the lowest free one if absent
   * @returns the fd there, or the negative errno
   */
  addFile(fd: number, { cloexec, at }: FileOptions): number {
    const { view, address } = this.#addfd;
    view.setUint32(0, this.#requestWords[0] ?? 0, true);
    view.setUint32(4, this.#requestWords[1] ?? 0, true);
    view.setUint32(8, at === undefined ? 0 : ADDFD_SETFD, true);
    view.setUint32(12, fd, true);
    view.setUint32(16, at ?? 0, true);
    view.setUint32(20, cloexec ? O_CLOEXEC : 0, true);
    return this.#ask(NOTIF_ADDFD, address);
  }

  #send(value: number, error: number, flags: number): boolean {
    const words = this.#responseWords;
    words[2] = value;
    words[3] = Math.floor(value / WORD);
    words[4] = error;
    words[5] = flags;
    this.#unanswered = false;
    return this.#ask(NOTIF_SEND, this.#response.address) === 0;
  }

  // A signal to this thread ends the wait for the listener's lock, even where its handler restarts calls (SA_RESTART), and
  // the wait for the caller to take a file; nothing has happened then. Unrepeated, a call would stay without its answer.
  #ask(request: number, argument: number): number {
    for (;;) {
      const result = sys3(NR.ioctl, this.fd, request, argument);
      if (result !== -EINTR) return result;
    }
  }
}
