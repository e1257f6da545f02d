/**
 * Kernel: what a process sees of a machine, by name: device nodes and what opening one gives. Pure and synchronous; the
 * supervisor serves it to real processes, tests and programs in this process call it directly.
 */
import { Errno } from '../base/errno.ts';
import { Events } from '../base/events.ts';
import type { Backing, OpenFile, Task } from '../base/task.ts';
import type { CallEvent } from '../base/trace.ts';
import { FAIL_NTH, type TaskFaults } from './fail-nth.ts';

/** A character device in the tree of names, or with `regular` a file that the kernel makes up as it is read. */
export type DeviceNode = {
  readonly regular?: boolean;
  readonly major: number;
  readonly minor: number;
  /** permission bits; the owner is whoever runs uiommu */
  readonly mode: number;
  open(task: Task): OpenFile;
};

/** What the supervisor asks of a kernel; later also directories and files of /sys. */
export type Namespace = {
  /** The node at an absolute path without symbolic links, "." and ".."; undefined if the host's file is meant. */
  lookup(path: string): DeviceNode | undefined;
  /** Folders of ordinary files by absolute path, laid over the host's. */
  readonly folders: ReadonlyMap<string, Directory>;
  /** Last components of all nodes and folders: a path without any of these names none, unless through a symbolic link. */
  readonly basenames: ReadonlySet<string>;
};

/** Names with the contents of files, or folders. */
export type Directory = { readonly [name: string]: string | Directory };

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
  /** device nodes by absolute path */
  readonly nodes: ReadonlyMap<string, DeviceNode>;
  readonly folders?: ReadonlyMap<string, Directory>;
  readonly memory: PinnedMemory;
  /** fault injection: each thread can make one of its next calls fail, as by /proc/self/task/TID/fail-nth */
  readonly faults?: TaskFaults;
  /** what the machine still holds though every file is closed, in plain words */
  leaks?(): readonly string[];
};

/** The machine as a run sees it: names, and calls that begin and end. */
export class Kernel implements Namespace {
  readonly nodes: ReadonlyMap<string, DeviceNode>;
  readonly folders: ReadonlyMap<string, Directory>;
  readonly basenames: ReadonlySet<string>;
  readonly memory: PinnedMemory;
  /** where whoever makes calls reports them */
  readonly events = new Events<KernelEvents>();
  readonly #parts: KernelParts;

  constructor(parts: KernelParts) {
    const { nodes, memory } = parts;
    this.#parts = parts;
    this.nodes = nodes;
    this.memory = memory;
    this.folders = parts.folders ?? new Map();
    const paths = [...nodes.keys(), ...this.folders.keys(), ...(parts.faults ? [FAIL_NTH] : [])];
    this.basenames = new Set(paths.map((path) => path.slice(path.lastIndexOf('/') + 1)));
  }

  /** Listens to an event, such as every call of a client. @returns takes the listener away again */
  on<K extends keyof KernelEvents>(
    kind: K,
    listener: (event: KernelEvents[K]) => void,
  ): () => void {
    return this.events.on(kind, listener);
  }

  lookup(path: string): DeviceNode | undefined {
    const { faults } = this.#parts;
    return (
      this.nodes.get(path) ?? (faults && path.endsWith(FAIL_NTH) ? faults.node(path) : undefined)
    );
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
