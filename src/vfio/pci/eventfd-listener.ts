/**
 * An eventfd that a client signals to make a device do something: unmask INTx, write a register. At most one is in place at a
 * time; one whose last fd was closed makes room by itself.
 *
 * After drivers/vfio/virqfd.c.
 */
import { Errno } from '../../base/errno.ts';
import type { Signal } from '../../base/task.ts';

export class EventfdListener {
  #signal: Signal | undefined;

  /**
   * @param signal kept until {@link disable}; released at once where this fails
   * @throws Errno EBUSY while another one is in place
   */
  enable(signal: Signal, listener: () => void): void {
    if (this.#signal?.closed === true) this.disable();
    if (this.#signal !== undefined) {
      signal.release();
      throw new Errno('EBUSY', 'an eventfd is in place already');
    }
    this.#signal = signal;
    signal.listen(listener);
  }

  disable(): void {
    this.#signal?.unlisten();
    this.#signal?.release();
    this.#signal = undefined;
  }
}
