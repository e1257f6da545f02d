/** Who may open a node: owner, group and others by its mode, and those who override (fs/namei.c, generic_permission). */
import { Errno } from '../../base/errno.ts';
import type { Call } from '../call.ts';
import type { Context } from '../context.ts';
import type { ThreadStatus } from '../process-table.ts';

export const READ = 4;
export const WRITE = 2;
export const EXECUTE = 1;

const CAP_DAC_OVERRIDE = 1n << 1n;

/** Owner of all nodes: whoever runs uiommu, so that no root is needed. */
export const owner = { uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };

function permitted(status: ThreadStatus, mode: number): number {
  if (status.uid === owner.uid) return (mode >> 6) & 7;
  if (status.gid === owner.gid || status.groups.includes(owner.gid)) return (mode >> 3) & 7;
  return mode & 7;
}

const CAP_FOWNER = 1n << 3n;

/** What only the owner of a node may ask for (inode_owner_or_capable); EPERM. */
export function checkOwner(context: Context, call: Call, path: string): void {
  if (context.asRoot) return;
  const { status } = call;
  if (status.uid === owner.uid || (status.capabilities & CAP_FOWNER) !== 0n) return;
  throw new Errno(
    'EPERM',
    `O_NOATIME is for the owner of ${path}, user ${owner.uid}; the caller is user ${status.uid}`,
  );
}

/**
 * @param wanted READ, WRITE and EXECUTE, or-ed
 * @throws Errno EACCES
 */
export function checkPermission(
  context: Context,
  call: Call,
  { path, mode }: { readonly path: string; readonly mode: number },
  wanted: number,
): void {
  // Whoever overrides may read and write everything, but execute only what somebody may execute.
  const canOverride = (wanted & EXECUTE) === 0 || (mode & 0o111) !== 0;
  if (context.asRoot && canOverride) return;
  const { status } = call;
  if ((permitted(status, mode) & wanted) === wanted) return;
  if (canOverride && (status.capabilities & CAP_DAC_OVERRIDE) !== 0n) return;
  throw new Errno(
    'EACCES',
    `${path} has mode 0${mode.toString(8)} and belongs to user ${owner.uid}, group ${owner.gid}; the caller is user ${status.uid}, group ${status.gid}`,
  );
}
