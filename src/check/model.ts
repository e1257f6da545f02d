/**
 * The machine that the checker explores: a handful of devices, the group each belongs to, and what the rules ask about
 * them. Small on purpose; the number of states grows by an order of magnitude with each device and each user.
 */
import type { OwnershipRule, ProfileName } from '../iommu/profile.ts';

export type CheckDevice = {
  readonly name: string;
  /** devices with the same number cannot be isolated from one another */
  readonly group: number;
  /** the driver that does kernel DMA */
  readonly kernelDriver: string;
  /** there when the exploration begins; the others may be plugged */
  readonly present: boolean;
  /** firmware wants it mapped one to one */
  readonly direct: boolean;
  readonly ats: boolean;
  readonly pasid: boolean;
  readonly requesterIds: readonly number[];
  readonly sourceValidated: boolean;
};

export type CheckMachine = { readonly name: string; readonly devices: readonly CheckDevice[] };

/** What bounds an exploration; printed with every result. */
export type CheckBounds = {
  /** programs with an IOMMUFD, a container and at most one descriptor of each kind per device */
  readonly users: number;
  /** IOASes per user; 2 are needed to replace one by another */
  readonly ioases: number;
  /** driver_override is a state of its own, not folded into the choice of the driver that is probed */
  readonly override: boolean;
  /** devices come and go */
  readonly hotplug: boolean;
  /** group files and containers are used besides device nodes */
  readonly groupFiles: boolean;
};

export const DEFAULT_BOUNDS: CheckBounds = {
  users: 2,
  ioases: 2,
  override: false,
  hotplug: true,
  groupFiles: true,
};

/** The one PASID that users attach. */
export const THE_PASID = 1;

/** Values of driver_override that are a state of their own. */
export const OVERRIDES = ['vfio-pci', 'pci-stub'] as const;

const PLAIN = {
  group: 0,
  present: true,
  direct: false,
  ats: false,
  pasid: false,
  sourceValidated: true,
} as const;

/** Machines that need no file. `pair` is the two-device group of the specification's worked sequences. */
export const BUILT_IN_MACHINES: readonly CheckMachine[] = [
  {
    name: 'pair',
    devices: [
      { ...PLAIN, name: 'A', kernelDriver: 'nvme', requesterIds: [0x100] },
      { ...PLAIN, name: 'B', kernelDriver: 'nvme', requesterIds: [0x101] },
    ],
  },
  {
    name: 'pair-ats',
    devices: [
      { ...PLAIN, name: 'A', kernelDriver: 'nvme', requesterIds: [0x100], ats: true, pasid: true },
      { ...PLAIN, name: 'B', kernelDriver: 'e1000e', requesterIds: [0x101] },
    ],
  },
  {
    name: 'pair-direct',
    devices: [
      { ...PLAIN, name: 'A', kernelDriver: 'i915', requesterIds: [0x100], direct: true },
      { ...PLAIN, name: 'B', kernelDriver: 'nvme', requesterIds: [0x101] },
    ],
  },
  {
    name: 'two-groups',
    devices: [
      { ...PLAIN, name: 'A', kernelDriver: 'nvme', requesterIds: [0x100] },
      { ...PLAIN, name: 'B', kernelDriver: 'nvme', requesterIds: [0x200], group: 1 },
    ],
  },
  {
    name: 'pair-one-id',
    devices: [
      { ...PLAIN, name: 'A', kernelDriver: 'nvme', requesterIds: [0x100] },
      { ...PLAIN, name: 'B', kernelDriver: 'nvme', requesterIds: [0x100] },
    ],
  },
];

/** Where a rule shows what it protects from. */
export type Demonstration = { readonly machine: string; readonly profile: ProfileName };

const ON_PAIR: Demonstration = { machine: 'pair', profile: 'linux' };

export const DEMONSTRATIONS: Readonly<Record<OwnershipRule, Demonstration>> = {
  'probe-needs-unowned-group': ON_PAIR,
  'claim-needs-no-kernel-dma': ON_PAIR,
  'one-owner': ON_PAIR,
  'claim-blocks-dma': ON_PAIR,
  'detach-blocks-dma': ON_PAIR,
  'release-restores-default': ON_PAIR,
  'newcomer-joins-domain': ON_PAIR,
  'direct-mapped-is-not-blocked': { machine: 'pair-direct', profile: 'linux' },
  'reset-fences-attach': { machine: 'pair-ats', profile: 'linux' },
  'paths-exclude': ON_PAIR,
  'unbind-waits-for-users': ON_PAIR,
  'orphan-gets-no-driver': { machine: 'pair-direct', profile: 'singleton' },
  'one-device-per-group': { machine: 'pair', profile: 'singleton' },
  'own-table-needs-own-source': { machine: 'pair-one-id', profile: 'subgroup' },
};
