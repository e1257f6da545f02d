/**
 * Symbolic links of the host, on the paths of clients. To follow a path may mean to wait for whoever serves a file system (FUSE,
 * network), perhaps for ever. Where a run can meet one, the kernel is asked for what it knows by heart (RESOLVE_CACHED)
 * first; the rest is another thread's work, and the call is begun again with its result.
 */
import {
  closeFile,
  identifyFile,
  identity,
  openCached,
  openPath,
  readLink,
} from '../../os/files.ts';
import { readLinkLater } from '../../os/later.ts';
import { AT_FDCWD, O_NOFOLLOW, O_PATH } from '../../os/numbers.ts';
import type { Turn } from '../turn.ts';

const EAGAIN = 11;
const S_IFMT = 0o170000;
const S_IFLNK = 0o120000;

// Magic links are never known by heart, and lead anywhere without asking anybody.
const MAGIC = /^(\/proc\/\d+\/(?:cwd|root|fd\/\d+))\/+(.*)$/;

export class HostLinks {
  readonly #turn: () => Turn;
  #careful = false;

  /** @param turn the one that is under way */
  constructor(turn: () => Turn) {
    this.#turn = turn;
  }

  beCareful(): void {
    this.#careful = true;
  }

  /** What a link says; undefined for what is none, or not there. */
  read(path: string): string | undefined {
    if (!this.#careful) {
      const link = readLink(path);
      return typeof link === 'string' ? link : undefined;
    }
    const turn = this.#turn();
    if (turn.links.has(path)) return turn.links.get(path);
    const held = hold(path, O_NOFOLLOW);
    if (held >= 0) {
      identifyFile(held);
      closeFile(held);
      if ((identity.mode & S_IFMT) !== S_IFLNK) return undefined;
    } else if (held !== -EAGAIN) return undefined;
    return turn.leave(readLinkLater(path).then((link) => turn.links.set(path, link)));
  }

  /** Something may be there. */
  mayExist(path: string): boolean {
    const held = hold(path, 0);
    if (held >= 0) closeFile(held);
    return held >= 0 || held === -EAGAIN;
  }
}

function hold(path: string, flags: number): number {
  const [, base, rest] = MAGIC.exec(path) ?? [];
  if (base === undefined || rest === undefined) return openCached(path, flags, AT_FDCWD);
  const from = openPath(base, O_PATH);
  if (from < 0) return from;
  const held = openCached(rest === '' ? '.' : rest, flags, from);
  closeFile(from);
  return held;
}
