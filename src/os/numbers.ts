/** System call numbers and flags of Linux x86-64 (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi). */

export const NR = {
  read: 0,
  write: 1,
  open: 2,
  close: 3,
  stat: 4,
  fstat: 5,
  lstat: 6,
  poll: 7,
  lseek: 8,
  mmap: 9,
  mprotect: 10,
  rt_sigaction: 13,
  rt_sigprocmask: 14,
  ioctl: 16,
  pread64: 17,
  pwrite64: 18,
  readv: 19,
  writev: 20,
  access: 21,
  sched_yield: 24,
  sendfile: 40,
  dup: 32,
  socket: 41,
  recvfrom: 45,
  recvmsg: 47,
  bind: 49,
  getsockname: 51,
  setsockopt: 54,
  dup2: 33,
  clone: 56,
  execve: 59,
  exit: 60,
  kill: 62,
  fcntl: 72,
  ftruncate: 77,
  chdir: 80,
  creat: 85,
  readlink: 89,
  setsid: 112,
  capget: 125,
  capset: 126,
  prctl: 157,
  mount: 165,
  statfs: 137,
  fstatfs: 138,
  getxattr: 191,
  lgetxattr: 192,
  listxattr: 194,
  llistxattr: 195,
  exit_group: 231,
  tgkill: 234,
  epoll_wait: 232,
  epoll_ctl: 233,
  waitid: 247,
  openat: 257,
  newfstatat: 262,
  readlinkat: 267,
  faccessat: 269,
  splice: 275,
  tee: 276,
  vmsplice: 278,
  epoll_create1: 291,
  dup3: 292,
  pipe2: 293,
  inotify_init1: 294,
  inotify_add_watch: 254,
  preadv: 295,
  pwritev: 296,
  prlimit64: 302,
  process_vm_readv: 310,
  process_vm_writev: 311,
  kcmp: 312,
  seccomp: 317,
  getrandom: 318,
  memfd_create: 319,
  execveat: 322,
  io_setup: 206,
  io_getevents: 208,
  io_submit: 209,
  eventfd2: 290,
  preadv2: 327,
  pwritev2: 328,
  userfaultfd: 323,
  statx: 332,
  pidfd_send_signal: 424,
  io_uring_setup: 425,
  fsopen: 430,
  pidfd_open: 434,
  pidfd_getfd: 438,
  clone3: 435,
  close_range: 436,
  openat2: 437,
  faccessat2: 439,
} as const;

export const CLONE_VM = 0x100;
export const CLONE_FILES = 0x400;
export const CLONE_THREAD = 0x10000;

export const AT_FDCWD = -100;
export const AT_SYMLINK_NOFOLLOW = 0x100;
export const AT_EACCESS = 0x200;
export const AT_NO_AUTOMOUNT = 0x800;
export const AT_EMPTY_PATH = 0x1000;
export const AT_STATX_SYNC_TYPE = 0x6000;

export const O_RDONLY = 0;
export const O_WRONLY = 1;
export const O_RDWR = 2;
export const O_ACCMODE = 3;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;
export const O_NONBLOCK = 0o4000;
export const O_ASYNC = 0o20000;
export const O_DIRECT = 0o40000;
export const O_DIRECTORY = 0o200000;
export const O_NOFOLLOW = 0o400000;
export const O_NOATIME = 0o1000000;
export const O_CLOEXEC = 0o2000000;
export const O_SYNC = 0o4010000;
export const O_PATH = 0o10000000;
/** the part of O_TMPFILE that is not O_DIRECTORY */
export const O_TMPFILE_ALONE = 0o20000000;
