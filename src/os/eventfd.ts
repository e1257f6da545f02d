/**
 * Eventfds of other processes, through a descriptor of ours on the same counter. Nothing here can wait: the other side may fill the
 * counter, or read it, at any moment.
 *
 * Signalling goes through asynchronous I/O whose completion adds 1 in the kernel (eventfd_signal): unlike write(2) it does not wait for
 * room, and a full counter stays full, as when a device signals.
 *
 * After fs/eventfd.c and fs/aio.c.
 */
import { allocate } from './arena.ts';
import { closeFile, openPath } from './files.ts';
import { sys, sys6 } from './libc.ts';
import { NR, O_RDONLY } from './numbers.ts';
import { openProcess } from './process.ts';

const IOCB_FLAG_RESFD = 1;
const RWF_NOWAIT = 8;
/** "here", for files without positions */
const NO_POSITION = 0xffff_ffff_ffff_ffffn;

// struct iocb, then the list of one, an io_event, and what the read of it leaves
const iocb = allocate(64);
const list = allocate(8);
const event = allocate(32);
const buffer = allocate(8);
const vector = allocate(16);
list.view.setBigUint64(0, BigInt(iocb.address), true);
vector.view.setBigUint64(0, BigInt(buffer.address), true);
vector.view.setBigUint64(8, 8n, true);

let queue: bigint | undefined;
let zero = -1;

/** The queue of completions, made on first use. @returns undefined where the host has none */
function completions(): bigint | undefined {
  if (queue !== undefined) return queue;
  buffer.view.setBigUint64(0, 0n, true);
  if (sys(NR.io_setup, 1, buffer.address) < 0) return undefined;
  queue = buffer.view.getBigUint64(0, true);
  zero = openPath('/dev/zero', O_RDONLY);
  return queue;
}

/** The same description as descriptor `fd` of a process; a negative errno. */
export function takeDescriptor(pid: number, fd: number): number {
  const pidfd = openProcess(pid);
  if (pidfd < 0) return pidfd;
  const taken = sys(NR.pidfd_getfd, pidfd, fd, 0);
  closeFile(pidfd);
  return taken;
}

/** Adds 1. @returns false where the host does not let us */
export function signalEventfd(fd: number): boolean {
  const context = completions();
  if (context === undefined || zero < 0) return false;
  const { view } = iocb;
  view.setUint32(20, zero, true);
  view.setBigUint64(24, BigInt(buffer.address), true);
  view.setBigUint64(32, 1n, true);
  view.setUint32(56, IOCB_FLAG_RESFD, true);
  view.setUint32(60, fd, true);
  const submitted = sys(NR.io_submit, context, 1, list.address);
  if (submitted === 1) sys6(NR.io_getevents, context, 0, 1, event.address, 0, 0);
  return submitted === 1;
}

/** Takes the count. @returns undefined if it is 0 */
export function takeCount(fd: number): bigint | undefined {
  const got = sys6(NR.preadv2, fd, vector.address, 1, NO_POSITION, NO_POSITION, RWF_NOWAIT);
  return got === 8 ? buffer.view.getBigUint64(0, true) : undefined;
}
