/**
 * EventQueue: what FAULT and VEVENTQ have in common, an object with a file of its own that a client reads and polls.
 *
 * Users: the table, and the open file. The file keeps the context alive.
 * After the common part of drivers/iommu/iommufd/eventq.c.
 */
import { Errno } from '../base/errno.ts';
import type { OpenFile, ReadBuffer, Task, WriteBuffer } from '../base/task.ts';
import type { Context } from './context.ts';
import { IommufdObject } from './object.ts';

/** Who asks for a queue, and whether the answer has a place. */
type Opener = { readonly task: Task; readonly checkRespond: () => void };

export abstract class EventQueue extends IommufdObject {
  readonly context: Context;
  #file: EventFile | undefined;

  constructor(context: Context) {
    super();
    this.context = context;
  }

  /** Something can be read. */
  abstract get isReadable(): boolean;
  abstract read(buffer: ReadBuffer): number;
  write?(buffer: WriteBuffer): number;

  /** Makes the file; the last step before the object is published, as nothing can take a file back from a client. */
  openFile({ task, checkRespond }: Opener, name: string, link: string): number {
    if (task.tableIsFull) {
      throw new Errno('EMFILE', "the client's fd table is full (RLIMIT_NOFILE)");
    }
    this.context.environment.faults.alloc(name);
    checkRespond();
    // What the file holds is given back by its release, also where the client's table does not take it.
    this.#file = new EventFile(this, { name, link });
    this.users++;
    this.context.get();
    return task.install(this.#file, { cloexec: true });
  }

  /** The client has the file open. */
  get isOpen(): boolean {
    return this.#file !== undefined;
  }

  /** Something has come to be read (wake_up_interruptible). */
  protected arrived(): void {
    this.#file?.onReadable?.(true);
  }

  /** To be called whenever something was taken away. */
  protected taken(): void {
    this.#file?.onReadable?.(false);
  }

  fileClosed(): void {
    this.#file = undefined;
    this.users--;
    this.context.put();
  }
}

class EventFile implements OpenFile {
  readonly name: string;
  readonly link: string;
  readonly write?: NonNullable<OpenFile['write']>;
  readonly #queue: EventQueue;
  onReadable?: (woken: boolean) => void;

  constructor(queue: EventQueue, { name, link }: { readonly name: string; readonly link: string }) {
    this.#queue = queue;
    this.name = name;
    this.link = `anon_inode:[${link}]`;
    const write = queue.write?.bind(queue);
    if (write !== undefined) this.write = (_task, buffer) => write(buffer);
  }

  read(_task: Task, buffer: ReadBuffer): number {
    return this.#queue.read(buffer);
  }

  readable(): boolean {
    return this.#queue.isReadable;
  }

  release(): void {
    this.#queue.fileClosed();
  }
}
