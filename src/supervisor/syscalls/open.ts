/** open, openat, openat2, creat of nodes of ours (after fs/namei.c, do_last and may_open). */
import { Errno, errnoName } from '../../base/errno.ts';
import type { OpenFile } from '../../base/task.ts';
import type { DeviceNode } from '../../kernel/kernel.ts';
import {
  AT_FDCWD,
  NR,
  O_ACCMODE,
  O_CLOEXEC,
  O_CREAT,
  O_DIRECTORY,
  O_EXCL,
  O_NOFOLLOW,
  O_PATH,
  O_RDONLY,
  O_WRONLY,
} from '../../os/numbers.ts';
import { closeFile, openPath } from '../../os/files.ts';
import { pieceView, readMemory } from '../../os/process.ts';
import { beginCall } from '../call.ts';
import { readPath } from '../client-string.ts';
import { CONTINUE, type Context } from '../context.ts';
import { findPath, type Found } from '../paths.ts';
import { openStatus } from '../proc-status.ts';
import { checkPermission, READ, WRITE } from '../permission.ts';
import { flagText, pathText } from './text.ts';

const OPEN_HOW_SIZE = 24;
const RESOLVE_IN_ROOT = 0x10;
const RESOLVE_BENEATH = 0x08;

type NodeOrFile = Extract<Found, { kind: 'node' | 'file' }>;

type Opening = { directory: number; address: bigint; flags: number };

function openingOf({ listener }: Context): Opening | undefined {
  switch (listener.nr) {
    case NR.open:
      return { directory: AT_FDCWD, address: listener.word(0), flags: listener.uint(1) };
    case NR.creat:
      return { directory: AT_FDCWD, address: listener.word(0), flags: O_CREAT | O_WRONLY };
    case NR.openat:
      return {
        directory: listener.int(0),
        address: listener.word(1),
        flags: listener.uint(2),
      };
    default:
      return openHow(listener.tid, {
        directory: listener.int(0),
        address: listener.word(1),
        how: listener.word(2),
      });
  }
}

// openat2 takes its flags from a struct. Roots of its own are left to the kernel: nothing of ours lies below them.
function openHow(
  tid: number,
  { directory, address, how }: { directory: number; address: bigint; how: bigint },
): Opening | undefined {
  if (readMemory(tid, how, OPEN_HOW_SIZE) !== OPEN_HOW_SIZE) return undefined;
  const flags = Number(BigInt.asUintN(32, pieceView.getBigUint64(0, true)));
  const resolve = Number(BigInt.asUintN(32, pieceView.getBigUint64(16, true)));
  if ((resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH)) !== 0) return undefined;
  return { directory, address, flags };
}

function wanted(flags: number): number {
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      return READ;
    case O_WRONLY:
      return WRITE;
    default:
      return READ | WRITE;
  }
}

/** Something in a folder of the machine: the file itself goes to the client, with what it asked for. */
function openReal(
  { listener }: Context,
  { path, real }: { readonly path: string; readonly real: string },
  flags: number,
): number {
  const fd = openPath(real, flags & ~O_CLOEXEC);
  if (fd < 0) throw new Errno(errnoName(-fd) ?? 'EIO', `${path} cannot be opened`);
  const number = listener.addFile(fd, { cloexec: (flags & O_CLOEXEC) !== 0, answers: true });
  closeFile(fd);
  if (number < 0) throw new Errno('EMFILE', "the client's table takes no further file");
  return number;
}

// Reopening /proc/PID/fd/N of a device opens the device anew; other files of ours cannot be opened by name.
function nodeOf(context: Context, found: NodeOrFile): { path: string; node: DeviceNode } {
  if (found.kind === 'node') return found;
  const { entry } = found;
  if (!found.followed) throw new Errno('ELOOP', `${entry.link} is a symbolic link here`);
  const node = entry.path === undefined ? undefined : context.names.lookup(entry.path);
  if (node === undefined) throw new Errno('ENXIO', `${entry.link} cannot be opened by name`);
  return { path: entry.path ?? '', node };
}

// A place in the tree of names, without the device behind it.
const place = (path: string): OpenFile => ({
  name: path,
  release: () => undefined,
});

export function open(context: Context): number {
  const opening = openingOf(context);
  if (opening === undefined) return CONTINUE;
  const { directory, address, flags } = opening;
  const path = readPath(context.listener.tid, address);
  if (path === undefined) return CONTINUE;
  const found = findPath(context, { directory, path, follow: (flags & O_NOFOLLOW) === 0 });
  if (found === undefined) return CONTINUE;
  if (found.kind === 'status') return openStatus(context, found.pid, flags);
  if (found.kind === 'real') return openReal(context, found, flags);
  const call = beginCall(context, undefined, () => [
    ...pathText(context.listener.nr === NR.open, directory, path),
    flagText(flags),
  ]);
  const { path: name, node } = nodeOf(context, found);
  if ((flags & (O_CREAT | O_EXCL)) === (O_CREAT | O_EXCL)) {
    throw new Errno('EEXIST', `${name} exists`);
  }
  if ((flags & O_DIRECTORY) !== 0) {
    throw new Errno('ENOTDIR', `${name} is a device, not a directory`);
  }
  const cloexec = (flags & O_CLOEXEC) !== 0;
  if ((flags & O_PATH) !== 0) return call.hand(place(name), name, { cloexec, answers: true });
  checkPermission(context, call, { path: name, node }, wanted(flags));
  return call.hand(node.open(call), name, { cloexec, answers: true });
}
