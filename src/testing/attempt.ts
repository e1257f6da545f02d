/** A call of the engine as recordings tell it. */
import { Errno } from '../base/errno.ts';

/** "ok" or the errno, and the reason of a refusal, '' without one. Whatever else is thrown is a bug and goes on. */
export function attempt(action: () => unknown): {
  readonly answer: string;
  readonly reason: string;
} {
  try {
    action();
    return { answer: 'ok', reason: '' };
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    return { answer: error.code, reason: error.reason };
  }
}
