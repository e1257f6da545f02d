/**
 * IommuGroup: the devices that an IOMMU cannot isolate from one another, and the domain that they are on.
 *
 * Invariants: every member is on its subgroup's domain, except in a reset window and where a driver failed a forced switch;
 * `domain` is none, the default domain, the blocking domain, or a domain of the owner. A group lives while something holds
 * a reference (each member, VFIO's group, IOMMUFD's group); the last put gives the number back.
 *
 * Words: a *subgroup* is the set of members that can only have one page table together. In Linux, and in every profile but
 * `subgroup`, a group has exactly one subgroup; subgroups.ts decides in `subgroup`. *Forced* switches are those of release paths:
 * they must not fail, so they go on past a member that does and try the blocking domain for it.
 *
 * The kernel guards all of this with one mutex per group; here every call is one atomic step.
 *
 * After drivers/iommu/iommu.c: struct iommu_group, __iommu_probe_device, iommu_deinit_device,
 * __iommu_group_set_domain_internal, iommu_setup_default_domain, iommu_group_store_type.
 */
import { Errno } from '../base/errno.ts';
import { remove } from '../base/list.ts';
import {
  isDmaDomain,
  type Domain,
  type DomainKind,
  type IommuDevice,
  type IommuOps,
} from './domain.ts';
import { chooseDefaultDomainKind, type DefaultDomainKind } from './default-domain.ts';
import { NO_RULES_OFF, PROFILES, type OwnershipRule, type Profile } from './profile.ts';
import { divideAnew, subgroupFor } from './subgroups.ts';

/** Who holds a claim: compared by identity, shown by name. */
export type DmaOwner = {
  /** For people: "the iommufd of process 4711", "the container of group 7". */
  readonly name: string;
};

/** What attaches a domain with something of its own (faults are delivered through it). One per attachment. */
export type AttachHandle = {
  /** Set by the core when the handle is attached. */
  domain: Domain | undefined;
};

/** What is attached under one key of a subgroup: 0 is the RID, others are PASIDs. */
export type Attachment = { readonly domain: Domain; readonly handle: AttachHandle | undefined };

/** Members that share one page table. */
export class Subgroup {
  readonly group: IommuGroup;
  /** in the order in which they came */
  readonly members: IommuDevice[] = [];
  /** current domain of the members; undefined before the first default domain */
  domain: Domain | undefined;
  /** attach handles: key 0 the RID, others PASIDs */
  readonly pasidArray = new Map<number, Attachment>();
  /** members in a reset window */
  recoveryCount = 0;

  constructor(group: IommuGroup) {
    this.group = group;
  }
}

export type GroupOptions = {
  readonly profile?: Profile;
  /** Rules that the checker switched off. */
  readonly rulesOff?: ReadonlySet<OwnershipRule>;
  /** iommu.passthrough, iommu.strict of the boot line. Default dma-fq, as on x86 with a lazy IOMMU. */
  readonly defaultDomain?: 'identity' | 'dma' | 'dma-fq';
};

/** All groups of one machine: numbers from 0, lowest free first, without those that are reserved. */
export class GroupTable {
  readonly profile: Profile;
  readonly rulesOff: ReadonlySet<OwnershipRule>;
  readonly defaultDomain: 'identity' | 'dma' | 'dma-fq';
  readonly #groups = new Map<number, IommuGroup>();
  readonly #reserved = new Set<number>();
  // No number below it is free.
  #lowest = 0;

  constructor(options: GroupOptions = {}) {
    this.profile = options.profile ?? PROFILES.linux;
    this.rulesOff = options.rulesOff ?? NO_RULES_OFF;
    this.defaultDomain = options.defaultDomain ?? 'dma-fq';
  }

  /**
   * A new group with one reference, the caller's.
   * @param id the number of a group that a real kernel formed, reserved before; undefined for the lowest free one
   */
  alloc(id = this.#free()): IommuGroup {
    if (this.#groups.has(id)) throw new Error(`there is a group ${id} already`);
    const group = new IommuGroup(this, id);
    this.#groups.set(id, group);
    return group;
  }

  #free(): number {
    while (this.#groups.has(this.#lowest) || this.#reserved.has(this.#lowest)) this.#lowest++;
    return this.#lowest;
  }

  /** Keeps a number for a group that a real kernel formed. */
  reserve(id: number): void {
    this.#reserved.add(id);
  }

  get(id: number): IommuGroup | undefined {
    return this.#groups.get(id);
  }

  /** All groups, by number. */
  list(): IommuGroup[] {
    return [...this.#groups.values()].sort((a, b) => a.id - b.id);
  }

  /** For the last put only. */
  forget(group: IommuGroup): void {
    this.#groups.delete(group.id);
    this.#lowest = Math.min(this.#lowest, group.id);
  }
}

export class IommuGroup {
  readonly table: GroupTable;
  readonly id: number;
  /** Only groups that somebody named have one (vfio-noiommu). */
  name: string | undefined;
  /** made up for a device that no IOMMU translates: it never has a domain */
  untranslated = false;
  /** in the order in which they came */
  readonly members: IommuDevice[] = [];
  readonly subgroups: Subgroup[] = [];
  defaultDomain: Domain | undefined;
  blockingDomain: Domain | undefined;
  /** undefined with ownerCount > 0: kernel drivers */
  owner: DmaOwner | undefined;
  ownerCount = 0;
  /** each member, VFIO's group, IOMMUFD's group; {@link put} the last one and the number is free */
  references = 1;

  constructor(table: GroupTable, id: number) {
    this.table = table;
    this.id = id;
  }

  ref(): this {
    this.references++;
    return this;
  }

  put(): void {
    if (--this.references < 0) throw new Error(`group ${this.id}: more puts than references`);
    if (this.references === 0) this.table.forget(this);
  }

  addSubgroup(): Subgroup {
    const subgroup = new Subgroup(this);
    this.subgroups.push(subgroup);
    return subgroup;
  }

  enforces(rule: OwnershipRule): boolean {
    return !this.table.rulesOff.has(rule);
  }

  get firstMember(): IommuDevice | undefined {
    return this.members[0];
  }

  /** The subgroup of a member; its absence is a bug of the caller. */
  subgroupOf(device: IommuDevice): Subgroup {
    const subgroup = this.subgroups.find(({ members }) => members.includes(device));
    if (subgroup === undefined)
      throw new Error(`${device.name} is not a member of group ${this.id}`);
    return subgroup;
  }

  /** The domain of the whole group; with several subgroups, of the first one that left the default domain. */
  get domain(): Domain | undefined {
    return (this.subgroups.find(({ domain }) => domain !== this.defaultDomain) ?? this.subgroups[0])
      ?.domain;
  }

  /** Something is attached under a handle, by RID or PASID. */
  get hasAttachments(): boolean {
    return this.subgroups.some(({ pasidArray }) => pasidArray.size > 0);
  }
}

/**
 * Brings a device under its IOMMU: driver state, group, domain. The device must be in no group.
 * @param selectGroup which group it belongs to, with a reference for the device; throws Errno
 * @param options.deferDefault at boot: leave the first default domain to {@link setupDefaultDomain}, once all are members
 * @throws Errno the device then is in no group, and nothing else has changed
 */
export function probeDevice(
  device: IommuDevice,
  selectGroup: (device: IommuDevice) => IommuGroup,
  options: { readonly deferDefault?: boolean } = {},
): void {
  if (device.group !== undefined) return;
  device.ops.probeDevice?.(device);
  let group: IommuGroup;
  try {
    group = selectGroup(device);
  } catch (error) {
    device.ops.releaseDevice?.(device);
    throw error;
  }
  device.group = group;
  group.members.push(device);
  try {
    const subgroup = subgroupFor(group, device);
    subgroup.members.push(device);
    takeUpDomain(subgroup, device, options.deferDefault ?? false);
    device.orphanOf = undefined;
  } catch (error) {
    takeOut(device);
    device.orphanOf = group;
    throw error;
  }
}

function takeUpDomain(subgroup: Subgroup, device: IommuDevice, deferDefault: boolean): void {
  const { group } = subgroup;
  if (group.defaultDomain !== undefined) noteDirectMappings(group.defaultDomain, device);
  refuseUnmapped(group, device);
  if (subgroup.domain !== undefined) {
    if (group.enforces('newcomer-joins-domain')) setDevice(group, device, subgroup.domain);
    else if (group.defaultDomain !== undefined) setDevice(group, device, group.defaultDomain);
  } else if (group.defaultDomain === undefined) {
    if (!deferDefault) setupDefaultDomain(group, undefined);
  }
}

// Linux refuses this newcomer the blocking domain only, and puts it on a user's page table without its mappings.
function refuseUnmapped(group: IommuGroup, device: IommuDevice): void {
  if (!group.table.profile.guardsOrphans || !device.requireDirect || group.owner === undefined) {
    return;
  }
  throw new Errno(
    'EINVAL',
    `firmware wants ${device.name} mapped one to one at all times, but ${group.owner.name} owns group ${group.id}`,
  );
}

/** Takes a device out of its group and away from its IOMMU: the end of hot-remove. No group: nothing to do. */
export function releaseDevice(device: IommuDevice): void {
  device.orphanOf = undefined;
  if (device.group !== undefined) takeOut(device);
}

function takeOut(device: IommuDevice): void {
  const group = device.requireGroup();
  remove(group.members, device);
  const subgroup = group.subgroups.find(({ members }) => members.includes(device));
  if (subgroup !== undefined) {
    remove(subgroup.members, device);
    if (device.blocked) subgroup.recoveryCount--;
    if (subgroup.members.length === 0) remove(group.subgroups, subgroup);
  }
  if (group.members.length === 0 && group.ownerCount > 0) {
    throw new Error(`group ${group.id} lost its last member while ${ownerName(group)} owns it`);
  }
  park(device);
  device.ops.releaseDevice?.(device);
  if (group.members.length === 0) freeDomains(group);
  else if (group.owner === undefined) divideAnew(group);
  device.group = undefined;
  device.attached = undefined;
  device.pasids.clear();
  device.blocked = false;
  device.resetDepth = 0;
  device.requireDirect = false;
  group.put();
}

// A device that needs its one-to-one mapping is left on identity, all others where the driver wants idle ones.
function park(device: IommuDevice): void {
  const { ops } = device;
  if (ops.releaseDomain === undefined || device.attached === undefined) return;
  const direct =
    device.requireDirect &&
    ops.identityDomain !== undefined &&
    ops.releaseDomain === ops.blockedDomain;
  const target = direct ? ops.identityDomain : ops.releaseDomain;
  target.attachDevice(device, device.attached);
}

function freeDomains(group: IommuGroup): void {
  group.defaultDomain?.free();
  group.blockingDomain?.free();
  group.defaultDomain = undefined;
  group.blockingDomain = undefined;
}

/**
 * Makes a group up for a device that no IOMMU translates, as VFIO's no-iommu mode does; the device must be in no group. After
 * iommu_group_alloc, iommu_group_set_name and iommu_group_add_device.
 */
export function addUntranslated(table: GroupTable, device: IommuDevice): IommuGroup {
  const group = table.alloc();
  group.name = 'vfio-noiommu';
  group.untranslated = true;
  group.members.push(device);
  group.addSubgroup().members.push(device);
  device.group = group;
  return group;
}

/** Undoes {@link addUntranslated}. After iommu_group_remove_device. */
export function removeUntranslated(device: IommuDevice): void {
  const group = device.requireGroup();
  remove(group.members, device);
  group.subgroups.length = 0;
  device.group = undefined;
  group.put();
}

/** For reasons: who holds the group. */
export function ownerName(group: IommuGroup): string {
  if (group.owner !== undefined) return group.owner.name;
  return group.ownerCount > 0 ? 'kernel drivers' : 'no one';
}

// A kernel lists regions by group: in a capture every member has those of the group, and one of them is meant.
function directMembers({ members }: IommuGroup, device: IommuDevice): string {
  const names = members.filter(({ requireDirect }) => requireDirect).map(({ name }) => name);
  return names.length > 1 ? `at least one of ${names.join(', ')}` : device.name;
}

/**
 * Puts one device on a domain.
 * @throws Errno the driver's, or EINVAL for a direct-mapped device and the blocking domain
 */
function setDevice(group: IommuGroup, device: IommuDevice, domain: Domain, forced = false): void {
  if (
    device.requireDirect &&
    (domain.kind === 'blocked' || domain === group.blockingDomain) &&
    group.enforces('direct-mapped-is-not-blocked')
  ) {
    throw new Errno(
      'EINVAL',
      `firmware wants ${directMembers(group, device)} mapped one to one at all times, so it cannot be blocked` +
        ' and its group cannot be assigned',
    );
  }
  try {
    attachDevice(device, domain);
  } catch (error) {
    if (forced && group.blockingDomain !== undefined && group.blockingDomain !== domain) {
      tryAttach(device, group.blockingDomain);
    }
    throw error;
  }
}

/** Points the hardware at `domain`, unless the driver refuses; then the device stays where it is. */
export function attachDevice(device: IommuDevice, domain: Domain): void {
  domain.attachDevice(device, device.attached);
  device.attached = domain;
}

function tryAttach(device: IommuDevice, domain: Domain): void {
  try {
    attachDevice(device, domain);
  } catch (error) {
    if (!(error instanceof Errno)) throw error;
  }
}

/**
 * Moves a subgroup to another domain: all members or none. Members in a reset window follow when it ends.
 * @throws Errno the first member's refusal, with the earlier members back on the old domain; EBUSY in a reset window
 */
export function switchDomain(subgroup: Subgroup, domain: Domain): void {
  if (subgroup.domain === domain) return;
  const { group } = subgroup;
  if (subgroup.recoveryCount > 0 && group.enforces('reset-fences-attach')) {
    const inReset = subgroup.members.filter(({ blocked }) => blocked).map(({ name }) => name);
    throw new Errno('EBUSY', `${inReset.join(', ')} of group ${group.id} is being reset`);
  }
  const moved: IommuDevice[] = [];
  for (const device of subgroup.members) {
    if (device.blocked) continue;
    try {
      setDevice(group, device, domain);
    } catch (error) {
      if (subgroup.domain !== undefined)
        for (const member of moved) revert(member, subgroup.domain);
      throw error;
    }
    moved.push(device);
  }
  subgroup.domain = domain;
}

function revert(device: IommuDevice, domain: Domain): void {
  const group = device.requireGroup();
  try {
    setDevice(group, device, domain, true);
  } catch (error) {
    // A driver that refuses a domain it was on a moment ago is broken; the blocking domain was tried.
    if (!(error instanceof Errno)) throw error;
  }
}

/** The same for release paths: cannot fail. */
export function switchDomainForced(subgroup: Subgroup, domain: Domain): void {
  if (subgroup.domain === domain) return;
  for (const device of subgroup.members) if (!device.blocked) revert(device, domain);
  subgroup.domain = domain;
}

/** Back to what the core keeps the subgroup on: blocking while the group is owned, otherwise the default domain. */
export function setCoreDomain(subgroup: Subgroup): void {
  const { group } = subgroup;
  const owned = group.owner !== undefined && group.enforces('detach-blocks-dma');
  const domain = owned ? group.blockingDomain : group.defaultDomain;
  if (domain === undefined) throw new Error(`group ${group.id} has no domain to go back to`);
  switchDomainForced(subgroup, domain);
}

/** Makes sure that there is a blocking domain. Throws what the driver throws. */
export function needBlockingDomain(group: IommuGroup): Domain {
  group.blockingDomain ??= makeBlockingDomain(group);
  return group.blockingDomain;
}

function makeBlockingDomain(group: IommuGroup): Domain {
  const device = requireMember(group);
  return (
    device.ops.blockedDomain ?? device.ops.allocPaging(device, { kind: 'unmanaged', flags: 0 })
  );
}

function requireMember(group: IommuGroup): IommuDevice {
  const device = group.firstMember;
  if (device === undefined) throw new Error(`group ${group.id} has no member`);
  return device;
}

/**
 * Chooses and installs the group's default domain.
 * @param wanted an explicit request (sysfs `type`); undefined for what devices and boot options say
 * @throws Errno EINVAL for a conflict, the driver's own otherwise; the group then is as before
 */
export function setupDefaultDomain(group: IommuGroup, wanted: DefaultDomainKind | undefined): void {
  const domain = allocDefaultDomain(group, chooseDefaultDomainKind(group, wanted));
  if (domain === group.defaultDomain) return;
  for (const device of group.members) noteDirectMappings(domain, device);
  const old = group.defaultDomain;
  group.defaultDomain = domain;
  const moved: Subgroup[] = [];
  try {
    for (const subgroup of group.subgroups) {
      if (subgroup.domain === undefined) switchDomainForced(subgroup, domain);
      else switchDomain(subgroup, domain);
      moved.push(subgroup);
    }
  } catch (error) {
    if (old !== undefined) {
      group.defaultDomain = old;
      for (const subgroup of moved) switchDomainForced(subgroup, old);
      domain.free();
    }
    throw error;
  }
  old?.free();
}

// Before the device is attached, so that firmware's own traffic never stops.
function noteDirectMappings(domain: Domain, device: IommuDevice): void {
  for (const region of device.reservedRegions) {
    if (region.type === 'direct') device.requireDirect = true;
    if (region.type !== 'direct' && region.type !== 'direct-relaxable') continue;
    if (isDmaDomain(domain)) domain.mapIdentity?.(region);
  }
}

function allocDefaultDomain(group: IommuGroup, kind: DefaultDomainKind | undefined): Domain {
  const device = requireMember(group);
  const { ops } = device;
  if (ops.defaultDomain !== undefined) {
    if (kind !== undefined && kind !== ops.defaultDomain.kind) {
      throw new Errno('EINVAL', `the IOMMU driver ${ops.name} has no ${kind} default domain`);
    }
    return ops.defaultDomain;
  }
  if (kind !== undefined) return allocOfKind(group, ops, kind);
  const preset = group.table.defaultDomain;
  try {
    return allocOfKind(group, ops, preset);
  } catch (error) {
    if (!(error instanceof Errno) || preset === 'dma') throw error;
    return allocOfKind(group, ops, 'dma');
  }
}

function allocOfKind(group: IommuGroup, ops: IommuOps, kind: DefaultDomainKind): Domain {
  if (group.defaultDomain?.kind === kind) return group.defaultDomain;
  if (kind !== 'identity') {
    return ops.allocPaging(requireMember(group), { kind, flags: 0 });
  }
  if (ops.identityDomain === undefined) {
    throw new Errno('EOPNOTSUPP', `the IOMMU driver ${ops.name} has no identity domain`);
  }
  return ops.identityDomain;
}

/** What sysfs `type` prints. */
export function defaultDomainWord(group: IommuGroup): string {
  const words: Readonly<Record<DomainKind, string>> = {
    blocked: 'blocked',
    identity: 'identity',
    unmanaged: 'unmanaged',
    dma: 'DMA',
    'dma-fq': 'DMA-FQ',
    nested: 'unknown',
  };
  return group.defaultDomain === undefined ? 'unknown' : words[group.defaultDomain.kind];
}

const TYPE_WORDS: ReadonlyMap<string, DefaultDomainKind> = new Map([
  ['identity', 'identity'],
  ['DMA', 'dma'],
  ['DMA-FQ', 'dma-fq'],
]);

/** The kind that sysfs `type` prints as `word`; undefined for every other word. */
export function defaultDomainKindOf(word: string): DefaultDomainKind | undefined {
  return TYPE_WORDS.get(word);
}

/**
 * A write to sysfs `type`; the capabilities were checked.
 * @throws Errno EINVAL for an unknown word or a conflict, EPERM while somebody uses the group
 */
export function storeDefaultDomainType(group: IommuGroup, text: string): void {
  if (group.defaultDomain === undefined) {
    throw new Errno('EINVAL', `group ${group.id} has no default domain`);
  }
  const word = text.replace(/\n$/, '');
  const kind = word === 'auto' ? word : defaultDomainKindOf(word);
  if (kind === undefined) {
    throw new Errno('EINVAL', `"${text}" is none of identity, DMA, DMA-FQ, auto`);
  }
  if (kind === 'dma-fq' && group.defaultDomain.kind === 'dma') {
    group.defaultDomain.kind = 'dma-fq';
    return;
  }
  if (group.members.length === 0 || group.ownerCount > 0) {
    throw new Errno('EPERM', `group ${group.id} is in use by ${ownerName(group)}`);
  }
  setupDefaultDomain(group, kind === 'auto' ? undefined : kind);
}
