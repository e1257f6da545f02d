/**
 * Mappings of files of ours. The client maps the real file itself: we put the bytes there first. It then has plain
 * shared memory, at native speed; that of a device is shared with the engine too (memory/region-file.ts). Nobody tells us of the munmap: whether a mapping is still there is looked up when it
 * matters, when an object is in use.
 */
import { readdirSync } from 'node:fs';

import { Errno } from '../../base/errno.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import { openSame } from '../../os/entry.ts';
import { closeFile, identifyFile, identity, resizeFile, writeAt } from '../../os/files.ts';
import { O_RDWR } from '../../os/numbers.ts';
import { mappingsOf, type Mapping } from '../../os/process.ts';
import type { MmapGrant } from '../../base/task.ts';
import { beginCall } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import type { Grant, OpenEntry } from '../fds/files.ts';
import type { ClientThread } from '../process-table.ts';
import { callerAndFile } from './caller.ts';
import {
  checkMapping,
  MAP_GROWSDOWN,
  PROT_EXEC,
  PROT_WRITE,
  type MmapArguments,
} from './check-mapping.ts';

const MOST = 1 << 26;

export function mmap(context: Context): number {
  const { listener } = context;
  const fd = listener.int(4);
  const found = callerAndFile(context, fd);
  if (found === undefined) return CONTINUE;
  const { entry, thread } = found;
  const { file, link } = entry;
  const wanted: MmapArguments = {
    address: listener.word(0),
    length: listener.word(1),
    protection: listener.uint(2),
    flags: listener.word(3),
    offset: listener.word(5),
  };
  const { offset, protection } = wanted;
  const call = beginCall(context, thread, () => [
    `length=${wanted.length}`,
    `prot=${protection}`,
    `${fd}<${link}>`,
    `offset=0x${offset.toString(16)}`,
  ]);
  const { length, shared } = checkMapping({ thread, fd, entry }, wanted);
  if (file.mmap === undefined) throw new Errno('ENODEV', `${link} cannot be mapped`);
  if ((wanted.flags & MAP_GROWSDOWN) !== 0n) throw new Errno('EINVAL', 'MAP_GROWSDOWN of a file');
  const grant = file.mmap(call, {
    offset,
    length,
    shared,
    write: (protection & PROT_WRITE) !== 0,
    execute: (protection & PROT_EXEC) !== 0,
  });
  const window = { offset: Number(offset), length: Number(length) };
  if (grant.kind !== 'copied') {
    try {
      entry.region?.show(grant, window);
    } finally {
      grant.release();
    }
    context.shared.windowsShown = true;
    return CONTINUE;
  }
  try {
    if (!entry.shown.has(grant.backing)) show(thread, { entry, fd }, grant, window);
  } catch (error) {
    grant.release();
    throw error;
  }
  entry.shown.add(grant.backing);
  context.shared.windowsShown = true;
  if (entry.grants.some((held) => held.grant.backing === grant.backing)) grant.release();
  else entry.grants.push({ grant, ...window });
  return CONTINUE;
}

type Window = { readonly offset: number; readonly length: number };

// By the client's fd: a descriptor kept here would hide the last close. Another thread may have replaced it by any other file
// meanwhile, which is not to be touched.
function show(
  { tid }: ClientThread,
  { entry, fd }: { readonly entry: OpenEntry; readonly fd: number },
  grant: MmapGrant,
  { offset, length }: Window,
): void {
  const own = openSame(`/proc/${tid}/fd/${fd}`, entry, O_RDWR);
  if (own < 0) {
    throw new Errno('EBADF', `fd ${fd} is not ${entry.link} any more (errno ${-own})`);
  }
  try {
    const size = Math.ceil(Math.min(length, MOST) / PAGE_BYTES) * PAGE_BYTES;
    const bytes = new Uint8Array(size);
    grant.backing.read(grant.page * PAGE_BYTES, bytes);
    if (identifyFile(own) === 0 && identity.size < offset + size) resizeFile(own, offset + size);
    writeAt(own, bytes, offset);
  } finally {
    closeFile(own);
  }
}

/**
 * Gives back the grants of windows of which no process maps a page any more, also none that only inherited it.
 * @returns whether there was one
 */
export function returnGrants(entry: OpenEntry): boolean {
  if (entry.grants.length === 0) return false;
  const mapped = mappings(entry);
  const kept = entry.grants.filter((grant) => mapped.some((mapping) => shows(mapping, grant)));
  const gone = entry.grants.filter((grant) => !kept.includes(grant));
  entry.grants = kept;
  for (const { grant } of gone) grant.release();
  return gone.length > 0;
}

const shows = ({ start, end, offset }: Mapping, grant: Grant): boolean =>
  offset < grant.offset + grant.length && grant.offset < offset + end - start;

// A child that has asked us nothing is not known to us.
function mappings({ device, inode }: OpenEntry): Mapping[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap(mappingsOf)
    .filter((mapping) => mapping.inode === inode && mapping.device === device);
}
