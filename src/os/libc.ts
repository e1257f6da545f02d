/**
 * libc through koffi: one entry for system calls, one for each function that is no system call. Nothing outside src/os
 * knows koffi, so that another foreign-function interface can take its place here.
 *
 * Numbers and addresses go in as JavaScript numbers (user addresses are below 2^47) or bigints. Memory whose address is
 * handed to the kernel lives in an Arena: the address of a Buffer would not keep the Buffer alive.
 */
import { createRequire } from 'node:module';
import type koffiPackage from 'koffi';
import { UnsupportedError } from './unsupported.ts';

type Koffi = typeof koffiPackage;

// Optional: the engine in process works without it. Only what calls the kernel comes here.
const koffi = loadKoffi();

function loadKoffi(): Koffi {
  try {
    return withoutStderr(() => createRequire(import.meta.url)('koffi') as Koffi);
  } catch (error) {
    const why = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw new UnsupportedError(
      `the package koffi is needed to make system calls, and could not be loaded (${why}); expected: npm install koffi`,
    );
  }
}

// koffi copies every property of node:util. From Node 22 on one of them asks process.stderr whether it has colours, which makes
// the stream: a pipe becomes non-blocking, which under `run` is the program's as well, and Node opens a descriptor.
function withoutStderr<T>(act: () => T): T {
  const own = Object.getOwnPropertyDescriptor(process, 'stderr');
  if (own?.configurable !== true) return act();
  Object.defineProperty(process, 'stderr', { configurable: true, value: { isTTY: false } });
  try {
    return act();
  } finally {
    Object.defineProperty(process, 'stderr', own);
  }
}

export type Word = number | bigint;

const libc = koffi.load('libc.so.6');

// Each argument costs time of its own: what takes few gets an entry with few.
const raw = entry(6);
const rawLater = libc.func('long syscall(long, long, long, long, long, long, long)');
const rawShort = entry(3);

function entry(count: number): (...words: Word[]) => number {
  const words = Array<string>(1 + count).fill('long');
  return libc.func('syscall', 'long', words);
}

/**
 * One system call.
 * @returns what the kernel answers: the value, or the negative errno
 */
export function sys(nr: number, a: Word = 0, b: Word = 0, c: Word = 0, ...rest: Word[]): number {
  return sys6(nr, a, b, c, rest[0] ?? 0, rest[1] ?? 0, rest[2] ?? 0);
}

/** The same with three arguments, for paths that must be lean. */
export function sys3(nr: number, a: Word, b: Word, c: Word): number {
  const result = rawShort(nr, a, b, c);
  return result === -1 ? -koffi.errno() : result;
}

/** The same with all six arguments, for paths that must be lean. */
export function sys6(nr: number, a: Word, b: Word, c: Word, d: Word, e: Word, f: Word): number {
  const result = raw(nr, a, b, c, d, e, f);
  // errno must be read at once: nothing may come between.
  return result === -1 ? -koffi.errno() : result;
}

/** One system call, made by another thread. @returns its value, or -1 */
export function sysLater(
  nr: number,
  ...words: readonly [Word, Word, Word, Word, Word, Word]
): Promise<number> {
  return new Promise((resolve, reject) => {
    rawLater.async(nr, ...words, (error: Error | null, result: number) => {
      if (error === null) resolve(result);
      else reject(error);
    });
  });
}

const cloneFunction = libc.func('clone', 'int', ['long', 'long', 'int', 'long']);

/**
 * A process that runs machine code on a stack of its own.
 * @param start address of the code, called with `argument`; must not return
 * @param stack its upper end
 * @returns the pid, or the negative errno
 */
export function clone(start: Word, stack: Word, flags: number, argument: Word): number {
  const result = cloneFunction(start, stack, flags, argument) as number;
  return result === -1 ? -koffi.errno() : result;
}

/** An ArrayBuffer over memory that the process has mapped; it must stay mapped for as long as the buffer is reachable. */
export function viewMemory(address: Word, length: number): ArrayBuffer {
  return koffi.view(BigInt(address), length);
}

export type Watch = { close(): void };

// A handle that nobody references is collected, and polling stops without a word.
const watches = new Set<Watch>();

/** Calls back from the event loop, again and again, while `fd` is readable or hung up. */
export function watchReadable(fd: number, callback: () => void): Watch {
  const handle = koffi.node.poll(fd, { readable: true }, callback);
  const watch = {
    close(): void {
      if (watches.delete(watch)) handle.close();
    },
  };
  watches.add(watch);
  return watch;
}
