/** One line on a terminal that says what is being done; nothing where nobody watches, except what takes minutes. */
import { performance } from 'node:perf_hooks';

const EVERY_MS = 200;

export type Progress = {
  /** Replaces the line. */
  show(text: string): void;
  /** Clears the line, so that results can be printed. */
  clear(): void;
};

export function progress(stream: NodeJS.WriteStream = process.stderr): Progress {
  let last = -Infinity;
  if (!stream.isTTY) return { show: () => undefined, clear: () => undefined };
  return {
    show: (text) => {
      if (performance.now() - last < EVERY_MS) return;
      last = performance.now();
      stream.write(`\r\x1b[K${text.slice(0, stream.columns - 1)}`);
    },
    clear: () => {
      last = -Infinity;
      stream.write('\r\x1b[K');
    },
  };
}
