/**
 * The world that the checker explores: the engine's own state of groups (iommu), attachments (iommufd), containers, group files
 * and device nodes (vfio), and drivers (kernel), on a handful of devices. Actions on it are the engine's functions.
 *
 * A state is a row of numbers (sections.ts, layout.ts, cells.ts). `load` makes the engine's objects what the row says, an action acts on them,
 * `save` writes the row anew. What one descriptor of a kind, one program, one step is follows from the bounds.
 *
 * Its own is only what the engine leaves to processes and the bus: who has which descriptor, and that a device that is being
 * removed goes when its driver has let go.
 */
import type { Domain, IommuDevice } from '../iommu/domain.ts';
import { probeDevice, releaseDevice, type IommuGroup } from '../iommu/group.ts';
import { emptyGroup } from '../iommu/group-state.ts';
import type { OwnershipRule, ProfileName } from '../iommu/profile.ts';
import {
  finishRelease,
  joinBus,
  leaveBus,
  release,
  type BusDevice,
} from '../kernel/driver-state.ts';
import type { DeviceOpen, VfioDevice, VfioGroup } from '../vfio/state.ts';
import { item, Packing, permutations } from './cells.ts';
import { Inventory } from './inventory.ts';
import { CheckedBinding, type CheckedIommufd } from './iommufd.ts';
import { REBUILDS, RowLayout } from './layout.ts';
import type { CheckBounds, CheckMachine } from './model.ts';
import { empty, sectionsOf, type Section } from './sections.ts';
import { Slots } from './slots.ts';

export type WorldOptions = {
  readonly profile: ProfileName;
  readonly bounds: CheckBounds;
  readonly rulesOff: ReadonlySet<OwnershipRule>;
};

/** What the container of a group is up to. */
export type Behind = 'nothing' | 'container' | 'type1' | 'iommufd';

const ignore = (): void => undefined;

export class World {
  readonly machine: CheckMachine;
  readonly options: WorldOptions;
  readonly inventory: Inventory;
  readonly packing: Packing;
  /** by device; one that is plugged is another one */
  readonly bus: BusDevice[];
  /** by user and device: opens of nodes, and opens through group files */
  readonly nodes: (DeviceOpen | undefined)[];
  readonly groupDevices: (DeviceOpen | undefined)[];
  /** by group, while its file is open: who opened it, and whether the descriptor is closed and devices hold the file */
  readonly file: (number | undefined)[];
  readonly lingering: Uint8Array;
  /** by device: it goes as soon as its driver has let go */
  readonly removing: Uint8Array;

  readonly hasSubgroups: boolean;
  readonly #slots: Slots;
  readonly #sections: readonly Section[];
  /** by cell: what a change of it concerns */
  readonly #effects: Int32Array;
  readonly #row: Uint8Array;
  readonly #scratch: Uint8Array;
  // The same, four cells at a time, to compare them.
  readonly #rowWords: Uint32Array;
  readonly #scratchWords: Uint32Array;

  constructor(machine: CheckMachine, options: WorldOptions) {
    this.machine = machine;
    this.options = options;
    this.inventory = new Inventory(machine, options);
    this.#slots = new Slots(this.inventory);
    const { users, devices, groups } = this.inventory;
    this.hasSubgroups = options.profile === 'subgroup';
    this.bus = devices.map((_, d) => this.inventory.busDevice(d));
    this.nodes = Array.from({ length: users.length * devices.length }, () => undefined);
    this.groupDevices = [...this.nodes];
    this.file = groups.map(() => undefined);
    this.lingering = new Uint8Array(groups.length);
    this.removing = new Uint8Array(devices.length);
    const layout = new RowLayout();
    this.#sections = sectionsOf(this, this.#slots, layout);
    this.packing = new Packing(layout.cells, this.#renamings());
    this.#effects = Int32Array.from(layout.effects);
    const size = Math.ceil(layout.cells.length / 4) * 4;
    this.#row = new Uint8Array(size);
    this.#scratch = new Uint8Array(size);
    this.#rowWords = new Uint32Array(this.#row.buffer);
    this.#scratchWords = new Uint32Array(this.#scratch.buffer);
    this.loadRow(this.#row);
  }

  #renamings(): { users: number[]; devices: number[] }[] {
    const users = permutations(this.inventory.users.map(() => 'user'));
    const alike = this.machine.devices.map(({ requesterIds, ...spec }) =>
      JSON.stringify({
        ...spec,
        name: '',
        requesterIds: [requesterIds.length, this.#sharesId(requesterIds)],
      }),
    );
    const devices = permutations(alike);
    return users.flatMap((u) => devices.map((d) => ({ users: u, devices: d })));
  }

  #sharesId(ids: readonly number[]): boolean {
    const users = this.machine.devices.filter((each) =>
      each.requesterIds.some((id) => ids.includes(id)),
    );
    return users.length > 1;
  }

  get users(): readonly CheckedIommufd[] {
    return this.inventory.users;
  }

  get devices(): readonly IommuDevice[] {
    return this.inventory.devices;
  }

  get groups(): readonly IommuGroup[] {
    return this.inventory.groups;
  }

  groupIndex(device: number): number {
    return this.inventory.groupIndex(device);
  }

  groupOf(device: number): IommuGroup {
    return item(this.groups, this.groupIndex(device));
  }

  isPresent(device: number): boolean {
    return this.bus[device]?.listed === true;
  }

  isMember(device: number): boolean {
    return this.devices[device]?.group !== undefined;
  }

  /** Index of a user's and device's entry in {@link nodes} and {@link groupDevices}. */
  slot(user: number, device: number): number {
    return user * this.devices.length + device;
  }

  /** A device as VFIO has it; also one that is open although its driver is gone. */
  vfioDevice(device: number): VfioDevice | undefined {
    const iommu = this.devices[device];
    const { devices } = this.inventory.table;
    const own = devices[device];
    if (own?.iommu === iommu) return own;
    for (const each of devices) if (each?.iommu === iommu) return each;
    for (let u = 0; u < this.users.length; u++) {
      const slot = this.slot(u, device);
      const open = this.nodes[slot] ?? this.groupDevices[slot];
      if (open !== undefined) return open.device;
    }
    return undefined;
  }

  /** The registered device. */
  registered(device: number): VfioDevice | undefined {
    const iommu = this.devices[device];
    return this.vfioGroup(this.groupIndex(device))?.devices.find((each) => each.iommu === iommu);
  }

  vfioGroup(group: number): VfioGroup | undefined {
    const iommuGroup = this.groups[group];
    const { groups } = this.inventory.table;
    for (const each of groups) if (each.iommuGroup === iommuGroup) return each;
    return undefined;
  }

  /** The user who opened the group file that is open; undefined for none. */
  holder(group: number): number | undefined {
    return this.vfioGroup(group)?.opened === undefined ? undefined : this.file[group];
  }

  behind(group: number): Behind {
    const vfio = this.vfioGroup(group);
    if (vfio?.iommufd !== undefined) return 'iommufd';
    if (vfio?.container === undefined) return 'nothing';
    return vfio.container.iommu === undefined ? 'container' : 'type1';
  }

  /** Whose IOMMUFD a device is bound to; undefined for none. */
  boundTo(device: number): CheckedIommufd | undefined {
    const binding = this.vfioDevice(device)?.binding;
    return binding instanceof CheckedBinding ? binding.context : undefined;
  }

  /** The number of a domain in rows. */
  domainNumber(domain: Domain | undefined): number {
    return this.inventory.domainNumber(domain);
  }

  /** The beginning: every device that is present is in its group, without driver. @returns its row, packed */
  start(): Uint32Array {
    this.machine.devices.forEach((spec, d) => {
      if (spec.present) this.plug(d);
    });
    return this.save();
  }

  /** A device appears on the bus and joins its group. Throws Errno: it then has none. */
  plug(device: number): void {
    const added = this.inventory.busDevice(device);
    this.bus[device] = added;
    joinBus(added);
    probeDevice(added.iommu, () => this.groupOf(device).ref());
  }

  /** What is left to do when the last user of a device that is being unbound has gone. */
  whenIdle(device: number): () => void {
    return () => {
      finishRelease(item(this.bus, device), ignore, () => {
        this.#released(device);
      });
    };
  }

  /** A device that was being removed has no driver any more. */
  #released(device: number): void {
    if (this.removing[device] === 0) return;
    const gone = item(this.bus, device);
    leaveBus(gone);
    releaseDevice(gone.iommu);
    this.removing[device] = 0;
    this.bus[device] = this.inventory.busDevice(device);
  }

  /** A device is removed, at once or when its driver has let go. */
  remove(device: number): void {
    this.removing[device] = 1;
    release(item(this.bus, device), ignore, () => {
      this.#released(device);
    });
    // Where it must wait, it stays an unbind.
    this.removing[device] = 0;
  }

  /** Packs what the world is. The result is overwritten by the next call. */
  save(): Uint32Array {
    this.saveRow(this.#scratch);
    return this.packing.pack(this.#scratch);
  }

  /** Goes back to what was loaded last, from what was saved last. */
  reload(): void {
    const row = this.#row;
    const changed = this.#changed();
    if ((changed & REBUILDS.everything) !== 0) {
      this.loadRow(row);
      return;
    }
    for (const section of this.#sections) if ((changed & section.bit) !== 0) section.load(row);
    if ((changed & REBUILDS.attachments) !== 0) this.#attach(row);
  }

  // What concerns the cells in which the saved row differs from the loaded one.
  #changed(): number {
    const [loaded, saved] = [this.#rowWords, this.#scratchWords];
    let changed = 0;
    for (let word = 0; word < loaded.length; word++) {
      if (loaded[word] !== saved[word]) changed |= this.#changedIn(word * 4);
    }
    return changed;
  }

  #changedIn(first: number): number {
    let changed = 0;
    for (let i = first; i < first + 4; i++) {
      if (this.#row[i] !== this.#scratch[i]) changed |= this.#effects[i] ?? 0;
    }
    return changed;
  }

  /** Whether the world still is what was loaded. */
  isAsLoaded(): boolean {
    this.saveRow(this.#scratch);
    return this.#changed() === 0;
  }

  /** Makes the world what a packed row says. */
  load(words: Uint32Array, offset: number): void {
    this.packing.unpack(words, offset, this.#row);
    this.loadRow(this.#row);
  }

  /** The world as a row, in its own names. */
  saveRow(row: Uint8Array): void {
    row.fill(0);
    for (const section of this.#sections) section.save(row);
  }

  loadRow(row: Uint8Array): void {
    this.#clear();
    for (const section of this.#sections) section.load(row);
    for (const section of this.#sections) section.place?.(row);
    this.#attach(row);
  }

  #clear(): void {
    const { groups, devices, table, containers } = this.inventory;
    for (const group of groups) emptyGroup(group);
    for (const device of devices) device.group = undefined;
    empty(table.groups);
    while (table.devices.length > devices.length) table.devices.pop();
    for (const container of containers) empty(container.groups);
    for (const { type1, shared } of this.#slots.type1s) {
      empty(type1.domains);
      empty(shared.groups);
    }
  }

  #attach(row: Uint8Array): void {
    for (const user of this.users) user.forgetAttachments();
    for (const section of this.#sections) section.attach?.(row);
  }
}
