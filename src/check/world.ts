/**
 * The world that the checker explores. Groups, ownership, attaching and reset windows are the engine's own (src/iommu); the
 * doors around them (driver core, device nodes, group files, containers, IOMMUFD) are told again here in their smallest form,
 * so that a state can be put down and taken up in a microsecond. That the doors of src/vfio and src/kernel do the same
 * is what the recorded programs show, and random programs on the real doors (test/ownership-doors.test.ts).
 *
 * A state is a row of numbers (cells.ts). `load` makes the engine's objects what the row says, an action acts on them
 * through the engine, `save` writes the row anew. What one descriptor of a kind, one program, one step is follows from the bounds.
 */
import { attachGroupHandle, detachGroupHandle, NO_PASID } from '../iommu/attach.ts';
import { BareDomain } from '../iommu/hardware/bare.ts';
import { IommuDevice, type Domain, type IommuOps } from '../iommu/domain.ts';
import { Subgroup, GroupTable, probeDevice, type IommuGroup } from '../iommu/group.ts';
import { PROFILES, type OwnershipRule, type ProfileName } from '../iommu/profile.ts';
import {
  at,
  DOMAIN,
  domainOf,
  DOMAINS_PER_USER,
  item,
  Packing,
  permutations,
  type CellSpec,
} from './cells.ts';
import type { CheckBounds, CheckDevice, CheckMachine } from './model.ts';

/** What a device's driver is up to. */
export const DRIVER = {
  none: 0,
  /** kernel DMA is granted, the probe has not ended */
  probing: 1,
  kernel: 2,
  vfio: 3,
  /** manages its DMA itself and does nothing: pci-stub, pcieport */
  stub: 4,
  /** vfio-pci is being unbound and waits for user space */
  leaving: 5,
} as const;

/** What stands behind an open group file. */
export const MODE = { none: 0, container: 1, type1: 2, iommufd: 3 } as const;

/** A descriptor of a device's node. */
export const CDEV = { closed: 0, open: 1, bound: 2 } as const;

export type WorldOptions = {
  readonly profile: ProfileName;
  readonly bounds: CheckBounds;
  readonly rulesOff: ReadonlySet<OwnershipRule>;
};

const NOBODY = { name: 'nobody' };

export class World {
  readonly machine: CheckMachine;
  readonly options: WorldOptions;
  readonly packing: Packing;
  readonly users: readonly { readonly name: string }[];
  /** a container on group g as owner */
  readonly cookies: readonly { readonly name: string }[];
  readonly devices: readonly IommuDevice[];
  readonly groups: IommuGroup[] = [];

  // The doors, by device, by user and device, by group. Public: actions.ts and invariants.ts work on them.
  readonly present: Uint8Array;
  readonly driver: Uint8Array;
  readonly override: Uint8Array;
  /** bound to this user's IOMMUFD, plus 1 */
  readonly context: Uint8Array;
  /** attached to IOAS 0 or 1 of that user, plus 1 */
  readonly attached: Uint8Array;
  /** the same for its one PASID */
  readonly pasid: Uint8Array;
  readonly cdev: Uint8Array;
  readonly groupDevice: Uint8Array;
  /** who has the group file open, plus 1 */
  readonly file: Uint8Array;
  readonly mode: Uint8Array;
  /** the descriptor is closed, devices hold the file */
  readonly lingering: Uint8Array;

  readonly #row: Uint8Array;
  readonly #scratch: Uint8Array;
  readonly #table: GroupTable;
  readonly #domains: readonly Domain[];
  readonly #defaults: readonly Domain[];
  readonly #handles: readonly { domain: Domain | undefined }[];
  readonly #blocked: Domain;
  readonly #subgroups: Subgroup[][] = [];

  constructor(machine: CheckMachine, options: WorldOptions) {
    this.machine = machine;
    this.options = options;
    const { users } = options.bounds;
    const count = machine.devices.length;
    const groups = 1 + Math.max(...machine.devices.map(({ group }) => group));
    this.users = Array.from({ length: users }, (_, u) => ({ name: `user ${'XYZW'[u] ?? u}` }));
    this.cookies = Array.from({ length: groups }, (_, g) => ({
      name: `the container of group ${g}`,
    }));
    const ops = this.#makeOps();
    this.#blocked = ops.blockedDomain ?? new BareDomain({ kind: 'blocked', name: '' }, {});
    this.#defaults = Array.from(
      { length: groups },
      () => new BareDomain({ kind: 'dma', name: 'the default domain' }, {}, ops),
    );
    this.#domains = Array.from(
      { length: users * DOMAINS_PER_USER },
      (_, i) => new BareDomain({ kind: 'unmanaged', name: this.#domainName(i) }, {}, ops),
    );
    this.#handles = Array.from({ length: count * 2 }, () => ({ domain: undefined }));
    this.#table = new GroupTable({
      profile: PROFILES[options.profile],
      rulesOff: options.rulesOff,
    });
    for (let g = 0; g < groups; g++) this.groups.push(this.#table.alloc());
    for (const group of this.groups) {
      this.#subgroups.push(Array.from({ length: count + 1 }, () => new Subgroup(group)));
    }
    this.devices = machine.devices.map((spec) => makeDevice(spec, ops));
    [this.present, this.driver, this.override, this.context] = columns(count, 4);
    [this.attached, this.pasid] = columns(count, 2);
    [this.cdev, this.groupDevice] = columns(count * users, 2);
    [this.file, this.mode, this.lingering] = columns(groups, 3);
    const cells = this.#layOut(groups);
    this.packing = new Packing(cells, this.#renamings());
    this.#row = new Uint8Array(cells.length);
    this.#scratch = new Uint8Array(cells.length);
  }

  #domainName(i: number): string {
    const user = this.users[Math.floor(i / DOMAINS_PER_USER)] ?? NOBODY;
    const which = ['IOAS 1', 'IOAS 2', 'container'][i % DOMAINS_PER_USER] ?? '';
    return `the ${which} of ${user.name}`;
  }

  // Default domains come and go with the group's first and last member, but stay the same objects.
  #makeOps(): IommuOps {
    return {
      name: 'checked',
      capable: () => true,
      blockedDomain: new BareDomain({ kind: 'blocked', name: 'the blocking domain' }, {}),
      allocPaging: (device) => {
        const index = this.devices.indexOf(device);
        return item(this.#defaults, this.machine.devices[index]?.group ?? 0);
      },
    };
  }

  #layOut(groups: number): CellSpec[] {
    const cells: CellSpec[] = [];
    const { bounds } = this.options;
    this.machine.devices.forEach((spec, device) => {
      const add = (name: string, bits: number, holds?: 'user' | 'domain'): void => {
        cells.push(holds === undefined ? { name, bits, device } : { name, bits, device, holds });
      };
      add('present', 1);
      add('member', 1);
      add('driver', 3);
      if (bounds.override) add('override', 2);
      if (this.#hasSubgroups) add('alone', 1);
      add('hardware', 4, 'domain');
      add('subgroupDomain', 4, 'domain');
      add('subgroupHandle', 4, 'domain');
      add('context', 3, 'user');
      add('attached', 2);
      if (spec.ats) add('blocked', 1);
      if (spec.pasid) {
        add('pasid', 2);
        add('pasidDomain', 4, 'domain');
        add('pasidHardware', 4, 'domain');
      }
      for (let user = 0; user < bounds.users; user++) {
        cells.push({ name: 'cdev', bits: 2, device, user });
        if (bounds.groupFiles) cells.push({ name: 'groupDevice', bits: 1, device, user });
      }
    });
    for (let group = 0; group < groups; group++) {
      cells.push({ name: 'owner', bits: 3, group, holds: 'user' });
      cells.push({ name: 'cookie', bits: 1, group }, { name: 'count', bits: 4, group });
      cells.push({ name: 'file', bits: 3, group, holds: 'user' });
      cells.push({ name: 'mode', bits: 2, group }, { name: 'lingering', bits: 1, group });
    }
    return cells;
  }

  #renamings(): { users: number[]; devices: number[] }[] {
    const users = permutations(this.users.map(() => 'user'));
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

  get deviceCount(): number {
    return this.devices.length;
  }

  groupIndex(device: number): number {
    return this.machine.devices[device]?.group ?? 0;
  }

  groupOf(device: number): IommuGroup {
    return item(this.groups, this.groupIndex(device));
  }

  isMember(device: number): boolean {
    return this.devices[device]?.group !== undefined;
  }

  /** Index of a user's or device's entry in {@link cdev} and {@link groupDevice}. */
  slot(user: number, device: number): number {
    return user * this.devices.length + device;
  }

  subgroupOf(device: number): Subgroup {
    const entry = item(this.devices, device);
    return entry.requireGroup().subgroupOf(entry);
  }

  /** @param which 0 or 1 an IOAS, 2 the container */
  userDomain(user: number, which: number): Domain {
    return item(this.#domains, user * DOMAINS_PER_USER + which);
  }

  /** The number of a domain in rows. */
  domainNumber(domain: Domain | undefined, group: number): number {
    if (domain === undefined) return DOMAIN.none;
    if (domain === this.#blocked) return DOMAIN.blocked;
    if (domain === this.#defaults[group]) return DOMAIN.default;
    const index = this.#domains.indexOf(domain);
    return domainOf(Math.floor(index / DOMAINS_PER_USER), index % DOMAINS_PER_USER);
  }

  #domain(number: number, group: number): Domain | undefined {
    if (number === DOMAIN.none) return undefined;
    if (number === DOMAIN.default) return this.#defaults[group];
    if (number === DOMAIN.blocked) return this.#blocked;
    return this.#domains[number - DOMAIN.firstUser];
  }

  /** One handle per device and kind of attachment: handles are looked at by identity alone. */
  handle(device: number, pasid: number): { domain: Domain | undefined } {
    return item(this.#handles, device * 2 + (pasid === NO_PASID ? 0 : 1));
  }

  /** The beginning: every device that is present is in its group, without driver. @returns its row, packed */
  start(): Uint32Array {
    this.machine.devices.forEach((spec, d) => {
      if (spec.present) this.plug(d);
    });
    return this.save();
  }

  /** A device joins its group. Throws Errno: it then has none. */
  plug(device: number): void {
    this.present[device] = 1;
    probeDevice(item(this.devices, device), () => this.groupOf(device).ref());
  }

  /** Packs what the world is. The result is overwritten by the next call. */
  save(): Uint32Array {
    this.#write(this.#row);
    return this.packing.pack(this.#row);
  }

  /** Whether the world still is what was loaded. */
  isAsLoaded(): boolean {
    const loaded = this.#row;
    const now = this.#scratch;
    this.#write(now);
    for (let i = 0; i < loaded.length; i++) if (loaded[i] !== now[i]) return false;
    return true;
  }

  #write(row: Uint8Array): void {
    let i = 0;
    const { bounds } = this.options;
    for (let d = 0; d < this.devices.length; d++) {
      i = this.#saveDevice(row, d, i);
      for (let u = 0; u < bounds.users; u++) {
        row[i++] = at(this.cdev, this.slot(u, d));
        if (bounds.groupFiles) row[i++] = at(this.groupDevice, this.slot(u, d));
      }
    }
    for (let g = 0; g < this.groups.length; g++) {
      const { owner, ownerCount } = item(this.groups, g);
      const user = this.users.indexOf(owner ?? NOBODY);
      row[i++] = user + 1;
      row[i++] = owner !== undefined && user < 0 ? 1 : 0;
      row[i++] = ownerCount;
      row[i++] = at(this.file, g);
      row[i++] = at(this.mode, g);
      row[i++] = at(this.lingering, g);
    }
  }

  #saveDevice(row: Uint8Array, d: number, from: number): number {
    const device = item(this.devices, d);
    const spec = item(this.machine.devices, d);
    const g = spec.group;
    const member = device.group !== undefined;
    const subgroup = member ? this.subgroupOf(d) : undefined;
    let i = from;
    row[i++] = at(this.present, d);
    row[i++] = member ? 1 : 0;
    row[i++] = at(this.driver, d);
    if (this.options.bounds.override) row[i++] = at(this.override, d);
    if (this.#hasSubgroups) row[i++] = subgroup?.members.length === 1 ? 1 : 0;
    row[i++] = this.domainNumber(device.attached, g);
    row[i++] = this.domainNumber(subgroup?.domain, g);
    row[i++] = this.domainNumber(subgroup?.pasidArray.get(NO_PASID)?.domain, g);
    row[i++] = at(this.context, d);
    row[i++] = at(this.attached, d);
    if (spec.ats) row[i++] = device.resetDepth;
    if (spec.pasid) {
      row[i++] = at(this.pasid, d);
      row[i++] = this.domainNumber(subgroup?.pasidArray.get(1)?.domain, g);
      row[i++] = this.domainNumber(device.pasids.get(1), g);
    }
    return i;
  }

  // Only one subgroup can have several members (subgroups.ts), so it is enough to know who is alone.
  get #hasSubgroups(): boolean {
    return this.options.profile === 'subgroup';
  }

  /** Makes the world what a packed row says. */
  load(words: Uint32Array, offset: number): void {
    const row = this.#row;
    this.packing.unpack(words, offset, row);
    let i = 0;
    const { bounds } = this.options;
    this.#emptyGroups();
    for (let d = 0; d < this.devices.length; d++) {
      i = this.#loadDevice(d, i);
      for (let u = 0; u < bounds.users; u++) {
        this.cdev[this.slot(u, d)] = at(row, i++);
        if (bounds.groupFiles) this.groupDevice[this.slot(u, d)] = at(row, i++);
      }
    }
    for (let g = 0; g < this.groups.length; g++) {
      const group = item(this.groups, g);
      const user = at(row, i++) - 1;
      const cookie = at(row, i++) === 1;
      group.owner = cookie ? this.cookies[g] : this.users[user];
      group.ownerCount = at(row, i++);
      this.file[g] = at(row, i++);
      this.mode[g] = at(row, i++);
      this.lingering[g] = at(row, i++);
    }
  }

  #emptyGroups(): void {
    for (const group of this.groups) {
      group.members.length = 0;
      group.subgroups.length = 0;
      group.references = 1;
      group.defaultDomain = undefined;
      group.blockingDomain = undefined;
    }
  }

  #loadDevice(d: number, from: number): number {
    const row = this.#row;
    const spec = item(this.machine.devices, d);
    const device = item(this.devices, d);
    const g = spec.group;
    let i = from;
    this.present[d] = at(row, i++);
    const member = at(row, i++) === 1;
    this.driver[d] = at(row, i++);
    if (this.options.bounds.override) this.override[d] = at(row, i++);
    const alone = this.#hasSubgroups && at(row, i++) === 1;
    device.attached = this.#domain(at(row, i++), g);
    const subgroupDomain = this.#domain(at(row, i++), g);
    const subgroupHandle = this.#domain(at(row, i++), g);
    this.context[d] = at(row, i++);
    this.attached[d] = at(row, i++);
    device.resetDepth = spec.ats ? at(row, i++) : 0;
    device.blocked = device.resetDepth > 0;
    device.group = undefined;
    device.orphanOf = this.present[d] === 1 && !member ? this.groupOf(d) : undefined;
    const subgroup = member ? this.#join(d, alone ? d + 1 : 0) : undefined;
    if (subgroup !== undefined) {
      subgroup.domain = subgroupDomain;
      this.#setHandle(subgroup, NO_PASID, subgroupHandle);
    }
    if (spec.pasid) {
      this.pasid[d] = at(row, i++);
      const pasidDomain = this.#domain(at(row, i++), g);
      if (subgroup !== undefined) this.#setHandle(subgroup, 1, pasidDomain);
      const hardware = this.#domain(at(row, i++), g);
      if (hardware === undefined) device.pasids.delete(1);
      else device.pasids.set(1, hardware);
    }
    const { driver } = this;
    const kernel = driver[d] === DRIVER.kernel || driver[d] === DRIVER.probing;
    device.kernelDriver = kernel ? spec.kernelDriver : undefined;
    device.requireDirect = member && spec.direct;
    return i;
  }

  #join(d: number, subgroupNumber: number): Subgroup {
    const device = item(this.devices, d);
    const group = this.groupOf(d);
    const subgroup = item(item(this.#subgroups, this.groupIndex(d)), subgroupNumber);
    if (!group.subgroups.includes(subgroup)) {
      subgroup.members.length = 0;
      subgroup.pasidArray.clear();
      subgroup.recoveryCount = 0;
      group.subgroups.push(subgroup);
    }
    device.group = group;
    group.members.push(device);
    subgroup.members.push(device);
    if (device.blocked) subgroup.recoveryCount++;
    group.references++;
    group.defaultDomain = this.#defaults[this.groupIndex(d)];
    group.blockingDomain = this.#blocked;
    return subgroup;
  }

  #setHandle(subgroup: Subgroup, key: number, domain: Domain | undefined): void {
    if (domain !== undefined) subgroup.pasidArray.set(key, { domain, handle: this.#handles[0] });
  }

  /** Attaches the RID of a device that is bound, as IOMMUFD does: first of its subgroup, or to what the subgroup is on. */
  attachFirst(device: number, domain: Domain): void {
    attachGroupHandle(this.subgroupOf(device), domain, this.handle(device, NO_PASID));
  }

  detachLast(device: number): void {
    detachGroupHandle(this.subgroupOf(device));
  }
}

function makeDevice(spec: CheckDevice, ops: IommuOps): IommuDevice {
  return new IommuDevice({
    name: spec.name,
    ops,
    maxPasids: spec.pasid ? 2 : 0,
    atsSupported: spec.ats,
    requesterIds: spec.requesterIds,
    sourceValidated: spec.sourceValidated,
    reservedRegions: spec.direct ? [{ start: 0n, last: 0xfffn, type: 'direct' }] : [],
  });
}

function columns<N extends number>(length: number, count: N): Columns<N> {
  return Array.from({ length: count }, () => new Uint8Array(length)) as unknown as Columns<N>;
}

type Columns<N extends number> = N extends 2
  ? [Uint8Array, Uint8Array]
  : N extends 3
    ? [Uint8Array, Uint8Array, Uint8Array]
    : [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
