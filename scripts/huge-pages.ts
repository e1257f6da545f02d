/**
 * Huge pages of this machine for the programs of the kernel that map them. A new machine has none reserved; root reserves
 * what is missing for the length of a run and gives it back.
 */
import { readFileSync, writeFileSync } from 'node:fs';

const RESERVED = '/proc/sys/vm/nr_hugepages';
// The largest tests map 128 MiB each, one after the other, and a test may begin before the pins of the last two are gone.
const NEEDED = 256;

export type HugePages = {
  /** why the programs may lack huge pages; undefined if there are enough */
  readonly lacking: string | undefined;
  giveBack(): void;
};

const free = (): number =>
  Number(/^HugePages_Free:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);

/** Reserves huge pages where it may and has to; never throws. */
export function reserveHugePages(): HugePages {
  const keep = (): void => undefined;
  let before: string;
  try {
    if (free() >= NEEDED) return { lacking: undefined, giveBack: keep };
    before = readFileSync(RESERVED, 'utf8').trim();
    writeFileSync(RESERVED, String(Number(before) + NEEDED - free()));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { lacking: `no ${NEEDED} huge pages are free, and ${why}`, giveBack: keep };
  }
  const giveBack = (): void => {
    writeFileSync(RESERVED, before);
  };
  const now = free();
  const lacking = now >= NEEDED ? undefined : `of ${NEEDED} huge pages the machine has only ${now}`;
  return { lacking, giveBack };
}
