/**
 * A state as a row of small numbers: the {@link Transfer} that the engine's states are moved with. The first pass notes which
 * cells there are, later ones fill or read them.
 *
 * A part is what is there or not (a registration, a descriptor): one flag, and its cells are 0 where it is not, without any
 * of them being looked at. Most of a state is not there.
 *
 * Invariant: every pass makes the same calls in the same order, but for parts that are not there.
 */
import type { Known, Transfer } from '../base/transfer.ts';
import type { CellSpec } from './cells.ts';

/** Which device, user or group cells are about, so that renaming can follow. */
type Subject = Pick<CellSpec, 'device' | 'user' | 'group'>;

export class Row implements Transfer {
  /** of the first pass */
  readonly cells: CellSpec[] = [];
  values: Uint8Array = new Uint8Array(0);
  loads = false;
  #laidOut = false;
  #next = 0;
  #subject: Subject = {};
  /** cells of the part whose flag is this cell */
  readonly #lengths: number[] = [];
  readonly #open: number[] = [];

  /** Begins a pass. */
  begin(loads: boolean, values: Uint8Array): void {
    this.loads = loads;
    this.values = values;
    this.#next = 0;
    if (!loads) values.fill(0);
  }

  /** Whether a part is there; its fields follow only then, and {@link endPart}. The first pass goes through all parts. */
  part(name: string, present: boolean): boolean {
    const flag = this.#next;
    const there = this.flag(name, present);
    if (!this.#laidOut) {
      this.#open.push(flag);
      return true;
    }
    if (!there) this.#next += this.#lengths[flag] ?? 0;
    return there;
  }

  endPart(): void {
    if (this.#laidOut) return;
    const flag = this.#open.pop() ?? 0;
    this.#lengths[flag] = this.#next - flag - 1;
  }

  /** Ends the first pass: the cells are known. */
  layOut(): void {
    this.#laidOut = true;
  }

  aboutDevice(device: number): void {
    if (!this.#laidOut) this.#subject = { device };
  }

  aboutUser(user: number): void {
    if (!this.#laidOut) this.#subject = { user };
  }

  aboutGroup(group: number): void {
    if (!this.#laidOut) this.#subject = { group };
  }

  /** What one user has of one device. */
  aboutOpen(user: number, device: number): void {
    if (!this.#laidOut) this.#subject = { user, device };
  }

  // Renaming finds cells by name, so a name that a subject has twice gets a number.
  #add(name: string, bits: number, holds?: 'user' | 'domain'): void {
    const { device, user, group } = this.#subject;
    const same = this.cells.filter(
      (cell) =>
        cell.name.replace(/ #\d+$/, '') === name &&
        cell.device === device &&
        cell.user === user &&
        cell.group === group,
    );
    const unique = same.length === 0 ? name : `${name} #${same.length + 1}`;
    const cell = { name: unique, bits, ...this.#subject };
    this.cells.push(holds === undefined ? cell : { ...cell, holds });
    if (this.values.length < this.cells.length) this.values = new Uint8Array(this.cells.length * 2);
  }

  flag(name: string, value: boolean): boolean {
    if (!this.#laidOut) this.#add(name, 1);
    const i = this.#next++;
    if (this.loads) return this.values[i] === 1;
    this.values[i] = value ? 1 : 0;
    return value;
  }

  count(name: string, value: number, bits: number): number {
    if (!this.#laidOut) this.#add(name, bits);
    const i = this.#next++;
    if (this.loads) return this.values[i] ?? 0;
    if (value < 0 || value >= 1 << bits) {
      throw new Error(`${name} is ${value}, which no state can have`);
    }
    this.values[i] = value;
    return value;
  }

  one<T>(name: string, value: T | undefined, among: Known<T>): T | undefined {
    const { bits } = among;
    if (bits === 0) return value;
    if (!this.#laidOut) this.#add(name, bits, among.holds);
    const i = this.#next++;
    if (this.loads) {
      const number = this.values[i] ?? 0;
      return number === 0 ? undefined : among.at(number);
    }
    this.values[i] = value === undefined ? 0 : among.numberOf(value);
    return value;
  }
}
