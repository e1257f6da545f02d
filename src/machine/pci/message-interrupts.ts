/**
 * MSI and MSI-X of one function as Linux's PCI core sets them up for a driver: vectors that were allocated, those that have a handler,
 * and what that does to the registers.
 *
 * Invariants: at most one of the two is enabled; while one is, INTx is disabled; a vector without handler is masked where the
 * function can mask.
 *
 * After drivers/pci/msi/{msi,api}.c. The message itself (address, data) is the platform's and shows nowhere: a message that a model
 * sends reaches the handler of its vector.
 */
import type { ManagedFunction } from './managed-function.ts';
import { CAP, MSI, MSIX } from './pci-regs.ts';

export type MessageKind = 'msi' | 'msix';

export class MessageInterrupts {
  readonly #function: ManagedFunction;
  readonly #msi: number;
  readonly #msix: number;
  #kind: MessageKind | undefined;
  /** MSI: log2 of the vectors that the function was told it has */
  #multiple = 0;
  // The mask that Linux believes in: written whole at each change, over what anybody else wrote.
  #mask = 0;
  readonly #allocated = new Set<number>();
  readonly #handlers = new Map<number, () => void>();
  /** vectors whose message reaches the processor although nobody handles it yet; it is handled later then */
  readonly #live = new Set<number>();
  readonly #pending = new Set<number>();

  constructor(managed: ManagedFunction) {
    this.#function = managed;
    this.#msi = managed.config.findCapability(CAP.MSI);
    this.#msix = managed.config.findCapability(CAP.MSIX);
    managed.hardware.onMessage = (vector) => {
      const handler = this.#handlers.get(vector);
      if (handler !== undefined) handler();
      else if (this.#live.has(vector)) this.#pending.add(vector);
    };
  }

  get enabled(): boolean {
    return this.#kind !== undefined;
  }

  /** Vectors that the function has of a kind; 0 without the capability. */
  count(kind: MessageKind): number {
    const { config } = this.#function;
    if (kind === 'msi') {
      return this.#msi === 0 ? 0 : 1 << ((config.u16(this.#msi + MSI.FLAGS) & MSI.QMASK) >> 1);
    }
    return this.#msix === 0 ? 0 : (config.u16(this.#msix + MSIX.FLAGS) & MSIX.TABLE_SIZE) + 1;
  }

  /** pci_alloc_irq_vectors with as many as asked for: all of them, as interrupt remapping allows several MSIs. */
  enable(kind: MessageKind, vectors: number): void {
    for (let vector = 0; vector < vectors; vector++) this.#allocated.add(vector);
    if (kind === 'msi') this.#enableMsi(vectors);
    else this.#enableMsix();
    this.#kind = kind;
  }

  #enableMsi(vectors: number): void {
    const { registers, config } = this.#function;
    const flags = this.#msi + MSI.FLAGS;
    registers.update16(flags, MSI.ENABLE, 0);
    this.#multiple = Math.ceil(Math.log2(vectors));
    if (this.#maskOffset !== undefined) this.#mask = config.u32(this.#maskOffset);
    this.#setMask(this.#allVectors, this.#allVectors);
    registers.update16(flags, MSI.QSIZE, this.#multiple << 4);
    this.#function.setIntx(false);
    registers.update16(flags, MSI.ENABLE, MSI.ENABLE);
    // Linux cannot reserve a vector for later where it cannot mask it: all are set up at once.
    if (this.#maskOffset === undefined) for (const each of this.#allocated) this.#live.add(each);
  }

  #enableMsix(): void {
    const { registers, hardware } = this.#function;
    const flags = this.#msix + MSIX.FLAGS;
    const both = MSIX.ENABLE | MSIX.MASK_ALL;
    registers.update16(flags, both, both);
    this.#function.setIntx(false);
    for (let vector = 0; vector < this.count('msix'); vector++) hardware.maskVector(vector, true);
    registers.update16(flags, MSIX.MASK_ALL, 0);
  }

  get #maskOffset(): number | undefined {
    const flags = this.#function.config.u16(this.#msi + MSI.FLAGS);
    if ((flags & MSI.MASKABLE) === 0) return undefined;
    return this.#msi + ((flags & MSI.SIXTY_FOUR) !== 0 ? MSI.MASK_64 : MSI.MASK_32);
  }

  get #allVectors(): number {
    return 2 ** this.count('msi') - 1;
  }

  #setMask(bits: number, value: number): void {
    const offset = this.#maskOffset;
    if (offset === undefined) return;
    this.#mask = ((this.#mask & ~bits) | (value & bits)) >>> 0;
    this.#function.registers.write(offset, 4, this.#mask);
  }

  /** The vector has an interrupt, which can be handled. */
  allocated(vector: number): boolean {
    return this.#allocated.has(vector);
  }

  /** pci_msix_alloc_irq_at: one more vector while MSI-X is enabled. */
  allocate(vector: number): void {
    this.#allocated.add(vector);
  }

  /** request_irq for one vector; undefined: free_irq, after which its message leads nowhere. */
  handle(vector: number, handler: (() => void) | undefined): void {
    const { hardware } = this.#function;
    if (handler === undefined) this.#handlers.delete(vector);
    else this.#handlers.set(vector, handler);
    this.#live.delete(vector);
    if (this.#kind === 'msi') this.#setMask(1 << vector, handler === undefined ? 1 << vector : 0);
    else hardware.maskVector(vector, handler === undefined);
    if (this.#pending.delete(vector)) handler?.();
  }

  /** pci_free_irq_vectors: no vector is handled any more. */
  disable(): void {
    const { registers } = this.#function;
    if (this.#kind === 'msi') {
      registers.update16(this.#msi + MSI.FLAGS, MSI.ENABLE, 0);
      this.#function.setIntx(true);
      this.#setMask(this.#allVectors, 0);
    } else if (this.#kind === 'msix') {
      registers.update16(this.#msix + MSIX.FLAGS, MSIX.ENABLE, 0);
      this.#function.setIntx(true);
    }
    this.#kind = undefined;
    for (const set of [this.#allocated, this.#handlers, this.#live, this.#pending]) set.clear();
  }

  /** pci_restore_msi_state: after a reset the registers say again what was set up. */
  restore(): void {
    const { registers, hardware } = this.#function;
    if (this.#kind === undefined) return;
    this.#function.setIntx(false);
    if (this.#kind === 'msi') {
      const flags = this.#msi + MSI.FLAGS;
      registers.update16(flags, MSI.ENABLE, 0);
      this.#setMask(0, 0);
      const both = MSI.QSIZE | MSI.ENABLE;
      registers.update16(flags, both, (this.#multiple << 4) | MSI.ENABLE);
      return;
    }
    const both = MSIX.ENABLE | MSIX.MASK_ALL;
    registers.update16(this.#msix + MSIX.FLAGS, both, MSIX.ENABLE);
    for (const vector of this.#handlers.keys()) hardware.maskVector(vector, false);
  }
}
