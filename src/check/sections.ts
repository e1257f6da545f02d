/**
 * The sections of a row: a device with its driver, a container, a group with what VFIO keeps about it, a registration with its
 * open files. Each lays itself out, saves what the engine's objects say, and loads: it puts objects where the row says that
 * there are some (slots.ts), with their fields, which the engine lists (base/transfer.ts), and fills the lists of the engine.
 *
 * What is not there is all 0, and most is not; whoever saves clears the row before.
 *
 * An action changes little, so going back to the row before it loads only the sections that changed. Invariant: lists follow
 * from cells that say so to the layout ({@link REBUILDS}), fields from those of their own section.
 */
import { Known, only, type Fields, type StateCodec } from '../base/transfer.ts';
import { NO_PASID } from '../iommu/attach.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { IommuGroup, Subgroup } from '../iommu/group.ts';
import {
  deviceFields,
  groupFields,
  placeMember,
  subgroupFields,
  type GroupNames,
} from '../iommu/group-state.ts';
import { busDeviceFields, type BusDevice } from '../kernel/driver-state.ts';
import type { IommufdBinding, IommufdContext } from '../vfio/iommufd.ts';
import { isRegistered } from '../vfio/registration.ts';
import type { Container, DeviceOpen, GroupOpen, VfioDevice, VfioGroup } from '../vfio/state.ts';
import {
  containerFields,
  deviceOpenFields,
  groupOpenFields,
  vfioDeviceFields,
  vfioGroupFields,
} from '../vfio/state-transfer.ts';
import { Type1 } from '../vfio/type1/type1.ts';
import { at, item } from './cells.ts';
import { CheckedBinding, placeAttachment } from './iommufd.ts';
import { REBUILDS, type RowLayout } from './layout.ts';
import { OVERRIDES, THE_PASID } from './model.ts';
import type { Slots } from './slots.ts';
import type { World } from './world.ts';

export type Section = {
  /** in the effects of the layout */
  readonly bit: number;
  save(row: Uint8Array): void;
  /** Objects and their fields. */
  load(row: Uint8Array): void;
  /** Adds to lists that are empty; after all sections are loaded. */
  place?(row: Uint8Array): void;
  /** The same for attachments, after {@link place} of all sections. */
  attach?(row: Uint8Array): void;
};

/** All of a world's, in the order of the row, which is the order of loading. */
export function sectionsOf(world: World, slots: Slots, layout: RowLayout): Section[] {
  const groups = world.groups.map((_, g) => namesOfGroup(world, slots, g));
  const parts: Parts = { world, slots, layout, groups };
  return [
    ...world.devices.map((_, d) => new DeviceSection(parts, d)),
    ...world.users.map((_, u) => new ContainerSection(parts, u)),
    ...world.groups.map((_, g) => new GroupSection(parts, g)),
    ...world.devices.map((_, d) => new RegistrationSection(parts, d)),
  ];
}

/** Takes everything out of a list, one by one: setting its length gives back its memory, which the next push allocates again. */
export function empty(list: unknown[]): void {
  while (list.length > 0) list.pop();
}

/** What sections are made of. */
type Parts = {
  readonly world: World;
  readonly slots: Slots;
  readonly layout: RowLayout;
  readonly groups: readonly GroupNames[];
};

function pasidsOf(world: World, d: number): number[] {
  return world.machine.devices[d]?.pasid === true ? [THE_PASID] : [];
}

function namesOfGroup({ inventory, machine }: World, slots: Slots, g: number): GroupNames {
  return {
    domains: inventory.domains(g),
    defaultDomains: only(inventory.defaultDomain(g)),
    blockingDomain: inventory.blockingDomain,
    owners: inventory.owners(item(slots.vfioGroups, g)),
    pasids: machine.devices.some(({ pasid }) => pasid) ? [NO_PASID, THE_PASID] : [NO_PASID],
    handle: { domain: undefined },
  };
}

/** A device on the bus and in its group. */
class DeviceSection implements Section {
  readonly bit: number;
  readonly #world: World;
  readonly #d: number;
  readonly #device: IommuDevice;
  readonly #together: Subgroup;
  readonly #own: Subgroup;
  readonly #bus: StateCodec<BusDevice>;
  readonly #removing: number;
  readonly #member: number;
  /** place of the flag, where devices can have a subgroup of their own */
  readonly #alone: number | undefined;
  readonly #iommu: StateCodec<IommuDevice>;
  readonly #subgroup: StateCodec<Subgroup> | undefined;

  constructor({ world, slots, layout, groups }: Parts, d: number) {
    const { inventory, machine, options } = world;
    const spec = item(machine.devices, d);
    const subgroups = item(slots.subgroups, spec.group);
    const about = { device: d };
    this.bit = layout.nextSection();
    this.#world = world;
    this.#d = d;
    this.#device = item(world.devices, d);
    this.#together = item(subgroups, 0);
    this.#own = item(subgroups, d + 1);
    this.#bus = layout.fields<BusDevice>(about, (fields) => {
      const { vfioPci, pciStub, kernelDrivers } = inventory;
      busDeviceFields(fields, {
        drivers: new Known([item(kernelDrivers, d), vfioPci, pciStub]),
        overrides: new Known<string>(options.bounds.override ? OVERRIDES : []),
      });
    });
    this.#removing = layout.flag(about, 'removing');
    this.#member = layout.flag(about, 'member', REBUILDS.everything);
    this.#alone = world.hasSubgroups ? layout.flag(about, 'alone', REBUILDS.everything) : undefined;
    this.#iommu = layout.fields<IommuDevice>(about, (fields) => {
      deviceFields(fields, this.#device, {
        domains: inventory.domains(spec.group),
        groups: only(world.groupOf(d)),
        kernelDrivers: only(spec.kernelDriver),
        pasids: pasidsOf(world, d),
      });
    });
    if (!world.hasSubgroups) return;
    this.#subgroup = layout.fields<Subgroup>(about, (fields) => {
      subgroupFields(fields, item(groups, spec.group));
    });
  }

  save(row: Uint8Array): void {
    const device = this.#device;
    this.#bus.save(item(this.#world.bus, this.#d), row);
    row[this.#removing] = at(this.#world.removing, this.#d);
    row[this.#member] = device.group === undefined ? 0 : 1;
    this.#iommu.save(device, row);
    if (this.#alone === undefined || device.group === undefined) return;
    const subgroup = device.group.subgroupOf(device);
    // Only one subgroup can have several members (subgroups.ts), so it is enough to know who is alone.
    if (subgroup.members.length > 1) return;
    row[this.#alone] = 1;
    this.#subgroup?.save(subgroup, row);
  }

  load(row: Uint8Array): void {
    const device = this.#device;
    this.#bus.load(item(this.#world.bus, this.#d), row);
    this.#world.removing[this.#d] = at(row, this.#removing);
    this.#iommu.load(device, row);
    if (this.#isAlone(row)) this.#subgroup?.load(this.#own, row);
  }

  place(row: Uint8Array): void {
    if (row[this.#member] === 0) return;
    placeMember(this.#device, this.#isAlone(row) ? this.#own : this.#together);
  }

  #isAlone(row: Uint8Array): boolean {
    return this.#alone !== undefined && row[this.#alone] === 1;
  }
}

/** A user's container; which groups are in it is theirs to say. */
class ContainerSection implements Section {
  readonly bit: number;
  readonly #container: Container;
  readonly #fields: StateCodec<Container>;

  constructor({ world, slots, layout }: Parts, u: number) {
    this.bit = layout.nextSection();
    this.#container = item(world.inventory.containers, u);
    const types = only(item(slots.type1s, u).type1);
    const list = (fields: Fields<Container>): void => {
      containerFields(fields, types);
    };
    this.#fields = layout.fields({ user: u }, list, { iommu: REBUILDS.everything });
  }

  save(row: Uint8Array): void {
    this.#fields.save(this.#container, row);
  }

  load(row: Uint8Array): void {
    this.#fields.load(this.#container, row);
  }
}

/** A group, VFIO's group for it, and the file of that. */
class GroupSection implements Section {
  readonly bit: number;
  readonly #world: World;
  readonly #slots: Slots;
  readonly #g: number;
  readonly #group: IommuGroup;
  readonly #together: Subgroup;
  readonly #vfioGroup: VfioGroup;
  readonly #open: GroupOpen;
  readonly #subgroup: StateCodec<Subgroup>;
  readonly #fields: StateCodec<IommuGroup>;
  readonly #vfio: number;
  readonly #vfioFields: StateCodec<VfioGroup>;
  readonly #translated: number;
  readonly #file: number;
  readonly #openFields: StateCodec<GroupOpen>;
  /** Who has the descriptor is nothing that VFIO knows. */
  readonly #openedBy: number;
  readonly #lingering: number;

  constructor({ world, slots, layout, groups }: Parts, g: number) {
    const names = item(groups, g);
    const about = { group: g };
    this.bit = layout.nextSection();
    this.#world = world;
    this.#slots = slots;
    this.#g = g;
    this.#group = item(world.groups, g);
    this.#together = item(item(slots.subgroups, g), 0);
    this.#vfioGroup = item(slots.vfioGroups, g);
    this.#open = item(slots.groupOpens, g);
    this.#subgroup = layout.fields<Subgroup>(about, (fields) => {
      subgroupFields(fields, names);
    });
    this.#fields = layout.fields<IommuGroup>(about, (fields) => {
      groupFields(fields, names);
    });
    this.#vfio = layout.flag(about, 'VFIO group', REBUILDS.everything);
    const list = (fields: Fields<VfioGroup>): void => {
      vfioGroupFields(fields, {
        iommuGroups: only(this.#group),
        opens: only(this.#open),
        containers: new Known(world.inventory.containers, { holds: 'user' }),
        contexts: new Known<IommufdContext>(world.users, { holds: 'user' }),
      });
    };
    this.#vfioFields = layout.fields(about, list, {
      iommuGroup: REBUILDS.everything,
      container: REBUILDS.everything,
    });
    this.#translated = layout.flag(about, 'translated', REBUILDS.everything);
    this.#file = layout.flag(about, 'group file');
    this.#openFields = layout.fields<GroupOpen>(about, groupOpenFields);
    const { bits } = new Known(world.users);
    this.#openedBy = layout.cell(about, { name: 'opened by', bits, holds: 'user' });
    this.#lingering = layout.flag(about, 'descriptor closed');
  }

  save(row: Uint8Array): void {
    const world = this.#world;
    const together = this.#sharedSubgroup();
    if (together !== undefined) this.#subgroup.save(together, row);
    this.#fields.save(this.#group, row);
    const vfio = world.vfioGroup(this.#g);
    if (vfio === undefined) return;
    row[this.#vfio] = 1;
    this.#vfioFields.save(vfio, row);
    row[this.#translated] = isTranslated(vfio) ? 1 : 0;
    // A file whose group is gone is of no use to anyone.
    if (vfio.opened === undefined) return;
    row[this.#file] = 1;
    this.#openFields.save(vfio.opened, row);
    const user = world.file[this.#g];
    row[this.#openedBy] = user === undefined ? 0 : user + 1;
    row[this.#lingering] = at(world.lingering, this.#g);
  }

  #sharedSubgroup(): Subgroup | undefined {
    const { subgroups } = this.#group;
    if (!this.#world.hasSubgroups) return subgroups[0];
    return subgroups.find(({ members }) => members.length > 1);
  }

  load(row: Uint8Array): void {
    this.#subgroup.load(this.#together, row);
    this.#fields.load(this.#group, row);
    if (row[this.#vfio] === 0) return;
    const vfio = this.#vfioGroup;
    this.#vfioFields.load(vfio, row);
    if (row[this.#file] === 0) return;
    this.#openFields.load(this.#open, row);
    const user = at(row, this.#openedBy);
    this.#world.file[this.#g] = user === 0 ? undefined : user - 1;
    this.#world.lingering[this.#g] = at(row, this.#lingering);
  }

  place(row: Uint8Array): void {
    if (row[this.#vfio] === 0) return;
    const vfio = this.#vfioGroup;
    const { container, iommuGroup } = vfio;
    const { table, containers } = this.#world.inventory;
    empty(vfio.devices);
    table.groups.push(vfio);
    if (container === undefined || iommuGroup === undefined) return;
    container.groups.push(vfio);
    const { iommu } = container;
    if (row[this.#translated] === 0 || !(iommu instanceof Type1)) return;
    const { shared } = item(this.#slots.type1s, containers.indexOf(container));
    if (shared.groups.length === 0) iommu.domains.push(shared);
    shared.groups.push(iommuGroup);
  }
}

function isTranslated({ container, iommuGroup }: VfioGroup): boolean {
  const iommu = container?.iommu;
  if (iommuGroup === undefined || !(iommu instanceof Type1)) return false;
  return iommu.domains.some(({ groups }) => groups.includes(iommuGroup));
}

/** A device's registration with VFIO, what it is attached to, and its open files. */
class RegistrationSection implements Section {
  readonly bit: number;
  readonly #world: World;
  readonly #d: number;
  readonly #slot: VfioDevice;
  readonly #there: number;
  /** Gone, and yet open: what unbind-waits-for-users protects from. */
  readonly #gone: number;
  readonly #fields: StateCodec<VfioDevice>;
  /** by PASID, the RID first */
  readonly #hwpts: readonly { readonly pasid: number; readonly place: number }[];
  readonly #opens: readonly OpenPart[];

  constructor({ world, slots, layout }: Parts, d: number) {
    const about = { device: d };
    const { users, options } = world;
    this.bit = layout.nextSection();
    const bindings = users.map((user) => item(user.bindings, d));
    const pasids = pasidsOf(world, d);
    this.#world = world;
    this.#d = d;
    this.#slot = item(slots.vfioDevices, d);
    this.#there = layout.flag(about, 'VFIO device', REBUILDS.everything);
    this.#gone = layout.flag(about, 'gone', REBUILDS.everything);
    const list = (fields: Fields<VfioDevice>): void => {
      vfioDeviceFields(fields, {
        whenIdle: only(world.whenIdle(d)),
        bindings: new Known<IommufdBinding>(bindings, { holds: 'user' }),
        pasids,
      });
    };
    this.#fields = layout.fields(about, list, {
      whenIdle: REBUILDS.everything,
      binding: REBUILDS.attachments,
    });
    const bits = 32 - Math.clz32(options.bounds.ioases);
    this.#hwpts = [NO_PASID, ...pasids].map((pasid) => ({
      pasid,
      place: layout.cell(about, { name: 'HWPT', bits }, REBUILDS.attachments),
    }));
    this.#opens = users.flatMap((_, u) => {
      const place = { user: u, device: d, slot: world.slot(u, d) };
      const node = new OpenPart(world, layout, place, [world.nodes, slots.nodeOpens]);
      if (!options.bounds.groupFiles) return [node];
      const through = [world.groupDevices, slots.groupDeviceOpens] as const;
      return [node, new OpenPart(world, layout, place, through)];
    });
  }

  save(row: Uint8Array): void {
    const device = this.#world.vfioDevice(this.#d);
    if (device === undefined) return;
    row[this.#there] = 1;
    row[this.#gone] = this.#world.inventory.table.devices.includes(device) ? 0 : 1;
    this.#fields.save(device, row);
    const { binding } = device;
    if (binding instanceof CheckedBinding) {
      for (const { pasid, place } of this.#hwpts) row[place] = binding.attachedTo(pasid)?.id ?? 0;
    }
    for (const open of this.#opens) open.save(row);
  }

  load(row: Uint8Array): void {
    if (row[this.#there] === 1) this.#fields.load(this.#slot, row);
    for (const open of this.#opens) open.load(row);
  }

  place(row: Uint8Array): void {
    const there = row[this.#there] === 1 && row[this.#gone] === 0;
    const device = this.#slot;
    this.#world.inventory.table.devices[this.#d] = there ? device : undefined;
    if (there && isRegistered(device)) device.group.devices.push(device);
  }

  attach(row: Uint8Array): void {
    const { binding } = this.#slot;
    if (row[this.#there] === 0 || !(binding instanceof CheckedBinding)) return;
    for (const { pasid, place } of this.#hwpts) {
      const id = at(row, place);
      if (id > 0) placeAttachment(binding, pasid, id);
    }
  }
}

type Opens = readonly [opens: (DeviceOpen | undefined)[], slots: readonly DeviceOpen[]];

/** A file of a device that a user has or not. */
class OpenPart {
  readonly #opens: (DeviceOpen | undefined)[];
  readonly #index: number;
  readonly #slot: DeviceOpen;
  readonly #there: number;
  readonly #fields: StateCodec<DeviceOpen>;

  constructor(
    world: World,
    layout: RowLayout,
    {
      user,
      device,
      slot,
    }: { readonly user: number; readonly device: number; readonly slot: number },
    [opens, slots]: Opens,
  ) {
    const about = { user, device };
    this.#opens = opens;
    this.#index = slot;
    this.#slot = item(slots, slot);
    this.#there = layout.flag(about, 'open');
    this.#fields = layout.fields<DeviceOpen>(about, (fields) => {
      deviceOpenFields(fields, only<IommufdContext>(item(world.users, user)));
    });
  }

  save(row: Uint8Array): void {
    const open = this.#opens[this.#index];
    if (open === undefined) return;
    row[this.#there] = 1;
    this.#fields.save(open, row);
  }

  load(row: Uint8Array): void {
    const there = row[this.#there] === 1;
    this.#opens[this.#index] = there ? this.#slot : undefined;
    if (there) this.#fields.load(this.#slot, row);
  }
}
