/**
 * Folders of the machine as real folders: what a client opens there is an ordinary file, so that listing, reading and
 * writing need nothing of us. They are made when the first client looks, and removed after the run.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, posix } from 'node:path';

import type { Directory } from '../../kernel/kernel.ts';

const FILE_MODE = 0o644;

export class Mirror {
  readonly #folders: ReadonlyMap<string, Directory>;
  readonly #made = new Map<string, string>();

  constructor(folders: ReadonlyMap<string, Directory>) {
    this.#folders = folders;
  }

  /**
   * Where a path of the machine lies in the host's file system.
   * @param root a folder of the machine
   * @param rest components below it, perhaps with ".."
   * @returns undefined if the path leads out of the folder again
   */
  real(root: string, rest: readonly string[]): string | undefined {
    const below = posix.normalize(['.', ...rest].join('/'));
    if (below === '..' || below.startsWith('../')) return undefined;
    return join(this.#make(root), below);
  }

  remove(): void {
    for (const path of this.#made.values()) rmSync(path, { recursive: true, force: true });
    this.#made.clear();
  }

  #make(root: string): string {
    const known = this.#made.get(root);
    if (known !== undefined) return known;
    const path = mkdtempSync(join(tmpdir(), 'uiommu-'));
    fill(path, this.#folders.get(root) ?? {});
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
