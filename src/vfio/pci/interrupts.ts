/**
 * Interrupts of a device under vfio-pci: from INTx, MSI and MSI-X to the client's eventfds, and what SET_IRQS does to that.
 *
 * Invariants: at most one of the three kinds is active; INTx that was delivered is masked until the client unmasks it; a vector has an
 * eventfd exactly while it has a handler.
 *
 * After drivers/vfio/pci/vfio_pci_intrs.c.
 */
import { Errno } from '../../base/errno.ts';
import type { Signal, Task } from '../../base/task.ts';
import { D0, type ManagedFunction } from '../../machine/pci/managed-function.ts';
import type { MessageKind } from '../../machine/pci/message-interrupts.ts';
import {
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_REQ_IRQ_INDEX,
} from '../../uapi/vfio.ts';
import { EventfdListener } from './eventfd-listener.ts';

/** A call of SET_IRQS, its header checked. */
export type SetIrqs = {
  readonly flags: number;
  readonly index: number;
  readonly start: number;
  readonly count: number;
  /** one byte or one fd each, as the flags say; empty for NONE */
  readonly data: DataView;
};

/** INTx in use. */
type Pin = { trigger: Signal | undefined; masked: boolean; readonly unmask: EventfdListener };

export class Interrupts {
  readonly #managed: ManagedFunction;
  #kind: 'intx' | MessageKind | undefined;
  #pin: Pin | undefined;
  /** INTx Disable of the user's command register */
  #userDisabled = false;
  readonly #vectors = new Map<number, Signal>();
  #queueMax = 0;
  #error: Signal | undefined;
  #request: Signal | undefined;

  constructor(managed: ManagedFunction) {
    this.#managed = managed;
  }

  get msiActive(): boolean {
    return this.#kind === 'msi';
  }

  get msiQueueMax(): number {
    return this.#queueMax;
  }

  get intxActive(): boolean {
    return this.#kind === 'intx';
  }

  /** Executes a call. ENOTTY for an action that the index does not have, EINVAL, EBUSY, errors of eventfds. */
  set(task: Task, call: SetIrqs): void {
    const action = call.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    const { index } = call;
    const isPin = index === VFIO_PCI_INTX_IRQ_INDEX;
    if (isPin && action === VFIO_IRQ_SET_ACTION_MASK) this.#maskPin(call);
    else if (isPin && action === VFIO_IRQ_SET_ACTION_UNMASK) this.#unmaskPin(task, call);
    else if (action === VFIO_IRQ_SET_ACTION_TRIGGER) this.#trigger(task, call);
    else {
      throw new Errno('ENOTTY', `interrupt index ${index} has no action 0x${action.toString(16)}`);
    }
  }

  #trigger(task: Task, call: SetIrqs): void {
    switch (call.index) {
      case VFIO_PCI_INTX_IRQ_INDEX:
        this.#triggerPin(task, call);
        return;
      case VFIO_PCI_MSI_IRQ_INDEX:
        this.#triggerMessages(task, call, 'msi');
        return;
      case VFIO_PCI_MSIX_IRQ_INDEX:
        this.#triggerMessages(task, call, 'msix');
        return;
      case VFIO_PCI_ERR_IRQ_INDEX:
        this.#error = this.#triggerSingle(task, call, this.#error);
        return;
      case VFIO_PCI_REQ_IRQ_INDEX:
        this.#request = this.#triggerSingle(task, call, this.#request);
    }
  }

  // INTx

  /** The pin went high: mask it, tell the client. @returns whether it was this device */
  #pinRaised(): boolean {
    const pin = this.#pin;
    if (pin === undefined) return false;
    if (!this.#managed.canMaskIntx) this.#managed.hardware.pin.disable();
    else if (pin.masked || !this.#managed.checkAndMaskIntx(true)) return false;
    pin.masked = true;
    this.#signalPin();
    return true;
  }

  #signalPin(): void {
    if (this.#kind === 'intx' && !this.#userDisabled) this.#pin?.trigger?.signal();
  }

  /** @returns false if it was masked already, or INTx is not in use */
  mask(): boolean {
    const managed = this.#managed;
    const pin = this.#pin;
    if (pin === undefined) {
      // The user's INTx Disable: the real bit follows it.
      if (managed.canMaskIntx) managed.setIntx(false);
      return false;
    }
    if (pin.masked) return false;
    if (managed.canMaskIntx) managed.setIntx(false);
    else managed.hardware.pin.disable();
    pin.masked = true;
    return true;
  }

  /** Where it is pending again, the client is told at once and it stays masked. */
  unmask(): void {
    const managed = this.#managed;
    const pin = this.#pin;
    if (pin === undefined) {
      if (managed.canMaskIntx) managed.setIntx(true);
      return;
    }
    if (!pin.masked || this.#userDisabled) return;
    if (!managed.canMaskIntx) {
      pin.masked = false;
      managed.hardware.pin.enable();
      return;
    }
    pin.masked = !managed.checkAndMaskIntx(false);
    if (pin.masked) this.#signalPin();
  }

  /** The user's INTx Disable bit was written. */
  userDisables(disabled: boolean): void {
    if (disabled === this.#userDisabled) return;
    this.#userDisabled = disabled;
    if (disabled) this.mask();
    else this.unmask();
  }

  #requirePin(call: SetIrqs): void {
    if (this.#kind !== 'intx') throw new Errno('EINVAL', 'INTx is not enabled');
    requireOne(call);
  }

  #maskPin(call: SetIrqs): void {
    this.#requirePin(call);
    if ((call.flags & VFIO_IRQ_SET_DATA_EVENTFD) !== 0) {
      throw new Errno('ENOTTY', 'INTx cannot be masked by eventfd');
    }
    if (isSet(call, 0)) this.mask();
  }

  #unmaskPin(task: Task, call: SetIrqs): void {
    this.#requirePin(call);
    if ((call.flags & VFIO_IRQ_SET_DATA_EVENTFD) === 0) {
      if (isSet(call, 0)) this.unmask();
      return;
    }
    const fd = fdAt(call, 0);
    const listener = this.#pin?.unmask;
    if (fd < 0) listener?.disable();
    else {
      listener?.enable(task.eventfd(fd), () => {
        this.unmask();
      });
    }
  }

  #triggerPin(task: Task, call: SetIrqs): void {
    const { flags, count } = call;
    const active = this.#kind === 'intx';
    if (active && count === 0 && (flags & VFIO_IRQ_SET_DATA_NONE) !== 0) {
      this.#disablePin();
      return;
    }
    if (!active) this.#requireFree();
    requireOne(call);
    if ((flags & VFIO_IRQ_SET_DATA_EVENTFD) !== 0) {
      const fd = fdAt(call, 0);
      this.#setPinTrigger(fd < 0 ? undefined : task.eventfd(fd));
      return;
    }
    if (!active) throw new Errno('EINVAL', 'INTx is not enabled');
    if (isSet(call, 0)) this.#signalPin();
  }

  #requireFree(): void {
    if (this.#kind !== undefined) throw new Errno('EINVAL', `${NAMES[this.#kind]} is enabled`);
  }

  #setPinTrigger(trigger: Signal | undefined): void {
    if (this.#pin !== undefined) {
      this.#pin.trigger?.release();
      this.#pin.trigger = trigger;
      return;
    }
    const managed = this.#managed;
    if (!managed.hasIrq) {
      trigger?.release();
      throw new Errno('ENODEV', `the interrupt pin of ${managed.pci.name} is not connected`);
    }
    const masked = this.#userDisabled;
    this.#pin = { trigger, masked, unmask: new EventfdListener() };
    this.#kind = 'intx';
    if (managed.canMaskIntx) managed.setIntx(!masked);
    else if (masked) managed.hardware.pin.disable();
    managed.hardware.pin.handle(() => this.#pinRaised());
  }

  #disablePin(): void {
    this.#managed.hardware.pin.handle(undefined);
    this.#pin?.unmask.disable();
    this.#pin?.trigger?.release();
    this.#pin = undefined;
    this.#kind = undefined;
  }

  // MSI and MSI-X

  #triggerMessages(task: Task, call: SetIrqs, kind: MessageKind): void {
    const { flags, count, start } = call;
    const active = this.#kind === kind;
    if (active && count === 0 && (flags & VFIO_IRQ_SET_DATA_NONE) !== 0) {
      this.#disableMessages();
      return;
    }
    if (!active) this.#requireFree();
    if ((flags & VFIO_IRQ_SET_DATA_EVENTFD) !== 0) {
      if (active) this.#setVectors(task, call);
      else this.#enableMessages(task, call, kind);
      return;
    }
    if (!active) throw new Errno('EINVAL', `${NAMES[kind]} is not enabled`);
    for (let i = 0; i < count; i++) if (isSet(call, i)) this.#vectors.get(start + i)?.signal();
  }

  #enableMessages(task: Task, call: SetIrqs, kind: MessageKind): void {
    const vectors = call.start + call.count;
    const { messages, powerState, pci } = this.#managed;
    const awake = powerState === D0;
    if (vectors === 0 && (awake || kind === 'msix')) {
      throw new Errno('ERANGE', `count is 0: no ${NAMES[kind]} vector to enable`);
    }
    if (!awake) throw new Errno('EINVAL', `${pci.name} is not in D0`);
    this.#withMemory(() => {
      messages.enable(kind, vectors);
    });
    this.#kind = kind;
    if (kind === 'msi') this.#queueMax = Math.ceil(Math.log2(vectors));
    try {
      this.#setVectors(task, call);
    } catch (error) {
      this.#disableMessages();
      throw error;
    }
  }

  /** All of them, or none: where one fails, every vector up to it loses its eventfd. */
  #setVectors(task: Task, call: SetIrqs): void {
    let vector = call.start;
    try {
      for (let i = 0; i < call.count; i++) {
        vector = call.start + i;
        this.#setVector(task, vector, fdAt(call, i));
      }
    } catch (error) {
      for (let each = call.start; each <= vector; each++) this.#dropVector(each);
      throw error;
    }
  }

  #setVector(task: Task, vector: number, fd: number): void {
    const { messages } = this.#managed;
    this.#dropVector(vector);
    if (fd < 0) return;
    if (!messages.allocated(vector)) {
      if (this.#kind !== 'msix') throw new Errno('EINVAL', `MSI vector ${vector} is not allocated`);
      messages.allocate(vector);
    }
    const trigger = task.eventfd(fd);
    this.#vectors.set(vector, trigger);
    this.#withMemory(() => {
      messages.handle(vector, () => {
        trigger.signal();
      });
    });
  }

  #dropVector(vector: number): void {
    const trigger = this.#vectors.get(vector);
    if (trigger === undefined) return;
    this.#withMemory(() => {
      this.#managed.messages.handle(vector, undefined);
    });
    this.#vectors.delete(vector);
    trigger.release();
  }

  // The MSI-X table is in memory: decoding is on while Linux writes it, whatever the user chose.
  #withMemory(work: () => void): void {
    this.#managed.withMemory(work);
  }

  #disableMessages(): void {
    for (const vector of [...this.#vectors.keys()].sort((a, b) => a - b)) this.#dropVector(vector);
    this.#withMemory(() => {
      this.#managed.messages.disable();
    });
    this.#kind = undefined;
  }

  // ERR and REQ

  /** @returns the eventfd that is in place afterwards */
  #triggerSingle(task: Task, call: SetIrqs, current: Signal | undefined): Signal | undefined {
    const { flags, count, start } = call;
    if (start !== 0 || count > 1) throw new Errno('EINVAL', 'there is one interrupt of this index');
    if ((flags & VFIO_IRQ_SET_DATA_NONE) !== 0) {
      if (current === undefined) throw new Errno('EINVAL', 'no eventfd is in place');
      if (count === 0) return replaced(current, undefined);
      current.signal();
      return current;
    }
    if (count === 0) throw new Errno('EINVAL', 'count is 0');
    if ((flags & VFIO_IRQ_SET_DATA_BOOL) !== 0) {
      if (isSet(call, 0)) current?.signal();
      return current;
    }
    const fd = fdAt(call, 0);
    if (fd < -1) throw new Errno('EINVAL', `${fd} is not a valid fd`);
    return replaced(current, fd === -1 ? undefined : task.eventfd(fd));
  }

  /** Somebody wants the device back. @returns whether the client was told */
  request(): boolean {
    this.#request?.signal();
    return this.#request !== undefined;
  }

  /** The device reported an uncorrectable error (AER). */
  error(): void {
    this.#error?.signal();
  }

  /** The kind that is in use goes. */
  disable(): void {
    if (this.#kind === 'intx') this.#disablePin();
    else if (this.#kind !== undefined) this.#disableMessages();
    this.#userDisabled = false;
  }

  /** After the device was closed. */
  releaseSingles(): void {
    this.#error = replaced(this.#error, undefined);
    this.#request = replaced(this.#request, undefined);
  }
}

const NAMES = { intx: 'INTx', msi: 'MSI', msix: 'MSI-X' } as const;

function replaced(old: Signal | undefined, next: Signal | undefined): Signal | undefined {
  old?.release();
  return next;
}

function requireOne({ start, count }: SetIrqs): void {
  if (start !== 0 || count !== 1) {
    throw new Errno('EINVAL', `start ${start} and count ${count}: INTx is one interrupt`);
  }
}

/** NONE counts as set, BOOL as it says. */
function isSet({ flags, data }: SetIrqs, i: number): boolean {
  return (flags & VFIO_IRQ_SET_DATA_BOOL) === 0 || data.getUint8(i) !== 0;
}

function fdAt({ data }: SetIrqs, i: number): number {
  return data.getInt32(4 * i, true);
}
