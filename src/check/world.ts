/**
 * The world that the checker explores: the engine's own state of groups (iommu), attachments (iommufd), containers, group files
 * and device nodes (vfio), and drivers (kernel), on a handful of devices. Actions on it are the engine's functions.
 *
 * A state is a row of numbers (row.ts, cells.ts). `load` makes the engine's objects what the row says, an action acts on them,
 * `save` writes the row anew. What one descriptor of a kind, one program, one step is follows from the bounds.
 *
 * Its own is only what the engine leaves to processes and the bus: who has which descriptor, and that a device that is being
 * removed goes when its driver has let go.
 */
import { Known, only } from '../base/transfer.ts';
import { NO_PASID } from '../iommu/attach.ts';
import type { Domain, IommuDevice } from '../iommu/domain.ts';
import { probeDevice, releaseDevice, type IommuGroup, type Subgroup } from '../iommu/group.ts';
import {
  emptyGroup,
  placeMember,
  transferDevice,
  transferGroup,
  transferSubgroup,
  type DeviceNames,
  type GroupNames,
} from '../iommu/group-state.ts';
import type { OwnershipRule, ProfileName } from '../iommu/profile.ts';
import {
  finishRelease,
  joinBus,
  leaveBus,
  release,
  transferBusDevice,
  type BusDevice,
  type BusDeviceNames,
} from '../kernel/driver-state.ts';
import type { IommufdBinding, IommufdContext } from '../vfio/iommufd.ts';
import { isRegistered } from '../vfio/registration.ts';
import type { DeviceOpen, VfioDevice, VfioGroup } from '../vfio/state.ts';
import {
  transferContainer,
  transferDeviceOpen,
  transferGroupOpen,
  transferVfioDevice,
  transferVfioGroup,
  type VfioDeviceNames,
  type VfioGroupNames,
} from '../vfio/state-transfer.ts';
import { Type1 } from '../vfio/type1/type1.ts';
import { at, item, Packing, permutations } from './cells.ts';
import { Inventory } from './inventory.ts';
import { CheckedBinding, transferAttachments, type CheckedIommufd } from './iommufd.ts';
import type { CheckBounds, CheckMachine } from './model.ts';
import { Row } from './row.ts';
import { Slots } from './slots.ts';

export type WorldOptions = {
  readonly profile: ProfileName;
  readonly bounds: CheckBounds;
  readonly rulesOff: ReadonlySet<OwnershipRule>;
};

/** What the container of a group is up to. */
export type Behind = 'nothing' | 'container' | 'type1' | 'iommufd';

/** The one PASID that users attach. */
export const THE_PASID = 1;

/** Values of driver_override that are a state of their own. */
export const OVERRIDES = ['vfio-pci', 'pci-stub'] as const;

const ignore = (): void => undefined;

// Setting the length of an array that is empty already costs as much as emptying one.
function empty(list: unknown[]): void {
  if (list.length > 0) list.length = 0;
}

/** What the rows of one device refer to. */
type Names = {
  readonly bus: BusDeviceNames;
  readonly iommu: DeviceNames;
  readonly vfio: VfioDeviceNames;
  readonly attachments: { readonly hwptIds: Known<number>; readonly pasids: readonly number[] };
};

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

  readonly #slots: Slots;
  readonly #io = new Row();
  readonly #row: Uint8Array;
  readonly #scratch: Uint8Array;
  readonly #deviceNames: readonly Names[];
  readonly #groupNames: readonly GroupNames[];
  readonly #vfioGroupNames: readonly VfioGroupNames[];
  readonly #contexts: readonly Known<IommufdContext>[];
  readonly #types: readonly Known<Type1>[];
  readonly #hwptIds: Known<number>;
  readonly #fileOwners: Known<number>;
  readonly #hasSubgroups: boolean;

  constructor(machine: CheckMachine, options: WorldOptions) {
    this.machine = machine;
    this.options = options;
    this.inventory = new Inventory(machine, options);
    this.#slots = new Slots(this.inventory);
    const { users, devices, groups } = this.inventory;
    this.#hasSubgroups = options.profile === 'subgroup';
    this.bus = devices.map((_, d) => this.inventory.busDevice(d));
    this.nodes = Array.from({ length: users.length * devices.length }, () => undefined);
    this.groupDevices = [...this.nodes];
    this.file = groups.map(() => undefined);
    this.lingering = new Uint8Array(groups.length);
    this.removing = new Uint8Array(devices.length);
    this.#hwptIds = new Known(Array.from({ length: options.bounds.ioases }, (_, i) => i + 1));
    this.#fileOwners = new Known(
      users.map((_, u) => u),
      { holds: 'user' },
    );
    this.#contexts = users.map((user) => only<IommufdContext>(user));
    this.#types = this.#slots.type1s.map(({ type1 }) => only(type1));
    this.#deviceNames = devices.map((_, d) => this.#namesOf(d));
    this.#groupNames = groups.map((_, g) => this.#namesOfGroup(g));
    this.#vfioGroupNames = groups.map((group, g) => ({
      iommuGroups: only(group),
      opens: only(item(this.#slots.groupOpens, g)),
      containers: new Known(this.inventory.containers, { holds: 'user' }),
      contexts: new Known<IommufdContext>(users, { holds: 'user' }),
    }));
    this.#clear();
    this.#transfer();
    this.#io.layOut();
    const { cells } = this.#io;
    this.packing = new Packing(cells, this.#renamings());
    this.#row = new Uint8Array(cells.length);
    this.#scratch = new Uint8Array(cells.length);
  }
  #namesOf(d: number): Names {
    const { inventory } = this;
    const { users } = inventory;
    const spec = item(this.machine.devices, d);
    const { vfioPci, pciStub } = inventory;
    const pasids = spec.pasid ? [THE_PASID] : [];
    return {
      bus: {
        drivers: new Known([item(inventory.kernelDrivers, d), vfioPci, pciStub]),
        overrides: new Known<string>(this.options.bounds.override ? OVERRIDES : []),
      },
      iommu: {
        domains: inventory.domains(spec.group),
        groups: only(this.groupOf(d)),
        kernelDrivers: only(spec.kernelDriver),
        pasids,
      },
      vfio: {
        whenIdle: only(() => {
          finishRelease(item(this.bus, d), ignore, () => {
            this.#released(d);
          });
        }),
        bindings: new Known<IommufdBinding>(
          users.map(({ bindings }) => item(bindings, d)),
          { holds: 'user' },
        ),
        pasids,
      },
      attachments: { hwptIds: this.#hwptIds, pasids },
    };
  }

  #namesOfGroup(g: number): GroupNames {
    const { inventory, machine } = this;
    return {
      domains: inventory.domains(g),
      defaultDomains: only(inventory.defaultDomain(g)),
      blockingDomain: inventory.blockingDomain,
      owners: inventory.owners(item(this.#slots.vfioGroups, g)),
      pasids: machine.devices.some(({ pasid }) => pasid) ? [NO_PASID, THE_PASID] : [NO_PASID],
      handle: { domain: undefined },
    };
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

  /** Goes back to what was loaded last. */
  reload(): void {
    this.loadRow(this.#row);
  }

  /** Whether the world still is what was loaded. */
  isAsLoaded(): boolean {
    const loaded = this.#row;
    const now = this.#scratch;
    this.saveRow(now);
    for (let i = 0; i < loaded.length; i++) if (loaded[i] !== now[i]) return false;
    return true;
  }

  /** Makes the world what a packed row says. */
  load(words: Uint32Array, offset: number): void {
    this.packing.unpack(words, offset, this.#row);
    this.loadRow(this.#row);
  }

  /** The world as a row, in its own names. */
  saveRow(row: Uint8Array): void {
    this.#io.begin(false, row);
    this.#transfer();
  }

  loadRow(row: Uint8Array): void {
    this.#clear();
    this.#io.begin(true, row);
    this.#transfer();
  }

  #clear(): void {
    const { groups, devices, table, containers, users } = this.inventory;
    for (const group of groups) emptyGroup(group);
    for (const device of devices) device.group = undefined;
    empty(table.groups);
    while (table.devices.length > devices.length) table.devices.pop();
    for (let d = 0; d < devices.length; d++) table.devices[d] = undefined;
    for (const container of containers) empty(container.groups);
    for (const { type1, shared } of this.#slots.type1s) {
      empty(type1.domains);
      empty(shared.groups);
    }
    for (const user of users) user.forgetAttachments();
  }

  #transfer(): void {
    for (let d = 0; d < this.devices.length; d++) this.#transferDevice(d);
    for (let u = 0; u < this.users.length; u++) this.#transferContainer(u);
    for (let g = 0; g < this.groups.length; g++) this.#transferGroup(g);
    for (let d = 0; d < this.devices.length; d++) this.#transferVfioDevice(d);
  }

  #transferDevice(d: number): void {
    const io = this.#io;
    const names = item(this.#deviceNames, d);
    const device = item(this.devices, d);
    const g = this.groupIndex(d);
    io.aboutDevice(d);
    transferBusDevice(item(this.bus, d), io, names.bus);
    this.removing[d] = io.count('removing', at(this.removing, d), 1);
    const own = io.loads ? undefined : this.#ownSubgroup(device);
    const member = io.flag('member', device.group !== undefined);
    const alone = this.#hasSubgroups && io.flag('alone', own !== undefined);
    const slots = item(this.#slots.subgroups, g);
    const place = item(slots, alone ? d + 1 : 0);
    if (io.loads && member) placeMember(device, place);
    transferDevice(device, io, names.iommu);
    if (!this.#hasSubgroups) return;
    const subgroup = io.loads ? item(slots, d + 1) : (own ?? this.#slots.empty.subgroup);
    transferSubgroup(subgroup, io, item(this.#groupNames, g));
  }

  // Only one subgroup can have several members (subgroups.ts), so it is enough to know who is alone.
  #ownSubgroup(device: IommuDevice): Subgroup | undefined {
    if (!this.#hasSubgroups || device.group === undefined) return undefined;
    const subgroup = device.group.subgroupOf(device);
    return subgroup.members.length === 1 ? subgroup : undefined;
  }

  #transferContainer(u: number): void {
    this.#io.aboutUser(u);
    transferContainer(item(this.inventory.containers, u), this.#io, item(this.#types, u));
  }

  #transferGroup(g: number): void {
    const io = this.#io;
    const group = item(this.groups, g);
    const names = item(this.#groupNames, g);
    io.aboutGroup(g);
    const together = io.loads ? this.#slots.subgroups[g]?.[0] : this.#sharedSubgroup(group);
    transferSubgroup(together ?? this.#slots.empty.subgroup, io, names);
    transferGroup(group, io, names);
    const found = io.loads ? undefined : this.vfioGroup(g);
    if (!io.part('VFIO group', found !== undefined)) return;
    const vfio = io.loads
      ? item(this.#slots.vfioGroups, g)
      : (found ?? this.#slots.empty.vfioGroup);
    transferVfioGroup(vfio, io, item(this.#vfioGroupNames, g));
    const translated = io.flag('translated', this.#isTranslated(vfio));
    if (io.loads) this.#placeVfioGroup(vfio, translated);
    this.#transferFile(g, vfio);
    io.endPart();
  }

  #sharedSubgroup(group: IommuGroup): Subgroup | undefined {
    if (!this.#hasSubgroups) return group.subgroups[0];
    return group.subgroups.find(({ members }) => members.length > 1);
  }

  // Who has the descriptor is nothing that VFIO knows. A file whose group is gone is of no use to anyone.
  #transferFile(g: number, { opened }: VfioGroup): void {
    const io = this.#io;
    if (!io.part('group file', opened !== undefined)) return;
    transferGroupOpen(opened ?? this.#slots.empty.groupOpen, io);
    this.file[g] = io.one('opened by', this.file[g], this.#fileOwners);
    this.lingering[g] = io.count('descriptor closed', at(this.lingering, g), 1);
    io.endPart();
  }

  #isTranslated({ container, iommuGroup }: VfioGroup): boolean {
    const iommu = container?.iommu;
    if (iommuGroup === undefined || !(iommu instanceof Type1)) return false;
    return iommu.domains.some(({ groups }) => groups.includes(iommuGroup));
  }

  #placeVfioGroup(vfio: VfioGroup, translated: boolean): void {
    const { container, iommuGroup } = vfio;
    empty(vfio.devices);
    this.inventory.table.groups.push(vfio);
    if (container === undefined || iommuGroup === undefined) return;
    container.groups.push(vfio);
    const { iommu } = container;
    if (!translated || !(iommu instanceof Type1)) return;
    const { shared } = item(this.#slots.type1s, this.inventory.containers.indexOf(container));
    if (shared.groups.length === 0) iommu.domains.push(shared);
    shared.groups.push(iommuGroup);
  }

  #transferVfioDevice(d: number): void {
    const io = this.#io;
    const { vfio, attachments } = item(this.#deviceNames, d);
    io.aboutDevice(d);
    const found = io.loads ? undefined : this.vfioDevice(d);
    if (io.part('VFIO device', found !== undefined)) {
      const slots = this.#slots;
      const device = io.loads ? item(slots.vfioDevices, d) : (found ?? slots.empty.vfioDevice);
      const registered = this.inventory.table.devices.includes(device);
      // Gone, and yet open: what unbind-waits-for-users protects from.
      const gone = io.flag('gone', !registered);
      transferVfioDevice(device, io, vfio);
      if (io.loads && !gone) this.#placeVfioDevice(d, device);
      const { binding } = device;
      const bound = binding instanceof CheckedBinding ? binding : undefined;
      transferAttachments(bound, io, attachments);
      this.#transferOpens(d);
      io.endPart();
    } else if (io.loads) {
      this.#closeAll(d);
    }
  }

  #placeVfioDevice(d: number, device: VfioDevice): void {
    this.inventory.table.devices[d] = device;
    if (isRegistered(device)) device.group.devices.push(device);
  }

  #transferOpens(d: number): void {
    const users = this.users.length;
    for (let u = 0; u < users; u++) {
      const slot = this.slot(u, d);
      this.#io.aboutOpen(u, d);
      this.#transferOpen(this.nodes, slot, this.#slots.nodeOpens, u);
      if (this.options.bounds.groupFiles) {
        this.#transferOpen(this.groupDevices, slot, this.#slots.groupDeviceOpens, u);
      }
    }
  }

  #closeAll(d: number): void {
    for (let u = 0; u < this.users.length; u++) {
      const slot = this.slot(u, d);
      this.nodes[slot] = undefined;
      this.groupDevices[slot] = undefined;
    }
  }

  #transferOpen(
    opens: (DeviceOpen | undefined)[],
    slot: number,
    slots: readonly DeviceOpen[],
    user: number,
  ): void {
    const io = this.#io;
    const there = io.part('open', opens[slot] !== undefined);
    if (io.loads) opens[slot] = there ? slots[slot] : undefined;
    if (!there) return;
    const open = opens[slot] ?? this.#slots.empty.deviceOpen;
    transferDeviceOpen(open, io, item(this.#contexts, user));
    io.endPart();
  }
}
