/**
 * What a call of the open family asks for, and which flags go together (fs/open.c: build_open_how, build_open_flags and
 * openat2).
 */
import {
  AT_FDCWD,
  NR,
  O_ACCMODE,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_TMPFILE_ALONE,
  O_TRUNC,
  O_WRONLY,
} from '../../os/numbers.ts';
import { pieceBytes, pieceView, readMemory } from '../../os/process.ts';
import type { Context } from '../context.ts';

const OPEN_HOW_SIZE = 24;
const OPEN_HOW_MOST = 4096;
const EVERY_FLAG = 0x47f_ffc3n;
const EVERY_MODE = 0o7777n;
const RESOLVE_BENEATH = 0x08n;
const RESOLVE_IN_ROOT = 0x10n;
const EVERY_RESOLVE = 0x3fn;
const WITH_PATH = O_DIRECTORY | O_NOFOLLOW | O_PATH | O_CLOEXEC;

export type Opening = {
  readonly directory: number;
  /** of the path */
  readonly address: bigint;
  readonly flags: number;
};

/** @returns undefined for what the host answers as Linux does */
export function openingOf({ listener }: Context): Opening | undefined {
  switch (listener.nr) {
    case NR.open:
      return opening(AT_FDCWD, listener.word(0), listener.uint(1));
    case NR.creat:
      return opening(AT_FDCWD, listener.word(0), O_CREAT | O_WRONLY | O_TRUNC);
    case NR.openat:
      return opening(listener.int(0), listener.word(1), listener.uint(2));
    default: {
      const how = readHow(listener.tid, listener.word(2), listener.word(3));
      return how === undefined ? undefined : opening(listener.int(0), listener.word(1), how);
    }
  }
}

// O_PATH beats what does not go with it; openat2 refuses such flags.
function opening(directory: number, address: bigint, flags: number): Opening | undefined {
  if ((flags & O_PATH) !== 0) return { directory, address, flags: flags & WITH_PATH };
  return contradictory(flags) ? undefined : { directory, address, flags };
}

/**
 * The flags of an openat2. What is wrong with the struct is found before the path is looked at, by the host as well; paths
 * that stay below a folder (RESOLVE_BENEATH, RESOLVE_IN_ROOT) are left to it too (docs/divergence.md).
 */
function readHow(tid: number, address: bigint, size: bigint): number | undefined {
  if (size < OPEN_HOW_SIZE || size > OPEN_HOW_MOST) return undefined;
  if (readMemory(tid, address, Number(size)) !== Number(size)) return undefined;
  if (pieceBytes.subarray(OPEN_HOW_SIZE, Number(size)).some((byte) => byte !== 0)) return undefined;
  const bits = pieceView.getBigUint64(0, true);
  const mode = pieceView.getBigUint64(8, true);
  const resolve = pieceView.getBigUint64(16, true);
  if ((bits & ~EVERY_FLAG) !== 0n || (resolve & ~EVERY_RESOLVE) !== 0n) return undefined;
  if ((resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH)) !== 0n) return undefined;
  const flags = Number(bits);
  const creates = (flags & (O_CREAT | O_TMPFILE_ALONE)) !== 0;
  if ((mode & ~(creates ? EVERY_MODE : 0n)) !== 0n) return undefined;
  return (flags & O_PATH) !== 0 && (flags & ~WITH_PATH) !== 0 ? undefined : flags;
}

// EINVAL, before the path is looked at.
const contradictory = (flags: number): boolean =>
  (flags & (O_CREAT | O_DIRECTORY)) === (O_CREAT | O_DIRECTORY) ||
  ((flags & O_TMPFILE_ALONE) !== 0 &&
    ((flags & O_DIRECTORY) === 0 || (flags & O_ACCMODE) === O_RDONLY));
