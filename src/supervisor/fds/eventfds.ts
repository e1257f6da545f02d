/**
 * Eventfds of clients that the engine keeps: descriptors of ours on the same counters, so that a client's close, dup or exec changes
 * nothing, and the counts are those of the kernel.
 *
 * Invariant: each Signal has a descriptor until it is released; those that are listened to are in the poll set, edge by edge.
 *
 * Not here: when a client's last descriptor is closed. Ours keeps the counter, so nobody sees it.
 */
import { Errno } from '../../base/errno.ts';
import type { Signal } from '../../base/task.ts';
import { signalEventfd, takeCount, takeDescriptor } from '../../os/eventfd.ts';
import { closeFile, EPOLLET, EPOLLIN, PollSet, readLink } from '../../os/files.ts';

const LINK = 'anon_inode:[eventfd]';
const ENOENT = -2;

type Listener = { hear(): void };

export class Eventfds {
  readonly #set = new PollSet();
  readonly #listeners = new Map<number, Listener>();

  /** @param events becomes readable when somebody signals an eventfd that is listened to */
  constructor(events: PollSet) {
    events.add(this.#set.fd, EPOLLIN);
  }

  /** The eventfd behind `fd` of a thread. EBADF, EINVAL for a file of another kind, EPERM where the host does not share it. */
  take(tid: number, pid: number, fd: number): Signal {
    const link = readLink(`/proc/${tid}/fd/${fd}`);
    if (link === ENOENT || fd < 0) throw new Errno('EBADF', `fd ${fd} is not open`);
    if (link !== LINK) throw new Errno('EINVAL', `fd ${fd} is not an eventfd`);
    const own = takeDescriptor(pid, fd);
    if (own < 0) {
      throw new Errno('EPERM', `the host does not share the eventfd of fd ${fd} (errno ${-own})`);
    }
    return this.#signal(own);
  }

  #signal(fd: number): Signal {
    const unlisten = (): void => {
      if (this.#listeners.delete(fd)) this.#set.remove(fd);
    };
    return {
      signal: () => {
        signalEventfd(fd);
      },
      listen: (listener) => {
        const pending = this.#isReadable(fd);
        // What was there counts as one event, of which nothing is taken.
        let first = pending;
        this.#listeners.set(fd, {
          hear: () => {
            if (!first && takeCount(fd) === undefined) return;
            first = false;
            listener();
          },
        });
        this.#set.add(fd, EPOLLIN | EPOLLET);
      },
      unlisten,
      closed: false,
      release: () => {
        unlisten();
        closeFile(fd);
      },
    };
  }

  #isReadable(fd: number): boolean {
    const set = new PollSet();
    set.add(fd, EPOLLIN);
    const ready = set.ready().length > 0;
    closeFile(set.fd);
    return ready;
  }

  /** Passes on what clients have signalled. */
  collect(): void {
    if (this.#listeners.size === 0) return;
    for (const fd of this.#set.ready()) this.#listeners.get(fd)?.hear();
  }
}
