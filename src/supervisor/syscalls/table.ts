/** What happens at each call that the filter lets us see (filter.ts lists the same). */
import { NR } from '../../os/numbers.ts';
import type { SyscallHandler } from '../context.ts';
import { capability } from './capability.ts';
import { clone, close, closeRange, replace, ring } from './fds.ts';
import { mount, userfaultfd } from './held-back.ts';
import { ioctl } from './ioctl.ts';
import { exec, exit } from './lifetime.ts';
import { mmap } from './mmap.ts';
import { open } from './open.ts';
import { access, readlink, stat, xattr } from './stat.ts';
import { bind, receiveFrom, receiveMessage, setOption, socket, socketName } from './socket.ts';
import { chdir, statfs } from './statfs.ts';
import { duplicate, move, readWrite, vmsplice } from './stream.ts';

const HANDLERS = {
  ioctl,
  mmap,
  open,
  openat: open,
  openat2: open,
  creat: open,
  stat,
  lstat: stat,
  fstat: stat,
  newfstatat: stat,
  statx: stat,
  access,
  faccessat: access,
  faccessat2: access,
  readlink,
  readlinkat: readlink,
  socket,
  bind,
  getsockname: socketName,
  setsockopt: setOption,
  recvfrom: receiveFrom,
  recvmsg: receiveMessage,
  statfs,
  fstatfs: statfs,
  chdir,
  getxattr: xattr,
  lgetxattr: xattr,
  listxattr: xattr,
  llistxattr: xattr,
  read: readWrite,
  write: readWrite,
  readv: readWrite,
  writev: readWrite,
  pread64: readWrite,
  pwrite64: readWrite,
  preadv: readWrite,
  pwritev: readWrite,
  preadv2: readWrite,
  pwritev2: readWrite,
  tee: move,
  sendfile: move,
  splice: move,
  vmsplice,
  capget: capability,
  capset: capability,
  close,
  dup2: replace,
  dup3: replace,
  close_range: closeRange,
  clone,
  clone3: clone,
  io_uring_setup: ring,
  dup: duplicate,
  fcntl: duplicate,
  execve: exec,
  execveat: exec,
  exit_group: exit,
  userfaultfd,
  mount,
  fsopen: mount,
} satisfies Partial<Record<keyof typeof NR, SyscallHandler>>;

export type Syscall = { readonly name: string; readonly handle: SyscallHandler };

/** By system call number. */
export const SYSCALLS: ReadonlyMap<number, Syscall> = new Map(
  Object.entries(HANDLERS).map(([name, handle]) => [
    NR[name as keyof typeof HANDLERS],
    { name, handle },
  ]),
);
