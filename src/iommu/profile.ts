/**
 * Profiles: named departures from Linux 7.3, and the rules of DMA ownership by name.
 *
 * A profile is chosen when a machine is built and never changes. `linux` is Linux 7.3; the others are described one page
 * each in docs/profile-*.md. The rules exist by name so that `uiommu check --without RULE` can show what each protects
 * from; nothing but the checker switches one off.
 */
export type ProfileName = 'linux' | 'singleton' | 'shared' | 'subgroup' | 'strict-acs';

export type Profile = {
  readonly name: ProfileName;
  /** Device nodes and BIND_IOMMUFD exist only where the group has one member (R5, R11, R12). */
  readonly singletonNodes: boolean;
  /** Members whose requests can be told apart may have a page table of their own (R7, R8). */
  readonly ownPageTables: boolean;
  /**
   * A device that could not join its group gets no driver that does kernel DMA. Linux lets it have one, as if there
   * were no IOMMU, although its peers may be in user hands.
   */
  readonly guardsOrphans: boolean;
  /** Ports of one switch that are not isolated share a group; Linux's climb leaves them apart (S1.5 vector 8). */
  readonly strictAcs: boolean;
};

const LINUX: Profile = {
  name: 'linux',
  singletonNodes: false,
  ownPageTables: false,
  guardsOrphans: false,
  strictAcs: false,
};

export const PROFILES: Readonly<Record<ProfileName, Profile>> = {
  linux: LINUX,
  singleton: { ...LINUX, name: 'singleton', singletonNodes: true, guardsOrphans: true },
  // Linux's group switch already is "every member uses the same IOAS" (R6); the name is kept so that it can be asked for.
  shared: { ...LINUX, name: 'shared' },
  subgroup: { ...LINUX, name: 'subgroup', ownPageTables: true, guardsOrphans: true },
  'strict-acs': { ...LINUX, name: 'strict-acs', strictAcs: true },
};

export const PROFILE_NAMES = Object.keys(PROFILES) as readonly ProfileName[];

/** The rules, each with what it demands. The order is the order of docs and `uiommu check --rules`. */
export const OWNERSHIP_RULES = {
  'probe-needs-unowned-group':
    'a driver that does kernel DMA is not probed while user space owns the group (EBUSY)',
  'claim-needs-no-kernel-dma':
    'user space does not get a group in which a driver does kernel DMA (EPERM)',
  'one-owner': 'a group has one owner at a time; another one is refused (EPERM)',
  'claim-blocks-dma': 'from the claim on, all members are on the blocking domain',
  'detach-blocks-dma': 'detaching puts an owned group back on the blocking domain',
  'release-restores-default': 'when the last claim goes, the group returns to its default domain',
  'newcomer-joins-domain': "a device that is added to a group starts on the group's current domain",
  'direct-mapped-is-not-blocked':
    'a device that firmware wants mapped one to one is never blocked, so never assigned (EINVAL)',
  'reset-fences-attach': 'nothing is attached while a member is in its reset window (EBUSY)',
  'paths-exclude': 'group file and device node do not open devices of one group together (EBUSY)',
  'unbind-waits-for-users':
    'a driver that user space works through leaves the device only after its last close',
  'one-device-per-group':
    'profile singleton: device nodes and IOMMUFD are for groups with one device (EPERM)',
  'orphan-gets-no-driver':
    'profiles singleton and subgroup: what could not join its group gets no driver that does kernel DMA (EBUSY)',
  'own-table-needs-own-source':
    'profile subgroup: only a member whose requests can be distinguished has a page table of its own',
} as const;

export type OwnershipRule = keyof typeof OWNERSHIP_RULES;

export const NO_RULES_OFF: ReadonlySet<OwnershipRule> = new Set();
