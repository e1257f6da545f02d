/** Calls that change what file numbers stand for. The kernel carries them out; we forget what they change (fds/fd-cache.ts). */
import { CLONE_FILES, CLONE_THREAD, NR } from '../../os/numbers.ts';
import { pieceView, readMemory } from '../../os/process.ts';
import { CONTINUE, type Context } from '../context.ts';
import { callerAndFile } from './caller.ts';

const FLAGS_SIZE = 8;

export function close(context: Context): number {
  const { listener, fdCache: numbers, files } = context;
  const number = listener.int(0);
  numbers.forget(listener.tid, number, number);
  if (number < files.streamFloor) return CONTINUE;
  const found = callerAndFile(context, number);
  if (found === undefined) return CONTINUE;
  // The number that a stream stood for is free for the next file.
  const { entry, thread } = found;
  files.closing(entry, thread.table);
  return CONTINUE;
}

export function replace({ listener, fdCache: numbers }: Context): number {
  const number = listener.int(1);
  numbers.forget(listener.tid, number, number);
  return CONTINUE;
}

export function closeRange({ listener, fdCache: numbers }: Context): number {
  numbers.forget(listener.tid, listener.uint(0), listener.uint(1));
  return CONTINUE;
}

/** Threads share the table of their process, which is as it should be; another process must not. */
export function clone({ listener, fdCache: numbers }: Context): number {
  const flags =
    listener.nr === NR.clone ? listener.uint(0) : cloneFlags(listener.tid, listener.word(0));
  if ((flags & (CLONE_FILES | CLONE_THREAD)) === CLONE_FILES) numbers.giveUp();
  return CONTINUE;
}

export function ring({ fdCache: numbers }: Context): number {
  numbers.giveUp();
  return CONTINUE;
}

// struct clone_args begins with them.
function cloneFlags(tid: number, address: bigint): number {
  return readMemory(tid, address, FLAGS_SIZE) === FLAGS_SIZE ? pieceView.getUint32(0, true) : 0;
}
