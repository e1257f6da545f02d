/**
 * Calls after which a client's pages and paths may have to be supplied by another program: from then on the run is careful
 * with them (memory/careful.ts, names/host-links.ts). So it is from its start where the host has such file systems.
 */
import { readText } from '../../os/files.ts';
import { NR } from '../../os/numbers.ts';
import { CONTINUE, type Context } from '../context.ts';
import { beCarefulWithMemory } from '../memory/careful.ts';
import { readPath } from '../memory/client-string.ts';

/** of /dev/userfaultfd (include/uapi/linux/userfaultfd.h) */
export const USERFAULTFD_IOC_NEW = 0xaa00;

const SERVED = /^(fuse|fuseblk|fuse\..*|virtiofs|9p|nfs4?|cifs|smb3|ceph|afs)$/;

export function userfaultfd(context: Context): number {
  beCareful(context);
  return CONTINUE;
}

/** mount and fsopen. */
export function mount(context: Context): number {
  const { listener } = context;
  const type = readPath(listener.tid, listener.word(listener.nr === NR.mount ? 2 : 0));
  if (type !== undefined && SERVED.test(type)) beCareful(context);
  return CONTINUE;
}

/** Looks at the file systems that are there when a run begins. */
export function lookAtMounts(context: Context): void {
  const types = (readText('/proc/self/mountinfo') ?? '').matchAll(/ - (\S+) /g);
  if ([...types].some(([, type = '']) => SERVED.test(type))) beCareful(context);
}

function beCareful({ links, current }: Context): void {
  links.beCareful();
  beCarefulWithMemory(() => current.turn);
}
