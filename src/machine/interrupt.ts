/**
 * Interrupts between a function and whoever handles them: the pin (INTx), which has a level, and messages (MSI, MSI-X).
 *
 * A model raises and lowers; what is disabled in configuration space does not get through: the pin by INTx Disable, messages by
 * their enable bit, the vector's mask and bus mastering. A handler is what a driver registered (request_irq).
 *
 * Invariants: the Interrupt Status bit shows the model's level whether or not the pin is disabled; a handler of the pin runs as long
 * as the level is high, somebody handles it and the line is not disabled.
 *
 * PCI Local Bus 3.0, sections 6.2.2, 6.2.4 and 6.8; kernel/irq/handle.c for levels.
 */
import { COMMAND, STATUS } from './pci/pci-regs.ts';
import { REGISTER, type ConfigSpace } from './pci/config-space.ts';

/** What a device model is given to interrupt with. */
export type InterruptSink = {
  /** Level of the pin, as the model wants it. */
  setLevel(high: boolean): void;
  /** Messages are enabled: the model then does not use its pin. */
  readonly messages: boolean;
  /** Sends the message of a vector; without bus mastering it is lost. */
  message(vector: number): void;
};

/** @returns whether the interrupt was the handler's, and its cause is masked or gone */
export type PinHandler = () => boolean;

/** The interrupt pin of one function. */
export class InterruptPin {
  readonly #config: ConfigSpace;
  #asserted = false;
  #handler: PinHandler | undefined;
  #disabled = 0;
  #running = false;

  constructor(config: ConfigSpace) {
    this.#config = config;
  }

  /** The model's level. */
  set(high: boolean): void {
    this.#asserted = high;
    const status = this.#config.u16(REGISTER.STATUS);
    this.#config.setU16(
      REGISTER.STATUS,
      high ? status | STATUS.INTERRUPT : status & ~STATUS.INTERRUPT,
    );
    this.update();
  }

  get #level(): boolean {
    const disabled = (this.#config.u16(REGISTER.COMMAND) & COMMAND.INTX_DISABLE) !== 0;
    return this.#asserted && !disabled;
  }

  /** Level, INTx Disable or the handler may have changed. */
  update(): void {
    if (this.#running) return;
    this.#running = true;
    // A handler that does not handle it would be called for ever; Linux disables such a line.
    while (this.#level && this.#disabled === 0 && this.#handler?.() === true);
    this.#running = false;
  }

  /** request_irq; undefined: free_irq */
  handle(handler: PinHandler | undefined): void {
    this.#handler = handler;
    if (handler === undefined) this.#disabled = 0;
    this.update();
  }

  /** disable_irq and enable_irq, which nest. */
  disable(): void {
    this.#disabled++;
  }

  enable(): void {
    this.#disabled--;
    this.update();
  }
}
