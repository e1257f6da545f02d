/** A generator of pseudo-random numbers that a seed determines: xorshift over 32 bits (Marsaglia, 2003). */
export class Random {
  #state: number;

  constructor(seed: number) {
    // 0 is the one state that xorshift never leaves.
    this.#state = (seed ^ 0x9e37_79b9) >>> 0 || 1;
  }

  /** Any unsigned 32-bit number. */
  word(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }

  /** From 0 up to, without, `bound`. */
  below(bound: number): number {
    return this.word() % bound;
  }

  /** True once in `times`. */
  oneIn(times: number): boolean {
    return this.below(times) === 0;
  }

  pick<T>(choices: readonly T[]): T {
    const chosen = choices[this.below(choices.length)];
    if (chosen === undefined) throw new Error('nothing to pick from');
    return chosen;
  }

  /** Any unsigned 64-bit number. */
  long(): bigint {
    return (BigInt(this.word()) << 32n) | BigInt(this.word());
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}
