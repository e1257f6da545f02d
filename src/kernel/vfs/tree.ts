/**
 * The tree of names below /sys and /dev: directories, attributes, symbolic links and device nodes.
 *
 * A directory does not keep its entries, it asks what there is whenever somebody looks: so the tree shows what the machine is
 * at that moment and cannot fall behind it. Whoever copies a part of it (the supervisor does) hears from {@link NameChanges}
 * which directories to look at again.
 *
 * A *shared* directory is one that the computer has too and where its own entries stay, but for those that the machine
 * replaces: /sys/class, /dev. In every other directory there is nothing but what is here.
 *
 * Not here: who may do what, and relative names; the supervisor resolves those.
 *
 * After fs/kernfs, fs/sysfs; a link's target is relative as sysfs writes them (fs/kernfs/symlink.c).
 */
import { Errno } from '../../base/errno.ts';
import type { OpenFile, Task } from '../../base/task.ts';

export type Done = (error?: Errno) => void;

/** What a write brings along. */
export type Write = { readonly bytes: Uint8Array; readonly offset: number };

/** A file that shows or takes a value. */
export type Attribute = {
  readonly kind: 'attribute';
  /** permission bits */
  readonly mode: number;
  /** what stat(2) says; a page for a text */
  readonly size: number;
  /** The whole text. Throws Errno. */
  show?(): string;
  /** Instead of a text: up to `length` bytes from `offset`, fewer at the end. Throws Errno. */
  read?(offset: number, length: number): Uint8Array;
  /** Takes a value; `done` may be called later (an unbind that waits). Never called with nothing. */
  store?(write: Write, done: Done): void;
};

export type Link = { readonly kind: 'link'; readonly target: string };

/** A character device. */
export type Node = {
  readonly kind: 'node';
  /** stat(2) says that it is an ordinary file, which the kernel makes up as it is read */
  readonly regular?: boolean;
  readonly major: number;
  readonly minor: number;
  /** permission bits; the owner is whoever runs uiommu */
  readonly mode: number;
  open(task: Task): OpenFile;
};

export type Entry = Directory | Attribute | Link | Node;
export type Named = readonly [name: string, entry: Entry];

export const PAGE = 4096;
const DIRECTORY_MODE = 0o755;

export type DirectoryOptions = {
  /** what there is, in any order */
  list(): Iterable<Named>;
  /** one entry by name, where that is cheaper than to list them all */
  find?(name: string): Entry | undefined;
  /** the computer's own entries are here too, but for those whose names this matches */
  readonly shared?: { readonly hides: RegExp | undefined };
};

export class Directory {
  readonly kind = 'directory';
  readonly mode = DIRECTORY_MODE;
  readonly shared: DirectoryOptions['shared'];
  readonly #options: DirectoryOptions;

  constructor(options: DirectoryOptions) {
    this.#options = options;
    this.shared = options.shared;
  }

  list(): Named[] {
    return [...this.#options.list()];
  }

  find(name: string): Entry | undefined {
    if (this.#options.find !== undefined) return this.#options.find(name);
    for (const [each, entry] of this.#options.list()) if (each === name) return entry;
    return undefined;
  }
}

/** A directory whose entries do not change. */
export function fixed(entries: Readonly<Record<string, Entry>>): Directory {
  const map = new Map(Object.entries(entries));
  return new Directory({ list: () => map, find: (name) => map.get(name) });
}

/** The same, laid over one that the computer has. */
export function over(entries: Readonly<Record<string, Entry>>, hides?: RegExp): Directory {
  const map = new Map(Object.entries(entries));
  return new Directory({
    list: () => map,
    find: (name) => map.get(name),
    shared: { hides },
  });
}

/** A text attribute that can be read. */
export function readable(show: () => string, mode = 0o444): Attribute {
  return { kind: 'attribute', mode, size: PAGE, show };
}

/** A text attribute that can be written, and read if `show` is given. */
export function writable(
  store: (text: string, done: Done) => void,
  options: { readonly mode?: number; show?(): string } = {},
): Attribute {
  const canRead = options.show !== undefined;
  return {
    kind: 'attribute',
    mode: options.mode ?? (canRead ? 0o644 : 0o200),
    size: PAGE,
    ...(canRead ? { show: () => options.show?.() ?? '' } : {}),
    store: ({ bytes }, done) => {
      store(latin1(bytes), done);
    },
  };
}

/** For a store that is over when it returns, or throws Errno. */
export function atOnce(action: (text: string) => void): (text: string, done: Done) => void {
  return (text, done) => {
    try {
      action(text);
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      done(error);
      return;
    }
    done();
  };
}

// A byte is a byte: names in sysfs have no encoding.
function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
}

/** @param from absolute path of the directory that holds the link @param to absolute path */
export function linkTo(from: string, to: string): Link {
  const [source, target] = [from, to].map((path) => path.split('/').filter((part) => part !== ''));
  let same = 0;
  // The target itself is always named, also where it is above the link.
  const most = Math.min(source?.length ?? 0, (target?.length ?? 0) - 1);
  while (same < most && source?.[same] === target?.[same]) same++;
  const up = Array.from({ length: (source?.length ?? 0) - same }, () => '..');
  return { kind: 'link', target: [...up, ...(target?.slice(same) ?? [])].join('/') };
}

/** What a read(2) of an attribute gives: a page at most at a time for a text. Throws Errno; EIO for one that shows nothing. */
export function readAttribute(attribute: Attribute, offset: number, length: number): Uint8Array {
  if (attribute.read !== undefined) return attribute.read(offset, length);
  if (attribute.show === undefined) throw new Errno('EIO', 'this attribute can only be written');
  const text = attribute.show();
  const bytes = Uint8Array.from(text.slice(0, PAGE), (character) => character.charCodeAt(0));
  return bytes.subarray(offset, offset + length);
}

/** What a write(2) of an attribute does with so many bytes; texts end at a page. `done` is told how it ended. */
export function writeAttribute(attribute: Attribute, write: Write, done: Done): void {
  if (attribute.store === undefined) {
    done(new Errno('EIO', 'this attribute can only be read'));
    return;
  }
  // fs/sysfs/file.c: nothing written is nothing done
  if (write.bytes.length === 0) done();
  else attribute.store(write, done);
}

/** How many bytes of `length` one write(2) takes. */
export function writeLength(attribute: Attribute, length: number): number {
  return attribute.read === undefined ? Math.min(length, PAGE) : length;
}

const LINK_STEPS = 40;

/**
 * The entry at an absolute path, links followed but for the last component. undefined where there is none, or where the path
 * leads out of the tree.
 */
export function lookup(root: Directory, path: string, follow = false): Entry | undefined {
  const rest = path.split('/').filter((name) => name !== '' && name !== '.');
  const trail: Directory[] = [root];
  let entry: Entry = root;
  let links = 0;
  while (rest.length > 0) {
    const name = rest.shift() ?? '';
    if (entry.kind !== 'directory') return undefined;
    if (name === '..') {
      if (trail.length > 1) trail.pop();
      entry = trail.at(-1) ?? root;
      continue;
    }
    const found = entry.find(name);
    if (found === undefined) return undefined;
    if (found.kind === 'link' && (rest.length > 0 || follow)) {
      if (++links > LINK_STEPS) return undefined;
      rest.unshift(...found.target.split('/'));
      continue;
    }
    if (found.kind === 'directory') trail.push(found);
    entry = found;
  }
  return entry;
}

/** Which directories have other entries than before; told synchronously, with absolute paths. */
export class NameChanges {
  readonly #listeners = new Set<(path: string) => void>();

  listen(listener: (path: string) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  /** Entries of the directory at `path` came or went; the directory itself too, if its parent is named as well. */
  tell(...paths: readonly string[]): void {
    for (const path of paths) for (const listener of this.#listeners) listener(path);
  }
}
