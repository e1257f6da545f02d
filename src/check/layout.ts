/**
 * Lays a row out: which cells there are, in the order in which they are asked for, whom each is about, and what must be loaded
 * again when it changes.
 */
import { Fields, type StateCodec } from '../base/transfer.ts';
import type { CellSpec } from './cells.ts';

/** Which device, user or group cells are about, so that renaming can follow. */
export type Subject = Pick<CellSpec, 'device' | 'user' | 'group'>;

/** What lists hold follows from some cells; a change of them means more than to load the fields of one section. */
export const REBUILDS = { nothing: 0, attachments: 1 << 29, everything: 1 << 30 } as const;

export class RowLayout {
  readonly cells: CellSpec[] = [];
  /** by cell: the bit of its section, and one of {@link REBUILDS} */
  readonly effects: number[] = [];
  #section = -1;

  /** Cells that follow belong to the next section. @returns its bit */
  nextSection(): number {
    return 1 << ++this.#section;
  }

  /** @returns the place of the cell in rows */
  cell(
    subject: Subject,
    spec: Pick<CellSpec, 'name' | 'bits' | 'holds'>,
    rebuilds: number = REBUILDS.nothing,
  ): number {
    this.effects.push((1 << this.#section) | rebuilds);
    return this.cells.push({ ...spec, ...subject, name: this.#unique(subject, spec.name) }) - 1;
  }

  /** One bit. */
  flag(subject: Subject, name: string, rebuilds: number = REBUILDS.nothing): number {
    return this.cell(subject, { name, bits: 1 }, rebuilds);
  }

  /** The fields of a state. @param rebuilds of fields that lists follow from */
  fields<S>(
    subject: Subject,
    list: (fields: Fields<S>) => void,
    rebuilds: Partial<Record<keyof S & string, number>> = {},
  ): StateCodec<S> {
    const fields = new Fields<S>(this.cells.length);
    list(fields);
    const effects = new Map<string, number>(Object.entries(rebuilds));
    for (const { name, bits, holds } of fields.cells) {
      const spec = holds === undefined ? { name, bits } : { name, bits, holds };
      this.cell(subject, spec, effects.get(name));
    }
    return fields.compile();
  }

  // Renaming finds cells by name, so a name that a subject has twice gets a number.
  #unique({ device, user, group }: Subject, name: string): string {
    const same = this.cells.filter(
      (cell) =>
        cell.name.replace(/ #\d+$/, '') === name &&
        cell.device === device &&
        cell.user === user &&
        cell.group === group,
    );
    return same.length === 0 ? name : `${name} #${same.length + 1}`;
  }
}
