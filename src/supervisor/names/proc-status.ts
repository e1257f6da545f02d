/**
 * /proc/PID/status of a client that has pages pinned: what the host tells, with VmPin and VmLck as they are on the machine.
 *
 * After task_mem of fs/proc/task_mmu.c.
 */
import { readFileSync } from 'node:fs';

import { Errno } from '../../base/errno.ts';
import { KIB_PER_PAGE } from '../../base/position.ts';
import { createMemfd, writeAt } from '../../os/files.ts';
import { O_ACCMODE, O_CLOEXEC, O_RDONLY } from '../../os/numbers.ts';
import { CONTINUE, type Context } from '../context.ts';
import { answerWith } from '../fds/limit.ts';

/** The host's text with `pages` more in a line such as "VmPin:\t       4 kB". */
function add(text: string, name: string, pages: number): string {
  return text.replace(
    new RegExp(`^(${name}:\\s*)(\\d+) kB$`, 'm'),
    (_line, _head, host: string) => {
      const total = Number(host) + pages * KIB_PER_PAGE;
      return `${name}:\t${String(total).padStart(8)} kB`;
    },
  );
}

/** Opens the status of a process; left to the kernel where the machine has nothing to add. */
export function openStatus({ processes, listener }: Context, pid: number, flags: number): number {
  const space = processes.process(pid)?.space;
  if (space === undefined || (space.pinnedPages === 0 && space.lockedPages === 0)) return CONTINUE;
  if ((flags & O_ACCMODE) !== O_RDONLY) return CONTINUE;
  const host = readFileSync(`/proc/${pid}/status`, 'latin1');
  const text = add(add(host, 'VmPin', space.pinnedPages), 'VmLck', space.lockedPages);
  const fd = createMemfd(`status of process ${pid}`);
  if (fd < 0) throw new Errno('ENOMEM', 'no memory for a file');
  writeAt(fd, Buffer.from(text, 'latin1'), 0);
  return answerWith(listener, fd, { cloexec: (flags & O_CLOEXEC) !== 0 });
}
