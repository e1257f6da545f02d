/**
 * `sysfuzz` on a tree of names in process: the same seeded writes, the same lines. ../shared/sysfs/sysfuzz.c is the source that
 * this follows step by step, the order of its random numbers included.
 */
import type { Errno } from '../src/base/errno.ts';
import { lookup, readAttribute, writeAttribute, type Directory } from '../src/kernel/vfs/tree.ts';
import { ueventKeys, type Uevent, type Uevents } from '../src/kernel/vfs/uevent.ts';
import { escaped } from './sysfs-walk.ts';

const MASK = (1n << 64n) - 1n;
const BUS = '/sys/bus/pci';
const DRIVERS = 'vfio-pci vfio-pci vfio-pci pci-stub pci-stub pcieport nosuch vfio-pci'.split(' ');
const SUBSYSTEMS = ['pci', 'vfio', 'vfio-dev', 'iommu', 'drivers'];
const CLASS_BRIDGE = 6;
const SHOWN = 40;

type Device = { readonly name: string; readonly bridge: boolean };

export class SysFuzz {
  readonly #root: Directory;
  readonly #devices: Device[] = [];
  #pending: Uevent[] = [];
  #state = 0n;
  #lines: string[] = [];
  /** reasons of the refusals, by place in the lines */
  readonly reasons = new Map<number, string>();

  constructor(root: Directory, uevents: Uevents) {
    this.#root = root;
    uevents.listen((uevent) => this.#pending.push(uevent));
    this.#scan();
  }

  /** The first lines: which devices there are. */
  names(): string[] {
    return this.#devices.map(
      ({ name, bridge }, d) => `d${d} ${name}${bridge ? ' left alone' : ''}`,
    );
  }

  /** One program. */
  run(seed: number, steps: number): string[] {
    this.#begin();
    this.#lines = [];
    this.reasons.clear();
    this.#state = (BigInt(seed) * 0x632b_e59b_d9b4_e019n) & MASK;
    for (let step = 0; step < steps; step++) this.#step();
    return this.#lines;
  }

  #random(): bigint {
    this.#state = (this.#state + 0x9e37_79b9_7f4a_7c15n) & MASK;
    let z = this.#state;
    z = ((z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n) & MASK;
    z = ((z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn) & MASK;
    return z ^ (z >> 31n);
  }

  #below(most: number): number {
    return most === 0 ? 0 : Number(this.#random() % BigInt(most));
  }

  #percent(chance: number): boolean {
    return this.#below(100) < chance;
  }

  #path(d: number, attribute: string): string {
    return `${BUS}/devices/${this.#devices[d]?.name ?? ''}/${attribute}`;
  }

  #there(d: number): boolean {
    return lookup(this.#root, `${BUS}/devices/${this.#devices[d]?.name ?? ''}`, true) !== undefined;
  }

  #scan(): void {
    const directory = lookup(this.#root, `${BUS}/devices`);
    const names = directory?.kind === 'directory' ? directory.list().map(([name]) => name) : [];
    for (const name of names.sort()) {
      if (this.#devices.some((device) => device.name === name)) continue;
      const code = Number.parseInt(this.#read(`${BUS}/devices/${name}/class`) ?? '0', 16);
      this.#devices.push({ name, bridge: code >> 16 === CLASS_BRIDGE });
    }
  }

  #read(path: string, length = 4096, offset = 0): string | undefined {
    const entry = lookup(this.#root, path, true);
    if (entry?.kind !== 'attribute') return undefined;
    return String.fromCharCode(...readAttribute(entry, offset, length));
  }

  #hex(path: string): number {
    return Number.parseInt(this.#read(path) ?? '0', 16) || 0;
  }

  /** @returns how many bytes were taken, or minus the errno */
  #put(path: string, text: string): number {
    const entry = lookup(this.#root, path, true);
    if (entry?.kind !== 'attribute') return -2;
    const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
    const outcome: (Errno | undefined)[] = [];
    writeAttribute(entry, { bytes, offset: 0 }, (error) => outcome.push(error));
    if (outcome.length === 0) throw new Error(`a write to ${path} waits, but nothing is open`);
    const [error] = outcome;
    if (error === undefined) return text.length;
    this.reasons.set(this.#lines.length, error.message);
    return -error.number;
  }

  #linkName(d: number, name: string): string {
    const entry = lookup(this.#root, this.#path(d, name));
    return entry?.kind === 'link' ? (entry.target.split('/').at(-1) ?? '-') : '-';
  }

  #drain(print: boolean): void {
    if (print) {
      for (const uevent of this.#pending) {
        if (!SUBSYSTEMS.includes(uevent.subsystem)) continue;
        const { action, devpath } = uevent;
        this.#lines.push(`  uevent ${action}@${devpath} ${ueventKeys(uevent).join(' ')}`);
      }
    }
    this.#pending = [];
  }

  #show(text: string): string {
    return escaped(
      Uint8Array.from(text, (character) => character.charCodeAt(0)),
      false,
    );
  }

  #after(d: number | undefined): void {
    this.#drain(true);
    if (d === undefined) return;
    const override = this.#read(this.#path(d, 'driver_override'), 127) ?? '';
    const state = this.#there(d) ? 'there' : 'gone';
    const [driver, group] = [this.#linkName(d, 'driver'), this.#linkName(d, 'iommu_group')];
    this.#lines.push(
      `  d${d} ${state} driver=${driver} group=${group} override=${this.#show(override)}`,
    );
  }

  #write(d: number | undefined, path: string, shown: string, text: string): void {
    const cut =
      text.length > SHOWN ? `"${this.#show(text.slice(0, SHOWN))}"...` : `"${this.#show(text)}"`;
    const place = this.#lines.length;
    const result = this.#put(path, text);
    this.#lines.splice(place, 0, `${shown} ${cut} -> ${result < 0 ? `E${-result}` : 'ok'}`);
    this.#after(d);
  }

  #endpoint(): number {
    for (let attempt = 0; attempt < 64; attempt++) {
      const d = this.#below(this.#devices.length);
      if (this.#devices[d]?.bridge === false && (this.#there(d) || this.#percent(10))) return d;
    }
    return 0;
  }

  #step(): void {
    const d = this.#endpoint();
    const kind = this.#below(100);
    const driver = DRIVERS[this.#below(8)] ?? '';
    const tail = this.#percent(50) ? '\n' : '';
    const name = this.#devices[d]?.name ?? '';
    const who = this.#percent(92) ? name : this.#percent(50) ? '0000:ff:1f.7' : 'garbage';
    const [, run] = STEPS.find(([limit]) => kind < limit) ?? LAST;
    run(this, { d, driver, tail, who });
  }

  override({ d, driver, tail }: Drawn): void {
    this.#write(
      d,
      this.#path(d, 'driver_override'),
      `override d${d}`,
      this.#overrideText(driver, tail),
    );
  }

  #overrideText(driver: string, tail: string): string {
    if (this.#percent(70)) return driver + tail;
    if (this.#percent(40)) return '\n';
    if (this.#percent(30)) return 'a\0b\n';
    if (this.#percent(30)) return 'x'.repeat(4095);
    return this.#percent(50) ? '' : ` ${driver}`;
  }

  bind({ d, driver, tail, who }: Drawn): void {
    this.#write(d, `${BUS}/drivers/${driver}/bind`, `bind ${driver} d${d}`, who + tail);
  }

  unbind({ d, driver, tail, who }: Drawn): void {
    const current = this.#linkName(d, 'driver');
    const from = current !== '-' && this.#percent(80) ? current : driver;
    this.#write(d, `${BUS}/drivers/${from}/unbind`, `unbind ${from} d${d}`, who + tail);
  }

  driversProbe({ d, tail, who }: Drawn): void {
    this.#write(d, `${BUS}/drivers_probe`, `drivers_probe d${d}`, who + tail);
  }

  ids({ d, tail }: Drawn): void {
    const vendor = this.#hex(this.#path(d, 'vendor'));
    const device = this.#hex(this.#path(d, 'device'));
    const attribute = this.#percent(60) ? 'new_id' : 'remove_id';
    const driver = this.#percent(70) ? 'pci-stub' : 'vfio-pci';
    const four = (value: number): string => value.toString(16).padStart(4, '0');
    const text = this.#percent(75)
      ? `${four(vendor)} ${four(device)}${tail}`
      : this.#percent(50)
        ? four(vendor)
        : this.#percent(50)
          ? 'zz'
          : `${vendor.toString(16)} ${device.toString(16)} ffffffff ffffffff 0 0 7`;
    this.#write(d, `${BUS}/drivers/${driver}/${attribute}`, `${attribute} ${driver}`, text);
  }

  remove({ d }: Drawn): void {
    const text = this.#percent(80) ? '1' : this.#percent(50) ? '0' : 'x';
    this.#write(d, this.#path(d, 'remove'), `remove d${d}`, text);
  }

  rescan(): void {
    const text = this.#percent(85) ? '1' : this.#percent(50) ? '0' : 'x';
    this.#write(undefined, `${BUS}/rescan`, 'rescan', text);
    this.#scan();
  }

  autoprobe(): void {
    const text = this.#percent(45) ? '0' : this.#percent(70) ? '1' : 'x';
    this.#write(undefined, `${BUS}/drivers_autoprobe`, 'autoprobe', text);
  }

  reset({ d }: Drawn): void {
    this.#write(d, this.#path(d, 'reset'), `reset d${d}`, this.#percent(80) ? '1' : '0');
  }

  resetMethod({ d, tail }: Drawn): void {
    const words = ['bus', 'flr', 'pm', 'default', '', 'nosuch', 'flr bus', 'bus flr'];
    const path = this.#path(d, 'reset_method');
    this.#write(d, path, `reset_method d${d}`, `${words[this.#below(8)] ?? ''}${tail}`);
    this.#reads(path);
  }

  enable({ d }: Drawn): void {
    const path = this.#path(d, 'enable');
    this.#write(d, path, `enable d${d}`, this.#percent(50) ? '1' : this.#percent(70) ? '0' : 'x');
    this.#reads(path);
  }

  sriov({ d }: Drawn): void {
    this.#write(d, this.#path(d, 'sriov_numvfs'), `sriov_numvfs d${d}`, String(this.#below(4)));
    this.#scan();
  }

  groupType({ d, tail }: Drawn): void {
    const group = this.#linkName(d, 'iommu_group');
    const path = `/sys/kernel/iommu_groups/${group === '-' ? '9999' : group}/type`;
    const words = ['identity', 'DMA', 'DMA-FQ', 'auto', 'blocked', 'x'];
    this.#write(d, path, `group type d${d}`, `${words[this.#below(6)] ?? ''}${tail}`);
    this.#reads(path);
  }

  #reads(path: string): void {
    this.#lines.push(`  reads ${this.#show(this.#read(path) ?? '')}`);
  }

  readSome({ d }: Drawn): void {
    const names = 'vendor class uevent modalias resource config numa_node driver_override'.split(
      ' ',
    );
    const name = names[this.#below(8)] ?? '';
    const offset = this.#below(3) * 3;
    const text = this.#read(this.#path(d, name), 24, offset);
    const shown =
      text === undefined
        ? 'E2'
        : name === 'config'
          ? Array.from(text, (each) => each.charCodeAt(0).toString(16).padStart(2, '0')).join('')
          : this.#show(text);
    this.#lines.push(`read d${d} ${name} at ${offset} -> ${shown}`);
  }

  /** All endpoints there, without driver, override or added ids. */
  #begin(): void {
    this.#put(`${BUS}/drivers_autoprobe`, '0');
    this.#put(`${BUS}/rescan`, '1');
    this.#scan();
    for (const [d, device] of this.#devices.entries()) {
      if (device.bridge || !this.#there(d)) continue;
      this.#put(this.#path(d, 'driver_override'), '\n');
      this.#put(this.#path(d, 'driver/unbind'), device.name);
      const ids = [this.#hex(this.#path(d, 'vendor')), this.#hex(this.#path(d, 'device'))];
      const text = ids.map((id) => id.toString(16)).join(' ');
      for (let round = 0; round < 9; round++) {
        this.#put(`${BUS}/drivers/pci-stub/remove_id`, text);
        this.#put(`${BUS}/drivers/vfio-pci/remove_id`, text);
      }
      this.#put(this.#path(d, 'reset_method'), 'default');
      for (let round = 0; round < 9; round++) this.#put(this.#path(d, 'enable'), '0');
      this.#put(`/sys/kernel/iommu_groups/${this.#linkName(d, 'iommu_group')}/type`, 'auto');
    }
    this.#put(`${BUS}/drivers_autoprobe`, '1');
    this.#drain(false);
  }
}

/** What is drawn for every step, whatever it is. */
type Drawn = {
  readonly d: number;
  readonly driver: string;
  readonly tail: string;
  readonly who: string;
};

type Step = (fuzz: SysFuzz, drawn: Drawn) => void;

const LAST: readonly [number, Step] = [
  100,
  (fuzz, drawn): void => {
    fuzz.readSome(drawn);
  },
];

/** Of a hundred, below which number which step is made. */
const STEPS: readonly (readonly [number, Step])[] = [
  [
    22,
    (fuzz, drawn): void => {
      fuzz.override(drawn);
    },
  ],
  [
    40,
    (fuzz, drawn): void => {
      fuzz.bind(drawn);
    },
  ],
  [
    52,
    (fuzz, drawn): void => {
      fuzz.unbind(drawn);
    },
  ],
  [
    62,
    (fuzz, drawn): void => {
      fuzz.driversProbe(drawn);
    },
  ],
  [
    68,
    (fuzz, drawn): void => {
      fuzz.ids(drawn);
    },
  ],
  [
    72,
    (fuzz, drawn): void => {
      fuzz.remove(drawn);
    },
  ],
  [
    78,
    (fuzz): void => {
      fuzz.rescan();
    },
  ],
  [
    82,
    (fuzz): void => {
      fuzz.autoprobe();
    },
  ],
  [
    86,
    (fuzz, drawn): void => {
      fuzz.reset(drawn);
    },
  ],
  [
    89,
    (fuzz, drawn): void => {
      fuzz.resetMethod(drawn);
    },
  ],
  [
    92,
    (fuzz, drawn): void => {
      fuzz.enable(drawn);
    },
  ],
  [
    95,
    (fuzz, drawn): void => {
      fuzz.sriov(drawn);
    },
  ],
  [
    98,
    (fuzz, drawn): void => {
      fuzz.groupType(drawn);
    },
  ],
  LAST,
];
