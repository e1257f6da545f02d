/** uiommu/testing: what tests of programs that use the library want to say. */
import { Errno, type ErrnoCode } from './base/errno.ts';
import type { InProcessClient } from './client/in-process.ts';
import type { Kernel } from './kernel/kernel.ts';

/** A promise of a test that does not hold. */
class Unmet extends Error {
  override readonly name = 'AssertionError';
  readonly code = 'ERR_ASSERTION';
}

/**
 * Every client exits, and then the machine holds nothing any more: no context, no pin, no file.
 * @throws AssertionError that lists what is left
 */
export function assertNoLeaks(kernel: Kernel, ...clients: readonly InProcessClient[]): void {
  for (const client of clients) client.exit();
  const left = kernel.leaks();
  if (left.length > 0) throw new Unmet(`left after every client has exited: ${left.join('; ')}`);
}

/**
 * A call is refused with an errno. @returns the refusal, for a look at its reason
 * @throws AssertionError where it succeeds or is refused with another errno; whatever else the call throws
 */
export function assertRefused(code: ErrnoCode, call: () => unknown): Errno {
  try {
    call();
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
    if (error.code === code) return error;
    throw new Unmet(`expected ${code}, was refused with ${error.code}: ${error.message}`);
  }
  throw new Unmet(`expected ${code}, but the call succeeded`);
}
