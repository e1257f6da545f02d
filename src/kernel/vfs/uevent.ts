/**
 * Uevents: what the kernel tells user space of objects that come, go, or get a driver.
 *
 * After lib/kobject_uevent.c; the format on the wire is a header "ACTION@DEVPATH" and then keys, each ended by a zero byte.
 */

export type UeventAction =
  'add' | 'remove' | 'change' | 'move' | 'online' | 'offline' | 'bind' | 'unbind';

export const UEVENT_ACTIONS: readonly UeventAction[] = [
  'add',
  'remove',
  'change',
  'move',
  'online',
  'offline',
  'bind',
  'unbind',
];

export type Uevent = {
  readonly action: UeventAction;
  /** path in sysfs, without /sys */
  readonly devpath: string;
  readonly subsystem: string;
  /** KEY=VALUE of the object's kind, in order */
  readonly keys: readonly string[];
};

/** The keys of a uevent in the order of the wire, without header and SEQNUM. */
export function ueventKeys({ action, devpath, subsystem, keys }: Uevent): string[] {
  return [`ACTION=${action}`, `DEVPATH=${devpath}`, `SUBSYSTEM=${subsystem}`, ...keys];
}

/** The message that sockets get. */
export function formatUevent(uevent: Uevent, sequence: number): string {
  const { action, devpath } = uevent;
  const lines = [`${action}@${devpath}`, ...ueventKeys(uevent), `SEQNUM=${sequence}`];
  return lines.map((line) => `${line}\0`).join('');
}

/** Who wants to hear of uevents, and their numbers. */
export class Uevents {
  #sequence = 0;
  readonly #listeners = new Set<(uevent: Uevent, sequence: number) => void>();

  listen(listener: (uevent: Uevent, sequence: number) => void): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  emit(uevent: Uevent): void {
    this.#sequence++;
    for (const listener of this.#listeners) listener(uevent, this.#sequence);
  }
}
