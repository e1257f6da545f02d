/**
 * Replays the recorded output of `vfiofuzz` in this process: every line says an operation with its arguments and what Linux answered;
 * the operation is made again on uiommu's machine and described in the same words.
 *
 * Unlike a run of the program itself it needs neither /sys nor a supervisor, and a wrong answer does not change what comes after.
 * Operations that a line does not say in full (the interrupt bits that edu was given, the page table of an unexpected attach) are
 * chosen to be consistent with the line.
 */
import { Errno, ERRNO } from '../../src/base/errno.ts';
import type { MmapGrant, OpenFile } from '../../src/base/task.ts';
import type { Eventfd } from '../../src/client/eventfd.ts';
import { InProcessClient } from '../../src/client/in-process.ts';
import { pciSystem, type PciSystemParts } from '../../src/kernel/system.ts';
import { parseDump } from '../../src/machine/file/recording.ts';
import type { PciDevice } from '../../src/machine/pci/device.ts';

export const REGION_BYTES = 2 ** 40;
export const CONFIG = 7 * REGION_BYTES;
const SCRATCH_PAGES = 4;

/** A container or an iommufd. */
export type Context = { readonly fd: number; readonly ioas: number };

/** A device file of the program. */
export type Opened = {
  readonly fd: number;
  readonly device: PciDevice;
  readonly context: Context | undefined;
  map: MmapGrant | undefined;
};

/** A difference between a recording and the replay. */
export type Difference = {
  readonly seed: number;
  readonly recorded: string;
  readonly replayed: string;
  readonly reason: string;
};

/** Lines of a recording, cut in machine and programs. */
export function splitRecording(text: string): { machine: string; programs: string[][] } {
  const start = text.indexOf('\nvfiofuzz ') + 1;
  const programs: string[][] = [];
  for (const line of text.slice(start).split('\n')) {
    if (line.startsWith('== seed ')) programs.push([line]);
    else if (line !== 'end' && line !== '') programs.at(-1)?.push(line);
  }
  return { machine: text.slice(0, start), programs };
}

/** Makes the operation that a line says. @returns the line as it would be here */
export type Operation = (replay: Replay, line: string) => string;
export type Operations = Readonly<Record<string, Operation>>;

export class Replay {
  readonly operations: Operations;
  readonly system: PciSystemParts;
  readonly devices: PciDevice[];
  readonly endpoints: PciDevice[];
  readonly base = new Map<PciDevice, Uint8Array>();
  client = new InProcessClient();
  scratch = 0n;
  readonly eventfds = new Map<string, { fd: number; eventfd: Eventfd }>();
  readonly contexts = new Map<string, Context>();
  readonly groups = new Map<string, { readonly fd: number }>();
  readonly opened = new Map<string, Opened>();
  pendingCdev: { fd: number; device: PciDevice } | undefined;
  usedMsi = new Set<PciDevice>();
  reason = '';

  constructor(machineText: string, name: string, operations: Operations) {
    this.operations = operations;
    const machine = parseDump(machineText, name);
    this.system = pciSystem(machine);
    const byName = (a: PciDevice, b: PciDevice): number => (a.name < b.name ? -1 : 1);
    this.devices = [...machine.devices].sort(byName);
    this.endpoints = this.devices.filter(
      (pci) => pci.classCode >> 16 !== 6 && pci.facts.recordedGroup !== undefined,
    );
    for (const pci of this.endpoints) this.#bind(pci);
  }

  #bind(pci: PciDevice): void {
    const { core } = this.system.pci;
    const device = core.device(pci.name);
    if (device === undefined) throw new Error(`${pci.name} is not there`);
    const fail = (error?: Errno): void => {
      if (error !== undefined) throw error;
    };
    core.setOverride(device, 'vfio-pci');
    if (device.driver !== undefined) core.unbind(device.driver.name, pci.name, fail);
    this.base.set(pci, pci.config.bytes.slice());
    core.bind('vfio-pci', pci.name, fail);
  }

  /** Replays one program. @returns lines that differ */
  run(lines: readonly string[]): Difference[] {
    const seed = Number(/\d+/.exec(lines[0] ?? '')?.[0]);
    this.#start(seed);
    const different: Difference[] = [];
    for (let i = 1; i < lines.length; i++) {
      const line = lines[i] ?? '';
      this.reason = '';
      let replayed: string[];
      const rows: string[] = [];
      if (line.startsWith('dump ')) {
        while (/^ {2}[0-9a-f]{3} /.test(lines[i + 1] ?? '')) rows.push(lines[++i] ?? '');
      }
      try {
        replayed = this.#line(line).split('\n');
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        replayed = [`BUG ${error.stack ?? error.message}`];
      }
      const recorded = [line, ...rows].join('\n');
      if (recorded !== replayed.join('\n')) {
        different.push({ seed, recorded, replayed: replayed.join('\n'), reason: this.reason });
      }
    }
    this.client.exit();
    return different;
  }

  #start(seed: number): void {
    this.client.exit();
    this.client = new InProcessClient();
    this.scratch = this.client.allocate(SCRATCH_PAGES);
    for (const map of [this.eventfds, this.contexts, this.groups, this.opened]) map.clear();
    for (const name of [
      'e0',
      'e1',
      'e2',
      'e3',
      'e4',
      'e5',
      'e6',
      'e7',
      'u0',
      'u1',
      'x0',
      'x1',
      'x2',
      'x3',
    ]) {
      this.eventfds.set(name, this.client.openEventfd());
    }
    this.usedMsi.clear();
    if (seed > 1) for (const pci of this.endpoints) this.restore(pci, true);
  }

  // What the program does through sysfs between seeds, and after a close where MSI was used.
  restore(pci: PciDevice, all: boolean): void {
    const base = this.base.get(pci);
    const managed = this.system.pci.managed(pci);
    if (base === undefined || managed === undefined) return;
    const msi = pci.config.findCapability(5);
    managed.whileAwake(() => {
      const now = pci.config.bytes.slice();
      const view = new DataView(base.buffer);
      for (let o = 0x40; o < now.length; o += 4) {
        const differs = [0, 1, 2, 3].some((i) => now[o + i] !== base[o + i]);
        if (!differs || !(all || (msi !== 0 && o > msi && o < msi + 0x18))) continue;
        managed.registers.write(o, 4, view.getUint32(o, true));
      }
    });
  }

  attempt(work: () => string): string {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      this.reason = error.reason;
      return `E${ERRNO[error.code]}`;
    }
  }

  outcome(work: () => unknown): string {
    return this.attempt(() => {
      work();
      return 'ok';
    });
  }

  count(work: () => number): string {
    return this.attempt(() => String(work()));
  }

  #line(line: string): string {
    const [word = ''] = line.split(' ', 1);
    const operation = this.operations[word];
    if (operation === undefined) throw new Error(`unknown operation: ${line}`);
    return operation(this, line);
  }

  device(name: string): Opened {
    const found = this.opened.get(name);
    if (found === undefined) throw new Error(`${name} is not open in the replay`);
    return found;
  }

  argument(bytes: Uint8Array): bigint {
    this.client.write(this.scratch, bytes);
    return this.scratch;
  }

  ioctl(fd: number, command: number, bytes: Uint8Array): number {
    return this.client.ioctl(fd, command, this.argument(bytes));
  }

  after(length: number): Uint8Array {
    return this.client.read(this.scratch, length);
  }

  pread(v: Opened, offset: number, count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    const put = (at: number, part: Uint8Array): void => {
      bytes.set(part, at);
    };
    const file = this.file(v.fd);
    const read = file.read?.(this.client, { length: count, put }, offset) ?? 0;
    return bytes.subarray(0, read);
  }

  pwrite(v: Opened, offset: number, bytes: Uint8Array): number {
    const take = (at: number, count: number): Uint8Array => bytes.slice(at, at + count);
    return this.file(v.fd).write?.(this.client, { length: bytes.length, take }, offset) ?? 0;
  }

  file(fd: number): OpenFile {
    const file = this.client.file(fd);
    if (file === undefined) throw new Error(`fd ${fd}`);
    return file;
  }

  counters(): string {
    let text = '';
    for (const [name, { eventfd }] of this.eventfds) {
      if (name === 'x3') continue;
      try {
        text += ` ${name}=${eventfd.read()}`;
      } catch (error) {
        if (!(error instanceof Errno)) throw error;
      }
    }
    return text;
  }

  signedCount(work: () => number): string {
    const outcome = this.count(work);
    return outcome.startsWith('E') ? `-${outcome.slice(1)}` : outcome;
  }

  fd(value: string): number {
    if (value === 'bad') return 999;
    return this.eventfds.get(value)?.fd ?? Number(value);
  }
}

export function u32s(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(4 * values.length);
  const view = new DataView(bytes.buffer);
  values.forEach((value, i) => {
    view.setUint32(4 * i, value >>> 0, true);
  });
  return bytes;
}

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
