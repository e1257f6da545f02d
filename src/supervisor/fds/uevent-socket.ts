/**
 * A NETLINK_KOBJECT_UEVENT socket of a client: uevents of the machine instead of the computer's. It waits with poll and is
 * read with recv, recvfrom and recvmsg; everything else about it is as a socket that nobody sends to.
 *
 * Not here: multicast groups other than the kernel's, and sending.
 *
 * After net/netlink/af_netlink.c and lib/kobject_uevent.c (uevent_net_broadcast).
 */
import { Errno } from '../../base/errno.ts';
import type { OpenFile } from '../../base/task.ts';
import { formatUevent, type Uevents } from '../../kernel/vfs/uevent.ts';

/** Messages that wait for a reader who does not come; the next ones are lost (ENOBUFS). */
const MOST_WAITING = 1024;
const KERNEL_GROUP = 1;

export class UeventSocket implements OpenFile {
  readonly name = 'uevent socket';
  readonly link = 'socket:[uevent]';
  /** as it was made (SOCK_NONBLOCK) */
  readonly nonBlocking: boolean;
  /** credentials come with each message (SO_PASSCRED) */
  passesCredentials = false;
  /** nl_pid that it was bound to */
  port = 0;
  /** bit mask of groups that it was bound to */
  groups = 0;
  onReadable?: (woken: boolean) => void;
  readonly #waiting: Uint8Array[] = [];
  readonly #stop: () => void;
  readonly #sleepers = new Set<() => void>();
  #lost = false;

  constructor(uevents: Uevents, nonBlocking: boolean) {
    this.nonBlocking = nonBlocking;
    this.#stop = uevents.listen((uevent, sequence) => {
      if ((this.groups & KERNEL_GROUP) === 0) return;
      this.#arrive(Buffer.from(formatUevent(uevent, sequence), 'latin1'));
    });
  }

  #arrive(message: Uint8Array): void {
    if (this.#waiting.length >= MOST_WAITING) this.#lost = true;
    else this.#waiting.push(message);
    this.onReadable?.(true);
    for (const wake of this.#sleepers) wake();
    this.#sleepers.clear();
  }

  /** The oldest message, which stays there with `peek`; undefined if there is none. ENOBUFS after some were lost. */
  receive(peek: boolean): Uint8Array | undefined {
    if (this.#lost) {
      this.#lost = false;
      throw new Errno('ENOBUFS', `more than ${MOST_WAITING} uevents waited to be received`);
    }
    const message = this.#waiting[0];
    if (message !== undefined && !peek) {
      this.#waiting.shift();
      this.onReadable?.(false);
    }
    return message;
  }

  /** Settles when a message comes. */
  message(): Promise<void> {
    return new Promise((resolve) => {
      this.#sleepers.add(resolve);
    });
  }

  readable(): boolean {
    return this.#waiting.length > 0 || this.#lost;
  }

  read(
    _task: unknown,
    buffer: { readonly length: number; put(at: number, bytes: Uint8Array): void },
  ): number {
    const message = this.receive(false);
    if (message === undefined) throw new Errno('EAGAIN', 'no uevent waits to be received');
    const bytes = message.subarray(0, buffer.length);
    buffer.put(0, bytes);
    return bytes.length;
  }

  release(): void {
    this.#stop();
  }
}
