/**
 * Replays what `ownfuzz` recorded on a real kernel, line by line, on Linux as we have it: each line says what was done and
 * how it ended; we do the same and write the line anew. A recording is one machine and several programs; each program
 * begins with a machine put back into its first state.
 *
 * Devices are dN, groups gN, and open files cN (device node), iN (IOMMUFD), fN (group), kN (container), vN (device of a
 * group). Closing a file other than the last renumbers the last one.
 */
import { Errno } from '../base/errno.ts';
import type { PciSystem } from '../kernel/pci-system.ts';
import { setIommu } from '../vfio/container.ts';
import type { DeviceFile } from '../vfio/device-file.ts';
import type { GroupFile } from '../vfio/group-file.ts';
import type { IommufdContext } from '../vfio/iommufd.ts';
import { deviceName, newContainer, type Container } from '../vfio/state.ts';

/** One recorded program: its operations as they were printed. */
export type RecordedProgram = {
  readonly seed: number;
  readonly lines: readonly string[];
};

export type RecordedDevice = { readonly name: string; readonly bridge: boolean };

export type Recording = {
  /** the machine, in the format of machine/file/recording.ts */
  readonly machine: string;
  /** by their number */
  readonly devices: readonly RecordedDevice[];
  readonly programs: readonly RecordedProgram[];
};

/** Takes a recording apart. */
export function parseRecording(text: string): Recording {
  const lines = text.split('\n');
  const machine = lines.filter((line) => /^(#|dev|cfg|group) /.test(line)).join('\n');
  const devices: RecordedDevice[] = [];
  const programs: { seed: number; lines: string[] }[] = [];
  for (const line of lines) {
    const named = /^d(\d+) ([0-9a-f]{4}:\S+)( bridge)?$/.exec(line);
    if (named !== null) {
      devices[Number(named[1])] = { name: named[2] ?? '', bridge: named[3] !== undefined };
    }
    const start = /^== seed (\d+)$/.exec(line);
    if (start !== null) programs.push({ seed: Number(start[1]), lines: [] });
    else if (line !== '' && line !== 'end' && programs.length > 0)
      programs.at(-1)?.lines.push(line);
  }
  return { machine, devices, programs };
}

/** One open of /dev/iommu in a replay. */
export type ReplayedIommufd = {
  readonly context: IommufdContext;
  /** @returns the ID of a new IOAS */
  allocIoas(): number;
  close(): void;
};

/** The first line that came out differently. */
export type Difference = {
  /** from 1, within the program */
  readonly line: number;
  readonly recorded: string;
  readonly replayed: string;
  /** our reason, where we refused */
  readonly reason: string | undefined;
};

type OpenDevice = { readonly file: DeviceFile; readonly device: number };
type OpenGroup = { readonly file: GroupFile; readonly group: number };
type Words = readonly string[];

/** The programs of a recording, one after the other, on one system: numbers of groups carry over from one to the next. */
export class Replay {
  readonly #system: PciSystem;
  readonly #open: () => ReplayedIommufd;
  readonly #devices: readonly RecordedDevice[];
  readonly #cdevs: OpenDevice[] = [];
  readonly #iommufds: ReplayedIommufd[] = [];
  readonly #groups: OpenGroup[] = [];
  readonly #containers: Container[] = [];
  readonly #groupDevices: OpenDevice[] = [];
  #reason: string | undefined;

  /** @param open what /dev/iommu is in this replay */
  constructor(system: PciSystem, devices: readonly RecordedDevice[], open: () => ReplayedIommufd) {
    this.#open = open;
    this.#system = system;
    this.#devices = devices;
  }

  /** @returns the first difference; undefined if every line is the kernel's */
  run(program: RecordedProgram): Difference | undefined {
    this.#reset();
    for (const [index, recorded] of program.lines.entries()) {
      this.#reason = undefined;
      const replayed = index === 0 ? this.#overview() : this.#step(recorded);
      if (replayed !== recorded) {
        return { line: index + 1, recorded, replayed, reason: this.#reason };
      }
    }
    return undefined;
  }

  // What the recorder does before each program: closes all, finds all, and gives every device its ordinary driver.
  #reset(): void {
    for (const list of [this.#groupDevices, this.#cdevs, this.#groups]) {
      while (list.length > 0) list.pop()?.file.release();
    }
    this.#containers.length = 0;
    while (this.#iommufds.length > 0) this.#iommufds.pop()?.close();
    const { core } = this.#system;
    this.#system.rescan();
    for (const { name, bridge } of this.#devices) {
      const device = core.device(name);
      if (bridge || device === undefined) continue;
      core.setOverride(device, '\n');
      if (device.driver !== undefined) core.unbind(device.driver.name, name, ignore);
      core.driversProbe(name, ignore);
    }
  }

  #overview(): string {
    return this.#devices.map((_, d) => ` d${d}=${this.#driver(d)}/${this.#group(d)}`).join('');
  }

  #name(d: number): string {
    return this.#devices[d]?.name ?? '';
  }

  #driver(d: number): string {
    const device = this.#system.core.device(this.#name(d));
    return device?.bound === true ? (device.driver?.name ?? '-') : '-';
  }

  #group(d: number): string {
    return String(this.#system.core.device(this.#name(d))?.iommu.group?.id ?? '-');
  }

  #after(d: number): string {
    return ` | d${d} driver=${this.#driver(d)} group=${this.#group(d)}`;
  }

  // What the recorder prints for the outcome of a call.
  #result(action: () => string | undefined): string {
    try {
      return ` -> ${action() ?? 'ok'}`;
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      this.#reason = error.message;
      return ` -> E${error.number}`;
    }
  }

  // Writes to sysfs: nobody has to be waited for, the recorder does not unbind what it has open.
  #wait(start: (done: (error?: Errno) => void) => void): string {
    return this.#result(() => {
      const outcome: (Errno | undefined)[] = [];
      start((error) => outcome.push(error));
      if (outcome.length === 0) throw new Error('the call waits for a file that is open');
      if (outcome[0] !== undefined) throw outcome[0];
      return undefined;
    });
  }

  #step(line: string): string {
    const words = line.split(' ');
    const [verb = ''] = words;
    const step = STEPS.get(verb);
    if (step === undefined) throw new Error(`no such operation: ${line}`);
    return step(this, words);
  }

  driverStep(words: Words): string {
    const [verb = '', target = '', name = ''] = words;
    const d = numberIn(target);
    const { core } = this.#system;
    const outcome = this.#wait((done) => {
      switch (verb) {
        case 'bind':
          core.bind(name, this.#name(d), done);
          break;
        case 'unbind':
          core.unbind(name, this.#name(d), done);
          break;
        case 'probe':
          core.driversProbe(this.#name(d), done);
          break;
        default:
          this.#override(d, name);
          done();
      }
    });
    const head = verb === 'probe' ? `${verb} ${target}` : `${verb} ${target} ${name}`;
    return `${head}${outcome}${this.#after(d)}`;
  }

  #override(d: number, name: string): void {
    const device = this.#system.core.device(this.#name(d));
    if (device === undefined) throw new Errno('ENOENT', `there is no device d${d}`);
    this.#system.core.setOverride(device, name === '(none)' ? '\n' : name);
  }

  remove(words: Words): string {
    const [, target = ''] = words;
    const outcome = this.#wait((done) => {
      this.#system.remove(this.#name(numberIn(target)), done);
    });
    return `remove ${target}${outcome}`;
  }

  rescan(): string {
    const missing = this.#devices.map(({ name }) => this.#system.core.device(name) === undefined);
    this.#system.rescan();
    const found = this.#devices
      .map(({ name }, d) => ({ name, d }))
      .filter(({ name, d }) => missing[d] === true && this.#system.core.device(name) !== undefined)
      .map(({ d }) => ` [d${d} driver=${this.#driver(d)} group=${this.#group(d)}]`);
    return `rescan -> ok${found.join('')}`;
  }

  openCdev(words: Words): string {
    const [, target = ''] = words;
    const device = numberIn(target);
    const outcome = this.#result(() => {
      const { vfio, core } = this.#system;
      const iommu = core.device(this.#name(device))?.iommu;
      const found = iommu && vfio.deviceOf(iommu);
      const node = found && vfio.device(deviceName(found));
      if (node === undefined) return 'none';
      this.#cdevs.push({ file: vfio.openDevice(node), device });
      return `c${this.#cdevs.length - 1}`;
    });
    return `open_cdev ${target}${outcome}`;
  }

  openIommufd(): string {
    this.#iommufds.push(this.#open());
    return `open_iommufd -> i${this.#iommufds.length - 1}`;
  }

  ioas(words: Words): string {
    const [, target = ''] = words;
    const context = at(this.#iommufds, numberIn(target));
    return `ioas ${target} -> id=${context.allocIoas()}`;
  }

  bindIommufd(words: Words): string {
    const [, target = '', which = ''] = words;
    const { file } = at(this.#cdevs, numberIn(target));
    const outcome = this.#result(() => {
      // A negative descriptor is refused before the file is looked at.
      if (which.startsWith('bad')) throw new Errno('EINVAL', 'the descriptor is negative');
      return `devid=${file.bind(() => at(this.#iommufds, numberIn(which)).context)}`;
    });
    return `bind_iommufd ${target} ${which}${outcome}`;
  }

  attach(words: Words): string {
    const [, target = '', pt = ''] = words;
    const { file } = at(this.#cdevs, numberIn(target));
    const outcome = this.#result(() => {
      file.requireAccess();
      return `pt=${file.attach(Number(pt.slice('pt='.length)))}`;
    });
    return `attach ${target} ${pt}${outcome}`;
  }

  detach(words: Words): string {
    const [, target = ''] = words;
    const { file } = at(this.#cdevs, numberIn(target));
    const outcome = this.#result(() => {
      file.requireAccess();
      file.detach();
      return undefined;
    });
    return `detach ${target}${outcome}`;
  }

  info(words: Words): string {
    const [, target = ''] = words;
    const { file } = at(this.#cdevs, numberIn(target));
    const outcome = this.#result(() => {
      file.requireAccess();
      return `flags=${(file.device.ops.flags?.() ?? 0).toString(16)}`;
    });
    return `info ${target}${outcome}`;
  }

  openGroup(words: Words): string {
    const [, target = ''] = words;
    const group = numberIn(target);
    const outcome = this.#result(() => {
      const found = this.#system.vfio.group(String(group));
      if (found === undefined) throw new Errno('ENOENT', `there is no /dev/vfio/${group}`);
      this.#groups.push({ file: this.#system.vfio.openGroup(found), group });
      return `f${this.#groups.length - 1}`;
    });
    return `open_group ${target}${outcome}`;
  }

  openContainer(): string {
    this.#containers.push(newContainer());
    return `open_container -> k${this.#containers.length - 1}`;
  }

  setContainer(words: Words): string {
    const [, target = '', which = ''] = words;
    const { file } = at(this.#groups, numberIn(target));
    const outcome = this.#result(() => {
      if (which.startsWith('k')) file.setContainer(at(this.#containers, numberIn(which)));
      else file.setIommufd(at(this.#iommufds, numberIn(which)).context);
      return undefined;
    });
    return `set_container ${target} ${which}${outcome}`;
  }

  unsetContainer(words: Words): string {
    const [, target = ''] = words;
    const { file } = at(this.#groups, numberIn(target));
    const outcome = this.#result(() => {
      file.unsetContainer();
      return undefined;
    });
    return `unset_container ${target}${outcome}`;
  }

  status(words: Words): string {
    const [, target = ''] = words;
    const { file } = at(this.#groups, numberIn(target));
    const outcome = this.#result(() => {
      const { viable, containerSet } = file.status();
      return `flags=${(viable ? 1 : 0) | (containerSet ? 2 : 0)}`;
    });
    return `status ${target}${outcome}`;
  }

  setIommu(words: Words): string {
    const [, target = '', type = ''] = words;
    const outcome = this.#result(() => {
      setIommu(at(this.#containers, numberIn(target)), Number(type));
      return undefined;
    });
    return `set_iommu ${target} ${type}${outcome}`;
  }

  getDevice(words: Words): string {
    const [, target = '', which = ''] = words;
    const device = numberIn(which);
    const { file } = at(this.#groups, numberIn(target));
    const outcome = this.#result(() => {
      this.#groupDevices.push({ file: file.getDevice(this.#name(device)), device });
      return `v${this.#groupDevices.length - 1}`;
    });
    return `get_device ${target} ${which}${outcome}`;
  }

  close(words: Words): string {
    const [, given = ''] = words;
    const target = given.replace(/,$/, '');
    const index = numberIn(target);
    switch (target[0]) {
      case 'c':
        return this.#closeMoved(this.#cdevs, target, 'c');
      case 'v':
        return this.#closeMoved(this.#groupDevices, target, 'v');
      case 'f':
        return this.#closeMoved(this.#groups, target, 'f');
      case 'i':
        at(this.#iommufds, index).close();
        this.#iommufds.splice(index, 1);
        return `close ${target}`;
      default:
        this.#containers.splice(index, 1);
        return `close ${target}`;
    }
  }

  // The recorder fills the gap with its last file.
  #closeMoved(list: { file: { release(): void } }[], target: string, letter: string): string {
    const index = numberIn(target);
    const last = list.length - 1;
    at(list, index).file.release();
    const moved = list.pop();
    if (index < last && moved !== undefined) list[index] = moved;
    return `close ${target}, ${letter}${last} is now ${letter}${index}`;
  }
}

type Step = (replay: Replay, words: Words) => string;

const STEPS: ReadonlyMap<string, Step> = new Map<string, Step>([
  ['bind', (replay, words) => replay.driverStep(words)],
  ['unbind', (replay, words) => replay.driverStep(words)],
  ['probe', (replay, words) => replay.driverStep(words)],
  ['override', (replay, words) => replay.driverStep(words)],
  ['remove', (replay, words) => replay.remove(words)],
  ['rescan', (replay) => replay.rescan()],
  ['open_cdev', (replay, words) => replay.openCdev(words)],
  ['open_iommufd', (replay) => replay.openIommufd()],
  ['ioas', (replay, words) => replay.ioas(words)],
  ['bind_iommufd', (replay, words) => replay.bindIommufd(words)],
  ['attach', (replay, words) => replay.attach(words)],
  ['detach', (replay, words) => replay.detach(words)],
  ['info', (replay, words) => replay.info(words)],
  ['open_group', (replay, words) => replay.openGroup(words)],
  ['open_container', (replay) => replay.openContainer()],
  ['set_container', (replay, words) => replay.setContainer(words)],
  ['unset_container', (replay, words) => replay.unsetContainer(words)],
  ['status', (replay, words) => replay.status(words)],
  ['set_iommu', (replay, words) => replay.setIommu(words)],
  ['get_device', (replay, words) => replay.getDevice(words)],
  ['close', (replay, words) => replay.close(words)],
]);

function ignore(): void {
  // The recorder does not look at these results either.
}

/** The number in "d7", "c0(d4)", "c0(d4)," or "i1". */
function numberIn(word: string): number {
  return Number.parseInt(word.replace(/^\D+/, ''), 10);
}

function at<T>(list: readonly T[], index: number): T {
  const item = list[index];
  if (item === undefined) throw new Error(`the program has no fd ${index}`);
  return item;
}
