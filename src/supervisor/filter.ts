/**
 * Which system calls of a client are looked at. Everything else runs at native speed. Looked at are: calls that take a
 * path (and the stat family, which may be asked about one of our files); ioctls of type ';', the letter of iommufd and
 * VFIO, or of dma-bufs; shared mappings of files; reads and writes of file numbers from the stream floor on, where our files
 * live whose data we make (event queues), in any way, and closing those; what gives a low file number another meaning (fds/fd-cache.ts);
 * capabilities, for clients that count as root; the end of a process, for the memory that outlives it; what makes pages and
 * names that somebody else has to supply (syscalls/held-back.ts).
 *
 * The end of a single thread is not looked at: libc ends a process by exit_group, and threads come and go.
 *
 * Other ABIs of the CPU (32-bit, x32) are let through: programs that use them run, without our machine.
 */
import {
  assemble,
  AUDIT_ARCH_X86_64,
  DATA_ARCH,
  DATA_NR,
  dataHigh,
  dataLow,
  SECCOMP_RET_ALLOW,
  SECCOMP_RET_USER_NOTIF,
  type Instruction,
} from '../os/bpf.ts';
import { FIRST_WINDOW_OFFSET, SECOND_REGION_HIGH } from '../base/file-offsets.ts';
import { CLONE_FILES, CLONE_THREAD, NR } from '../os/numbers.ts';
import { KNOWN_NUMBERS } from './fds/fd-cache.ts';
import { USERFAULTFD_IOC_NEW } from './syscalls/held-back.ts';

const X32_BIT = 0x40000000;
const IOCTL_TYPE_MASK = 0xff00;
const IOCTL_TYPE = 0x3b00; // ';'
const DMA_BUF_TYPE = 0x6200; // 'b'
const MAP_TYPE = 0x0f;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const F_DUPFD = 0;
const F_DUPFD_CLOEXEC = 1030;
const F_SETPIPE_SZ = 1031;
const F_GETPIPE_SZ = 1032;
const FIONREAD = 0x541b;
const HIGHEST_FD = 0x7fffffff;

const WINDOW_OFFSET_PREFIX = Number(FIRST_WINDOW_OFFSET >> 32n);
const PREFIX_MASK = 0xffff0000;

// By their first argument alone.
const STREAM_CALLS = [
  NR.read,
  NR.readv,
  NR.dup,
  NR.vmsplice,
  NR.bind,
  NR.getsockname,
  NR.setsockopt,
  NR.recvfrom,
  NR.recvmsg,
];
const AF_NETLINK = 16;
const NETLINK_KOBJECT_UEVENT = 15;
/** A shell's redirection: what is longer goes to no attribute. */
const STANDARD_OUTPUT = 1;
const LONGEST_VALUE = 256;
// By two file numbers, first argument and the one given: what moves bytes without a buffer.
const MOVING_CALLS = [
  ['tee', NR.tee, 1],
  ['sendfile', NR.sendfile, 1],
  ['splice', NR.splice, 2],
] as const;
// By their first argument, or by their offset.
const POSITIONED_CALLS = [NR.pread64, NR.pwrite64, NR.preadv, NR.pwritev, NR.preadv2, NR.pwritev2];
const ALWAYS = [
  NR.openat,
  NR.newfstatat,
  NR.open,
  NR.stat,
  NR.fstat,
  NR.lstat,
  NR.access,
  NR.creat,
  NR.readlink,
  NR.readlinkat,
  NR.faccessat,
  NR.faccessat2,
  NR.statx,
  NR.openat2,
  NR.statfs,
  NR.fstatfs,
  NR.chdir,
  NR.getxattr,
  NR.lgetxattr,
  NR.listxattr,
  NR.llistxattr,
  NR.execve,
  NR.execveat,
  NR.exit_group,
  NR.capget,
  NR.capset,
  NR.clone3,
  NR.io_uring_setup,
  NR.userfaultfd,
  NR.mount,
  NR.fsopen,
];

const when = (calls: readonly number[], label: string): Instruction[] =>
  calls.map((nr) => ['equal', nr, label]);

const IOCTL: readonly (Instruction | string)[] = [
  'ioctl:',
  ['load', dataLow(1)],
  ['and', IOCTL_TYPE_MASK],
  ['equal', IOCTL_TYPE, 'look'],
  ['equal', DMA_BUF_TYPE, 'look'],
  // What a pipe answers, and no stream of ours.
  ['load', dataLow(1)],
  ['equal', USERFAULTFD_IOC_NEW, 'look'],
  ['equal', FIONREAD, 'stream', 'allow'],
];

const SOCKET: readonly (Instruction | string)[] = [
  'socket:',
  ['load', dataLow(0)],
  ['equal', AF_NETLINK, undefined, 'allow'],
  ['load', dataLow(2)],
  ['equal', NETLINK_KOBJECT_UEVENT, 'look', 'allow'],
];

const FCNTL: readonly (Instruction | string)[] = [
  'fcntl:',
  ['load', dataLow(1)],
  ['equal', F_DUPFD, 'stream'],
  ['equal', F_DUPFD_CLOEXEC, 'stream'],
  ['equal', F_SETPIPE_SZ, 'stream'],
  ['equal', F_GETPIPE_SZ, 'stream', 'allow'],
];

const WRITE: readonly (Instruction | string)[] = [
  // `echo 1 > reset`: the shell opens the attribute and makes it its standard output.
  'write:',
  ['load', dataLow(2)],
  ['greater', LONGEST_VALUE, 'stream'],
  'writev:',
  ['load', dataLow(0)],
  ['equal', STANDARD_OUTPUT, 'look', 'stream'],
];

const mapping = (streamFloor: number): (Instruction | string)[] => [
  'mmap:',
  ['load', dataLow(3)],
  ['anyBit', MAP_ANONYMOUS, 'allow'],
  ['and', MAP_TYPE],
  ['equal', MAP_PRIVATE, undefined, 'look'],
  // Other private mappings are those of every program's libraries; devices are at high numbers.
  ['load', dataHigh(5)],
  ['and', PREFIX_MASK],
  ['equal', WINDOW_OFFSET_PREFIX, 'look'],
  ['load', dataLow(4)],
  ['atLeast', streamFloor, undefined, 'allow'],
  ['greater', HIGHEST_FD, 'allow', 'look'],
];

/**
 * The filter for a client.
 * @param streamFloor lowest number of files whose reads and writes are looked at
 * @returns assembled BPF
 */
export function buildFilter(streamFloor: number): Uint8Array {
  return assemble([
    ['load', DATA_ARCH],
    ['equal', AUDIT_ARCH_X86_64, undefined, 'allow'],
    ['load', DATA_NR],
    ['atLeast', X32_BIT, 'allow'],
    ...when(STREAM_CALLS, 'stream'),
    ['equal', NR.socket, 'socket'],
    ['equal', NR.write, 'write'],
    ['equal', NR.writev, 'writev'],
    ...MOVING_CALLS.map(([name, nr]): Instruction => ['equal', nr, name]),
    ['equal', NR.ioctl, 'ioctl'],
    ['equal', NR.mmap, 'mmap'],
    ...when(POSITIONED_CALLS, 'positioned'),
    ...when(ALWAYS, 'look'),
    ['equal', NR.close, 'close'],
    ['equal', NR.dup2, 'replace'],
    ['equal', NR.dup3, 'replace'],
    ['equal', NR.close_range, 'first number'],
    ['equal', NR.clone, 'clone'],
    ['equal', NR.fcntl, 'fcntl', 'allow'],

    ...IOCTL,
    ...mapping(streamFloor),

    ...SOCKET,
    ...WRITE,
    ...FCNTL,
    ...MOVING_CALLS.flatMap(([name, , argument]): (Instruction | string)[] => [
      `${name}:`,
      ['load', dataLow(argument)],
      ['atLeast', streamFloor, 'second number', 'stream'],
    ]),
    'second number:',
    ['greater', HIGHEST_FD, 'stream', 'look'],

    'clone:',
    ['load', dataLow(0)],
    ['and', CLONE_FILES | CLONE_THREAD],
    ['equal', CLONE_FILES, 'look', 'allow'],

    'replace:',
    ['load', dataLow(1)],
    ['atLeast', KNOWN_NUMBERS, 'allow', 'look'],

    'close:',
    ['load', dataLow(0)],
    ['atLeast', streamFloor, 'stream'],
    'first number:',
    ['load', dataLow(0)],
    ['atLeast', KNOWN_NUMBERS, 'allow', 'look'],

    'positioned:',
    ['load', dataHigh(3)],
    ['atLeast', SECOND_REGION_HIGH, 'look'],

    'stream:',
    ['load', dataLow(0)],
    ['atLeast', streamFloor, undefined, 'allow'],
    ['greater', HIGHEST_FD, 'allow', 'look'],

    'look:',
    ['return', SECCOMP_RET_USER_NOTIF],
    'allow:',
    ['return', SECCOMP_RET_ALLOW],
  ]);
}
