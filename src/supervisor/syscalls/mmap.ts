/**
 * Shared mappings of files of ours. The client maps the real file itself: we put the bytes there first. It then has plain
 * shared memory, at native speed. Nobody tells us of the munmap: whether a mapping is still there is looked up when it
 * matters, before the next call on the file.
 */
import { readFileSync } from 'node:fs';

import { Errno } from '../../base/errno.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import {
  closeFile,
  identifyPath,
  identity,
  openPath,
  resizeFile,
  writeAt,
} from '../../os/files.ts';
import { O_RDWR } from '../../os/numbers.ts';
import { parseMapping } from '../../os/process.ts';
import type { MmapGrant } from '../../base/task.ts';
import { beginCall } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import type { Grant, OpenEntry } from '../files.ts';
import { callerAndFile } from './caller.ts';

const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_TYPE = 0x0f;
const MAP_PRIVATE = 2;
const MOST = 1 << 26;

export function mmap(context: Context): number {
  const { listener } = context;
  const fd = listener.int(4);
  const found = callerAndFile(context, fd);
  if (found === undefined) return CONTINUE;
  const { entry, thread } = found;
  const { file, link } = entry;
  const [wanted, offset, prot] = [listener.word(1), listener.word(5), listener.uint(2)];
  const call = beginCall(context, thread, () => [
    `length=${wanted}`,
    `prot=${prot}`,
    `${fd}<${link}>`,
    `offset=0x${offset.toString(16)}`,
  ]);
  const length = wholePages(wanted);
  if (file.mmap === undefined) throw new Errno('ENODEV', `${link} cannot be mapped`);
  const grant = file.mmap(call, {
    offset,
    length,
    shared: (listener.uint(3) & MAP_TYPE) !== MAP_PRIVATE,
    write: (prot & PROT_WRITE) !== 0,
    execute: (prot & PROT_EXEC) !== 0,
  });
  returnGrants(context, entry);
  entry.grants.push({ grant, offset: Number(offset) });
  show(entry, grant, {
    path: `/proc/${listener.tid}/fd/${fd}`,
    offset: Number(offset),
    length: Math.min(Number(length), MOST),
  });
  return CONTINUE;
}

// As do_mmap, before the file is asked.
function wholePages(length: bigint): bigint {
  if (length === 0n) throw new Errno('EINVAL', 'nothing is to be mapped (length 0)');
  const pages = (length + BigInt(PAGE_BYTES) - 1n) / BigInt(PAGE_BYTES);
  const whole = BigInt.asUintN(64, pages * BigInt(PAGE_BYTES));
  if (whole === 0n) throw new Errno('ENOMEM', `no address space has ${length} bytes`);
  return whole;
}

type Window = { readonly path: string; readonly offset: number; readonly length: number };

function show(entry: OpenEntry, grant: MmapGrant, { path, offset, length }: Window): void {
  const fd = openPath(path, O_RDWR);
  if (fd < 0) throw new Errno('ENOMEM', `${entry.link} cannot be shown: errno ${-fd}`);
  const size = Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
  const bytes = new Uint8Array(size);
  grant.backing.read(grant.page * PAGE_BYTES, bytes);
  if (identifyPath(path) === 0 && identity.size < offset + size) resizeFile(fd, offset + size);
  writeAt(fd, bytes, offset);
  closeFile(fd);
}

/** Gives back the grants of mappings that no process has any more. */
export function returnGrants(context: Context, entry: OpenEntry): void {
  if (entry.grants.length === 0) return;
  const offsets = [...context.processes.all()].flatMap(({ pid }) =>
    mappedOffsets(pid, entry.inode),
  );
  const kept: Grant[] = [];
  for (const each of entry.grants) {
    const at = offsets.indexOf(each.offset);
    if (at < 0) {
      each.grant.release();
      continue;
    }
    offsets.splice(at, 1);
    kept.push(each);
  }
  entry.grants = kept;
}

function mappedOffsets(pid: number, inode: number): number[] {
  try {
    return readFileSync(`/proc/${pid}/maps`, 'latin1')
      .split('\n')
      .map(parseMapping)
      .filter((mapping) => mapping?.inode === inode)
      .map((mapping) => mapping?.offset ?? 0);
  } catch {
    return [];
  }
}
