/**
 * Progress of something that takes long: nothing for the first two seconds, then one line on the terminal's standard error
 * that is rewritten and wiped at the end. Where standard error is not a terminal nothing is shown.
 */
const QUIET_MS = 2000;
const EVERY_MS = 200;

export type Progress = {
  /** @param done of `total` steps */
  step(done: number, total: number): void;
  end(): void;
};

/** @param what "reading devices" */
export function startProgress(what: string, stream: NodeJS.WriteStream = process.stderr): Progress {
  const start = Date.now();
  let shown = 0;
  return {
    step(done, total) {
      const now = Date.now();
      if (!stream.isTTY || now - start < QUIET_MS || now - shown < EVERY_MS) return;
      shown = now;
      stream.write(`\r${what}: ${done} of ${total}\u001b[K`);
    },
    end() {
      if (shown > 0) stream.write('\r\u001b[K');
    },
  };
}
