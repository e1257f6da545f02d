/**
 * Folders of the machine as real folders: what a client opens there is an ordinary file, so that listing, reading and
 * writing need nothing of us. They are made when the first client looks, and removed after the run.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, posix, resolve } from 'node:path';

import { Errno, errnoName } from '../../base/errno.ts';
import type { Directory } from '../../kernel/kernel.ts';
import { closeFile, identifyFile, identity, openBeneath, randomName } from '../../os/files.ts';
import { O_PATH } from '../../os/numbers.ts';

const EXDEV = 18;
const S_IFMT = 0o170000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const FILE_MODE = 0o644;
const OWN = 0o700;

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

export class Mirror {
  readonly #folders: ReadonlyMap<string, Directory>;
  readonly #made = new Map<string, string>();
  /** holds all of them; a name that nobody can have taken */
  readonly #home = resolve(tmpdir(), `uiommu-${randomName()}`);
  #begun = false;

  constructor(folders: ReadonlyMap<string, Directory>) {
    this.#folders = folders;
  }

  /**
   * Where a path of the machine lies in the host's file system: what the user plants there (symbolic links, FIFOs) is to be
   * met with {@link holdMirrored}.
   * @param root a folder of the machine
   * @param rest components below it, perhaps with ".."
   * @returns undefined if the path leads out of the folder again
   * @throws Errno EIO where the host has no room for it, or does not allow it
   */
  real(root: string, rest: readonly string[]): Mirrored | undefined {
    const below = posix.normalize(['.', ...rest].join('/'));
    if (below === '..' || below.startsWith('../')) return undefined;
    try {
      return { directory: this.#make(root), below };
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new Errno('EIO', `uiommu has no place for the content of ${root}: ${why}`);
    }
  }

  remove(): void {
    if (this.#begun) rmSync(this.#home, { recursive: true, force: true });
    this.#made.clear();
  }

  /** The command that removes them, for who outlives us. */
  get removal(): readonly string[] {
    return ['/bin/rm', '-rf', '--', this.#home];
  }

  #make(root: string): string {
    const known = this.#made.get(root);
    if (known !== undefined) return known;
    if (!this.#begun) mkdirSync(this.#home, { mode: OWN });
    this.#begun = true;
    const path = join(this.#home, String(this.#made.size));
    try {
      mkdirSync(path);
      fill(path, this.#folders.get(root) ?? {});
    } catch (error) {
      rmSync(path, { recursive: true, force: true });
      throw error;
    }
    this.#made.set(root, path);
    return path;
  }
}

function fill(path: string, folder: Directory): void {
  for (const [name, content] of Object.entries(folder)) {
    const at = join(path, name);
    if (typeof content === 'string') {
      writeFileSync(at, content, { mode: FILE_MODE });
    } else {
      mkdirSync(at);
      fill(at, content);
    }
  }
}
