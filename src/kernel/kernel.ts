/**
 * Kernel: what a process sees of a machine, by name: device nodes and what opening one gives. Pure and synchronous; the
 * supervisor serves it to real processes, tests and programs in this process call it directly.
 */
import { Errno } from '../base/errno.ts';
import type { Backing, OpenFile, Task } from '../base/task.ts';

/** A character device in the tree of names. */
export type DeviceNode = {
  readonly major: number;
  readonly minor: number;
  /** permission bits; the owner is whoever runs uiommu */
  readonly mode: number;
  open(task: Task): OpenFile;
};

/** What the supervisor asks of a kernel; later also directories and files of /sys. */
export type Names = {
  /** The node at an absolute path without symbolic links, "." and ".."; undefined if the host's file is meant. */
  lookup(path: string): DeviceNode | undefined;
  /** Last components of all nodes: a path without any of these cannot name one, unless through a symbolic link. */
  readonly basenames: ReadonlySet<string>;
};

/** What the supervisor must know of the machine's physical memory (machine/memory.ts), to keep pinned pages reachable. */
export type PinnedMemory = {
  /** Pages of a backing that somebody holds, in no order, overlapping where several do. */
  pinnedPages(backing: Backing): readonly { readonly page: number; readonly count: number }[];
  /** Nobody can reach the backing any more but through its pins. */
  forget(backing: Backing): void;
};

export type KernelParts = {
  /** device nodes by absolute path */
  readonly nodes: ReadonlyMap<string, DeviceNode>;
  readonly memory: PinnedMemory;
  /** what the machine still holds though every file is closed, in plain words */
  leaks?(): readonly string[];
};

export class Kernel implements Names {
  readonly nodes: ReadonlyMap<string, DeviceNode>;
  readonly basenames: ReadonlySet<string>;
  readonly memory: PinnedMemory;
  readonly #parts: KernelParts;

  constructor(parts: KernelParts) {
    const { nodes, memory } = parts;
    this.#parts = parts;
    this.nodes = nodes;
    this.memory = memory;
    this.basenames = new Set(
      [...nodes.keys()].map((path) => path.slice(path.lastIndexOf('/') + 1)),
    );
  }

  lookup(path: string): DeviceNode | undefined {
    return this.nodes.get(path);
  }

  /** Opens a device node, as open(2) does for a process that may. ENOENT for a name that is not of this machine. */
  open(path: string, task: Task): OpenFile {
    const node = this.nodes.get(path);
    if (node === undefined) throw new Errno('ENOENT', `this machine has no ${path}`);
    return node.open(task);
  }

  /** What should be gone once every file is closed, in plain words. */
  leaks(): readonly string[] {
    return this.#parts.leaks?.() ?? [];
  }
}
