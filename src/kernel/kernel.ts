/**
 * Kernel: what a process sees of a machine, by name: the tree of names (vfs/) and what opening a node gives. Pure and synchronous; the
 * supervisor serves it to real processes, tests and programs in this process call it directly.
 */
import { Errno } from '../base/errno.ts';
import { Events } from '../base/events.ts';
import type { Backing, OpenFile, Task } from '../base/task.ts';
import type { CallEvent } from '../base/trace.ts';
import { FAIL_NTH, type TaskFaults } from './fail-nth.ts';
import { NameChanges, type Directory, type Entry, type Node } from './vfs/tree.ts';
import { Uevents } from './vfs/uevent.ts';

/** What a name means: an entry of the machine, something of the computer's own, or nothing. */
export type Meaning = Entry | 'host' | 'none';

/** What the supervisor must know of the machine's physical memory (machine/memory.ts), to keep pinned pages reachable. */
export type PinnedMemory = {
  /** Pages of a backing that somebody holds, in no order, overlapping where several do. */
  pinnedPages(backing: Backing): readonly { readonly page: number; readonly count: number }[];
  /** Nobody can reach the backing any more but through its pins. */
  forget(backing: Backing): void;
};

/** What can be listened to, by name. */
export type KernelEvents = {
  /** a call of a client has ended */
  readonly call: CallEvent;
};

export type KernelParts = {
  /** the root of the machine's names, laid over the computer's */
  readonly names: Directory;
  readonly changes?: NameChanges;
  readonly uevents?: Uevents;
  readonly memory: PinnedMemory;
  /** fault injection: each thread can make one of its next calls fail, as by /proc/self/task/TID/fail-nth */
  readonly faults?: TaskFaults;
  /** what the machine still holds though every file is closed, in plain words */
  leaks?(): readonly string[];
};

/** The machine as a run sees it: names, and calls that begin and end. */
export class Kernel {
  readonly names: Directory;
  readonly changes: NameChanges;
  readonly uevents: Uevents;
  readonly memory: PinnedMemory;
  /** where whoever makes calls reports them */
  readonly events = new Events<KernelEvents>();
  /** First components of absolute paths to names of the machine. */
  readonly roots: ReadonlySet<string>;
  /**
   * Names at which the machine's own part of the tree begins: a path of other roots without any leads there only through a
   * symbolic link.
   */
  readonly borders: ReadonlySet<string>;
  readonly #parts: KernelParts;

  constructor(parts: KernelParts) {
    this.#parts = parts;
    this.names = parts.names;
    this.changes = parts.changes ?? new NameChanges();
    this.uevents = parts.uevents ?? new Uevents();
    this.memory = parts.memory;
    this.roots = new Set(parts.names.list().map(([name]) => name));
    this.borders = new Set([...parts.names.list()].flatMap(([, entry]) => [...bordersOf(entry)]));
  }

  /** Listens to an event, such as every call of a client. @returns takes the listener away again */
  on<K extends keyof KernelEvents>(
    kind: K,
    listener: (event: KernelEvents[K]) => void,
  ): () => void {
    return this.events.on(kind, listener);
  }

  /** What is at an absolute path without symbolic links, "." and "..". */
  at(path: string): Meaning {
    const fault = path.endsWith(FAIL_NTH) ? this.#parts.faults?.node(path) : undefined;
    if (fault !== undefined) return fault;
    let entry: Entry = this.names;
    if (path === '' || path === '/') return 'host';
    for (const name of path.slice(1).split('/')) {
      if (entry.kind !== 'directory') return 'none';
      const found = entry.find(name);
      if (found === undefined) {
        if (entry === this.names) return 'host';
        return entry.shared === undefined || entry.shared.hides?.test(name) === true
          ? 'none'
          : 'host';
      }
      entry = found;
    }
    return entry;
  }

  /** The device node at such a path. */
  lookup(path: string): Node | undefined {
    const found = this.at(path);
    return typeof found === 'object' && found.kind === 'node' ? found : undefined;
  }

  /** All device nodes, by path. */
  get nodes(): ReadonlyMap<string, Node> {
    const dev = this.names.find('dev');
    return new Map(dev?.kind === 'directory' ? nodesBelow('/dev', dev) : []);
  }

  /** Objects of the machine come and go, and user space may hear of it. */
  get hasUevents(): boolean {
    return this.#parts.uevents !== undefined;
  }

  /** A call of a thread begins: what it set to fail applies to it alone. Pairs with {@link endCall}. */
  beginCall(tid: number): void {
    this.#parts.faults?.begin(tid);
  }

  endCall(tid: number): void {
    this.#parts.faults?.end(tid);
  }

  /** Opens a device node, as open(2) does for a process that may. ENOENT for a name that is not of this machine. */
  open(path: string, task: Task): OpenFile {
    const node = this.lookup(path);
    if (node === undefined) throw new Errno('ENOENT', `this machine has no ${path}`);
    return node.open(task);
  }

  /** What should be gone once every file is closed, in plain words. */
  leaks(): readonly string[] {
    return this.#parts.leaks?.() ?? [];
  }
}

function* nodesBelow(path: string, directory: Directory): Generator<[string, Node]> {
  for (const [name, entry] of directory.list()) {
    if (entry.kind === 'node') yield [`${path}/${name}`, entry];
    if (entry.kind === 'directory') yield* nodesBelow(`${path}/${name}`, entry);
  }
}

function* bordersOf(entry: Entry): Generator<string> {
  if (entry.kind !== 'directory' || entry.shared === undefined) return;
  for (const [name, child] of entry.list()) {
    if (child.kind === 'directory' && child.shared !== undefined) yield* bordersOf(child);
    else yield name;
  }
}
