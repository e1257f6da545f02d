/**
 * Directories and files of the machine as real ones: what a client opens there is an ordinary file of the computer, so that
 * listing and reading, dup, fork and close need nothing of us. Below one temporary directory the machine's paths are repeated, each
 * directory when the first client opens it; it is removed after the run.
 *
 * A directory has names only: what is in a file is written when it is opened. Links are links, so what the kernel follows
 * relative to an open directory stays inside. In a directory that the computer has too, its own names stand beside.
 *
 * Invariant: a directory that was handed out once follows every change of the machine's names before the call that made
 * the change is answered. A file's content is replaced as a whole, by rename: nobody sees half of it.
 *
 * The user could plant something here; it is opened with {@link holdMirrored} alone.
 */
import {
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  type Dirent,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';

import { Errno, errnoName } from '../../base/errno.ts';
import type { Kernel } from '../../kernel/kernel.ts';
import type { Directory, Entry } from '../../kernel/vfs/tree.ts';
import { closeFile, identifyFile, identity, openBeneath, randomName } from '../../os/files.ts';
import { O_PATH } from '../../os/numbers.ts';

const EXDEV = 18;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const OWNER_READS = 0o400;
const OWN = 0o700;
const NEW_FILE = '.new';

/** A file or directory of the machine in the host's file system. */
export type Mirrored = { readonly directory: string; readonly below: string };

/**
 * Takes hold of a mirrored file, without opening it: nothing outside of the mirror, and nothing whose opening could wait.
 * @returns an fd for {@link reopen}
 * @throws Errno EACCES for what is no file or directory of a machine, and what the host answers
 */
export function holdMirrored(path: string, { directory, below }: Mirrored): number {
  const held = openBeneath(directory, below, O_PATH);
  if (held === -EXDEV) throw new Errno('EACCES', `${path} leads out of the machine`);
  if (held < 0) throw new Errno(errnoName(-held) ?? 'EIO', `${path} cannot be opened`);
  identifyFile(held);
  const type = identity.mode & S_IFMT;
  if (type === S_IFREG || type === S_IFDIR) return held;
  closeFile(held);
  throw new Errno('EACCES', `${path} is neither a file nor a directory of the machine`);
}

/** What stands for an entry in its directory; equal texts need no change. */
type Sign = 'directory' | 'file' | `link ${string}`;

function signOf(entry: Entry): Sign {
  if (entry.kind === 'directory') return 'directory';
  return entry.kind === 'link' ? `link ${entry.target}` : 'file';
}

/** The computer's own files keep their kind, as far as a listing shows it. */
function signOfHost(entry: Dirent): Sign {
  if (entry.isDirectory()) return 'directory';
  return entry.isSymbolicLink() ? `link ${entry.name}` : 'file';
}

export class Mirror {
  readonly #kernel: Kernel;
  /** holds everything; a name that nobody can have taken */
  readonly #home = resolve(tmpdir(), `uiommu-${randomName()}`);
  #begun = false;
  #relative = false;
  /** names of directories that were made, by path of the machine */
  readonly #made = new Map<string, Map<string, Sign>>();
  readonly #contents = new Map<string, Uint8Array>();
  readonly #stop: () => void;

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#stop = kernel.changes.listen((path) => {
      this.#follow(path);
    });
  }

  /** A client has been given a directory of the mirror, or works in one of the machine's: relative paths may begin there. */
  get used(): boolean {
    return this.#begun || this.#relative;
  }

  /** A client works in a directory of the machine from now on. */
  expectRelativePaths(): void {
    this.#relative = true;
  }

  /** The machine's path of something in the mirror; undefined for anything else. */
  nameOf(real: string): string | undefined {
    if (!this.#begun || !real.startsWith(this.#home)) return undefined;
    const rest = real.slice(this.#home.length);
    return rest === '' || rest.startsWith('/') ? rest : undefined;
  }

  /**
   * A directory of the machine, with the names that it has now.
   * @throws Errno EIO where the host has no room for it, or does not allow it
   */
  directory(path: string): Mirrored {
    return this.#orRefuse(path, () => {
      this.#make(path);
      return this.#place(path);
    });
  }

  /** A file of the machine with this content. Throws like {@link directory}. */
  file(path: string, content: Uint8Array, mode: number): Mirrored {
    return this.#orRefuse(path, () => {
      if (!this.#made.has(dirname(path))) this.#make(dirname(path));
      const before = this.#contents.get(path);
      if (before === undefined || Buffer.compare(before, content) !== 0) {
        const fresh = join(this.#home, NEW_FILE);
        writeFileSync(fresh, content, { mode: mode | OWNER_READS });
        renameSync(fresh, this.#real(path));
        this.#contents.set(path, content);
      }
      return this.#place(path);
    });
  }

  remove(): void {
    this.#stop();
    if (this.#begun) rmSync(this.#home, { recursive: true, force: true });
    this.#begun = false;
    this.#made.clear();
    this.#contents.clear();
  }

  #orRefuse(path: string, make: () => Mirrored): Mirrored {
    try {
      return make();
    } catch (error) {
      if (error instanceof Errno) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new Errno('EIO', `uiommu has no place for the content of ${path}: ${why}`);
    }
  }

  /** The command that removes it, for who outlives us. */
  get removal(): readonly string[] {
    return ['/bin/rm', '-rf', '--', this.#home];
  }

  #begin(): void {
    if (!this.#begun) mkdirSync(this.#home, { mode: OWN });
    this.#begun = true;
  }

  #real(path: string): string {
    return `${this.#home}${path}`;
  }

  #place(path: string): Mirrored {
    return { directory: this.#home, below: path.slice(1) };
  }

  /** Makes a directory and brings its names up to date. */
  #make(path: string): void {
    const entry = this.#kernel.at(path);
    if (typeof entry !== 'object' || entry.kind !== 'directory') {
      throw new Errno('ENOENT', `${path} is not a directory of the machine any more`);
    }
    if (!this.#made.has(path)) {
      this.#begin();
      mkdirSync(this.#real(path), { recursive: true });
      this.#made.set(path, new Map());
    }
    this.#bringUpToDate(path, entry);
  }

  #bringUpToDate(path: string, directory: Directory): void {
    const have = this.#made.get(path) ?? new Map<string, Sign>();
    const wanted = this.#wanted(path, directory);
    for (const [name, sign] of have) {
      if (wanted.get(name) === sign) continue;
      this.#forget(`${path}/${name}`);
      have.delete(name);
    }
    for (const [name, sign] of wanted) {
      if (have.has(name)) continue;
      this.#put(`${this.#real(path)}/${name}`, sign);
      have.set(name, sign);
    }
  }

  #wanted(path: string, directory: Directory): Map<string, Sign> {
    const wanted = new Map<string, Sign>();
    const { shared } = directory;
    if (shared !== undefined) {
      for (const entry of hostEntries(path)) {
        if (shared.hides?.test(entry.name) !== true) wanted.set(entry.name, signOfHost(entry));
      }
    }
    for (const [name, entry] of directory.list()) wanted.set(name, signOf(entry));
    return wanted;
  }

  #put(real: string, sign: Sign): void {
    if (sign === 'directory') mkdirSync(real, { recursive: true });
    else if (sign === 'file') writeFileSync(real, '');
    else symlinkSync(sign.slice('link '.length), real);
  }

  #forget(path: string): void {
    rmSync(this.#real(path), { recursive: true, force: true });
    for (const kept of [this.#made, this.#contents]) {
      for (const each of kept.keys()) {
        if (each === path || each.startsWith(`${path}/`)) kept.delete(each);
      }
    }
  }

  // A change that cannot be shown must not fail the call that made it: the next one who opens the directory is told.
  #follow(path: string): void {
    if (!this.#made.has(path)) return;
    const entry = this.#kernel.at(path);
    if (typeof entry !== 'object' || entry.kind !== 'directory') return;
    try {
      this.#bringUpToDate(path, entry);
    } catch {
      this.#made.delete(path);
    }
  }
}

function hostEntries(path: string): Dirent[] {
  try {
    return readdirSync(path, { withFileTypes: true });
  } catch {
    // The computer has no such directory, or keeps it to itself.
    return [];
  }
}
