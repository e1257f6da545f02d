/**
 * Events by name: a listed set of kinds, each with the type of what it carries. Listeners run at once, in the order in which
 * they came, within the call that they are told of; they must not make calls themselves.
 *
 * Invariant: without listeners an event costs a look-up, and nothing is built for it (ask {@link Events.wanted} first).
 */
export class Events<Kinds extends object> {
  readonly #listeners = new Map<keyof Kinds, Set<(event: never) => void>>();

  /** @returns takes the listener away again */
  on<K extends keyof Kinds>(kind: K, listener: (event: Kinds[K]) => void): () => void {
    const listeners = this.#listeners.get(kind) ?? new Set();
    this.#listeners.set(kind, listeners.add(listener));
    return () => {
      listeners.delete(listener);
    };
  }

  /** Whether an event of this kind would reach a listener. */
  wanted(kind: keyof Kinds): boolean {
    return (this.#listeners.get(kind)?.size ?? 0) > 0;
  }

  emit<K extends keyof Kinds>(kind: K, event: Kinds[K]): void {
    for (const listener of this.#listeners.get(kind) ?? []) {
      (listener as (event: Kinds[K]) => void)(event);
    }
  }
}
