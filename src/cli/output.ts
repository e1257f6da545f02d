/**
 * What goes to a terminal. Machine files, captures and the names of a client's files come from anybody: none of them may
 * move the cursor, set a title or reorder a line. Control characters other than line feed and tab, and those that
 * change the direction of text, are written as \uXXXX, which JSON reads back as the character. Colours are those of
 * style.ts alone.
 */
import { writeSync } from 'node:fs';

import { COLOURS } from './style.ts';

const OWN = `\\u001b\\[(?:${COLOURS.join('|')})m`;
// eslint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/;
const UNSAFE = new RegExp(`${OWN}|${CONTROL.source}`, 'g');

/** The text without what a terminal would obey. */
export function printable(text: string): string {
  if (!CONTROL.test(text)) return text;
  return text.replace(UNSAFE, (found) =>
    found.length > 1 ? found : `\\u${found.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}

const CANNOT_WRITE = 2;

// Streams are made when they are first asked for: that changes the mode of a pipe, which under `run` is the program's.
let prepared = false;

function prepare(): void {
  if (prepared) return;
  prepared = true;
  // A reader that has seen enough ends the command quietly.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') complain(`uiommu: cannot write the output: ${error.message}\n`);
    process.exit(error.code === 'EPIPE' ? 0 : CANNOT_WRITE);
  });
  // Nobody is left who could be told.
  process.stderr.on('error', () => undefined);
}

/** Writes to standard output. What cannot be written ends the command with status 2. */
export function print(text: string): void {
  prepare();
  process.stdout.write(printable(text));
}

/** Writes to standard error. */
export function complain(text: string): void {
  prepare();
  process.stderr.write(printable(text));
}

/**
 * Writes at once and in order with what the program of a run writes itself; a full pipe is waited for.
 * @returns why it could not be written; a pipe that nobody reads any more is no failure
 */
export function writeAll(fd: number, text: string): NodeJS.ErrnoException | undefined {
  let bytes = Buffer.from(printable(text));
  while (bytes.length > 0) {
    try {
      bytes = bytes.subarray(writeSync(fd, bytes));
    } catch (error) {
      const failure = error as NodeJS.ErrnoException;
      if (failure.code === 'EPIPE') return undefined;
      if (failure.code !== 'EAGAIN') return failure;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
  return undefined;
}
