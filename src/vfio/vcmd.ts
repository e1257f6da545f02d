/**
 * Vcmd: one ioctl of a VFIO file under way, and the tables that say which file takes which. A call is named for the trace by
 * its number and the kind of its file, also where it is refused; its argument is read when the call asks for it, since VFIO
 * checks some things before (access, a group that is still there) and some after.
 *
 * Invariant: a table holds rows of one kind of file only.
 *
 * After the ioctl functions of drivers/vfio/{container,group,vfio_main}.c.
 */
import { Argument } from '../base/argument.ts';
import { Errno } from '../base/errno.ts';
import type { Fields } from '../base/struct.ts';
import type { Task } from '../base/task.ts';
import {
  vfioIoctl,
  type VfioCall,
  type VfioFileKind,
  type VfioIoctlSpec,
} from '../uapi/vfio-ioctls.ts';

export class Vcmd<F extends Fields = Fields> {
  readonly task: Task;
  readonly argument: bigint;
  readonly #spec: VfioIoctlSpec<F>;

  constructor(spec: VfioIoctlSpec<F>, { task, argument }: VfioCall) {
    this.#spec = spec;
    this.task = task;
    this.argument = argument;
  }

  /** Reads the struct up to the last field that every client must supply. EFAULT, EINVAL for an argsz below that. */
  read(): Argument<F> {
    const { struct, last } = this.#spec;
    return new Argument({ task: this.task, address: this.argument }, struct, last);
  }
}

/** A row of a table: what is known of an ioctl, and what it does with what the file stands for. */
export type VfioOp<Subject> = {
  readonly spec: VfioIoctlSpec;
  /** @returns what the ioctl answers */
  execute(subject: Subject, call: VfioCall): number;
};

/** Ties the declaration of an ioctl to its handler. */
export function op<Subject, F extends Fields>(
  spec: VfioIoctlSpec<F>,
  handler: (subject: Subject, vcmd: Vcmd<F>) => number | undefined,
): VfioOp<Subject> {
  return {
    spec: spec,
    execute: (subject, call) => handler(subject, new Vcmd(spec, call)) ?? 0,
  };
}

/** The ioctls of one kind of file, as far as they are offered. */
export class IoctlTable<Subject> {
  readonly file: VfioFileKind;
  readonly #ops: ReadonlyMap<number, VfioOp<Subject>>;

  constructor(file: VfioFileKind, ops: readonly VfioOp<Subject>[]) {
    this.file = file;
    this.#ops = new Map(ops.map((each) => [each.spec.number, each]));
  }

  /** Their C names. */
  get names(): string[] {
    return [...this.#ops.values()].map(({ spec }) => spec.name);
  }

  has(command: number): boolean {
    return this.#ops.has(command);
  }

  /** Makes the call. @returns what it answers; ENOTTY for a number that is not in the table */
  execute(subject: Subject, call: VfioCall): number {
    const found = this.#ops.get(call.command);
    if (found === undefined) throw unknownIoctl(this.file, call.command);
    return found.execute(subject, call);
  }
}

const KIND = {
  container: 'a container',
  group: 'a group file',
  device: 'a VFIO device',
  migration: 'a migration data file',
  spapr: 'a container of POWER',
} as const satisfies Record<VfioFileKind, string>;

/** ENOTTY, with the name of the call where it has one. */
export function unknownIoctl(file: VfioFileKind, command: number): Errno {
  const known = vfioIoctl(file, command);
  const what = known?.name ?? `0x${command.toString(16)}`;
  return new Errno(
    'ENOTTY',
    known === undefined
      ? `${what} is not an ioctl of ${KIND[file]}`
      : `${what} is not supported on ${KIND[file]} here`,
  );
}
