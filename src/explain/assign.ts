/**
 * Can a device be given to user space? What stands in the way, by which rule, who is the culprit and what to do about it.
 *
 * After the rules of ownership (drivers/iommu/iommu.c: __iommu_take_dma_ownership, iommu_device_use_default_domain) and of
 * vfio-pci's probe (drivers/vfio/pci/vfio_pci_core.c); whether a driver counts as doing kernel DMA is a table
 * (machine/drivers.ts), since a host does not show it.
 */
import { iommuStatus } from '../machine/iommu-status.ts';
import { managedDriver } from '../machine/drivers.ts';
import type { Machine } from '../machine/machine.ts';
import { HEADER_MULTIFUNCTION, HEADER_NORMAL, REGISTER } from '../machine/pci/config-space.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import type { GroupView } from '../iommu/group-view.ts';
import { named } from '../iommu/group-reasons.ts';

export type ObstacleRule =
  | 'no-iommu'
  | 'no-group'
  | 'bridge'
  | 'direct-region'
  | 'kernel-driver'
  | 'virtual-functions'
  | 'in-use';

export type Obstacle = {
  readonly rule: ObstacleRule;
  readonly culprit: PciDevice | undefined;
  readonly sentence: string;
  /** what to do about it, in words; undefined where nothing can be done */
  readonly step: string | undefined;
};

/** `yes`: as it stands; `not-yet`: after the steps; `no`: never on this machine. */
export type Answer = 'yes' | 'not-yet' | 'no';

export type Assignability = {
  readonly answer: Answer;
  readonly obstacles: readonly Obstacle[];
  /** commands that clear the way and bind the device, in order */
  readonly commands: readonly string[];
};

/** Who may do DMA in a group: by the drivers of its members. */
export type DmaUse =
  /** a driver that does kernel DMA is bound: nobody else can own the group */
  | 'kernel'
  /** no driver is bound */
  | 'free'
  /** only drivers that leave the DMA to user space are bound */
  | 'user'
  /** no IOMMU: there is nothing to own */
  | 'none';

/** The driver of `device` that does kernel DMA; undefined if it has none, or one that does not. */
export function kernelDriver(machine: Machine, device: PciDevice): string | undefined {
  const { driver } = device.facts;
  if (driver === undefined) return undefined;
  const declared = machine.drivers.find(({ name }) => name === driver);
  const managed = declared?.managedDma ?? managedDriver(driver) !== undefined;
  return managed ? undefined : driver;
}

export function dmaUse(view: GroupView, device: PciDevice): DmaUse {
  const id = view.idOf(device);
  if (id === undefined) return 'none';
  const members = view.membersWith(device);
  if (members.some((member) => kernelDriver(view.machine, member) !== undefined)) return 'kernel';
  return members.some(({ facts }) => facts.driver !== undefined) ? 'user' : 'free';
}

/** Judges `device` as it stands. */
export function assess(view: GroupView, device: PciDevice): Assignability {
  const id = view.idOf(device);
  const obstacles =
    id === undefined
      ? [withoutGroup(view, device)]
      : [
          ...bridgeObstacle(device),
          ...directRegions(view, id, device),
          ...kernelDrivers(view, device),
          ...virtualFunctions(view.machine, device),
        ];
  const lasting = obstacles.some(({ step, rule }) => step === undefined || isLasting(rule));
  const answer = obstacles.length === 0 ? 'yes' : lasting ? 'no' : 'not-yet';
  return { answer, obstacles, commands: answer === 'no' ? [] : commandsFor(view, device) };
}

function isLasting(rule: ObstacleRule): boolean {
  return (
    rule === 'no-iommu' || rule === 'no-group' || rule === 'bridge' || rule === 'direct-region'
  );
}

function withoutGroup({ machine }: GroupView, device: PciDevice): Obstacle {
  const { state, sentence } = iommuStatus(machine);
  if (state === 'none' || state === 'off' || state === 'noiommu') {
    return {
      rule: 'no-iommu',
      culprit: undefined,
      sentence: `there is no IOMMU at work, so nothing could confine its DMA. ${sentence}`,
      step:
        state === 'off'
          ? 'the kernel has to use the IOMMU: intel_iommu=on, or a kernel built with the driver; then look at /sys/class/iommu again'
          : 'switch the IOMMU on in firmware (VT-d, AMD-Vi, SMMU); in a virtual machine, give it a virtual IOMMU',
    };
  }
  return {
    rule: 'no-group',
    culprit: device,
    sentence: `no IOMMU translates for ${named(device)}, so it has no group`,
    step: undefined,
  };
}

function bridgeObstacle(device: PciDevice): Obstacle[] {
  const type = device.config.u8(REGISTER.HEADER_TYPE) & ~HEADER_MULTIFUNCTION;
  if (type === HEADER_NORMAL) return [];
  return [
    {
      rule: 'bridge',
      culprit: device,
      sentence: `${named(device)} is a bridge; vfio-pci refuses bridges (EINVAL). They do no harm in a group`,
      step: 'ask for a device behind it',
    },
  ];
}

/** A device that firmware ties to fixed memory cannot be cut off, so its whole group cannot be taken. */
function directRegions(view: GroupView, id: number, device: PciDevice): Obstacle[] {
  const { machine } = view;
  const members = view.membersWith(device);
  const found: Obstacle[] = [];
  for (const member of members) {
    const region = machine.reservedOf(member).find(({ type }) => type === 'direct');
    if (region !== undefined) found.push(direct(member, region));
  }
  const recorded = view.source === 'kernel' ? machine.recordedGroups.get(id)?.reserved : undefined;
  const region = recorded?.find(({ type }) => type === 'direct');
  if (region !== undefined && found.length === 0) found.push(direct(members[0], region));
  return found;
}

function direct(
  culprit: PciDevice | undefined,
  { start, last }: { start: bigint; last: bigint },
): Obstacle {
  const range = `0x${start.toString(16)}..0x${last.toString(16)}`;
  return {
    rule: 'direct-region',
    culprit,
    sentence:
      `firmware demands that ${culprit?.name ?? 'a member of the group'} always reaches memory ${range} (a direct reserved ` +
      'region), so its group can never be cut off from the kernel (EINVAL)',
    step: 'look for a firmware setting that drops the region (RMRR), or use another device',
  };
}

function kernelDrivers(view: GroupView, device: PciDevice): Obstacle[] {
  return view.membersWith(device).flatMap((member) => {
    const driver = kernelDriver(view.machine, member);
    if (driver === undefined) return [];
    const own = member === device;
    return [
      {
        rule: 'kernel-driver' as const,
        culprit: member,
        sentence:
          `${own ? 'it' : `${member.name} in the same group`} is bound to ${driver}, which does DMA for the kernel; ` +
          'the group cannot have another owner as long as it is (EPERM)',
        step: own
          ? `bind it to vfio-pci instead of ${driver}`
          : `unbind ${member.name} from ${driver}`,
      },
    ];
  });
}

function virtualFunctions(machine: Machine, device: PciDevice): Obstacle[] {
  const count = machine.virtualFunctions(device).length;
  if (count === 0) return [];
  return [
    {
      rule: 'virtual-functions',
      culprit: device,
      sentence: `${count} virtual functions of it are on; vfio-pci does not take a physical function with them (EBUSY)`,
      step: `switch them off: echo 0 > /sys/bus/pci/devices/${device.name}/sriov_numvfs; or assign a virtual function`,
    },
  ];
}

/** Shell commands, for root. driver_override, not new_id: that would take every card of the same kind. */
function commandsFor(view: GroupView, device: PciDevice): string[] {
  const at = (member: PciDevice): string => `/sys/bus/pci/devices/${member.name}`;
  const others = view.membersWith(device).filter((member) => member !== device);
  const commands = others
    .filter((member) => kernelDriver(view.machine, member) !== undefined)
    .map((member) => `echo ${member.name} > ${at(member)}/driver/unbind`);
  const { driver } = device.facts;
  if (
    driver !== undefined &&
    kernelDriver(view.machine, device) === undefined &&
    driver !== 'pci-stub'
  ) {
    return commands;
  }
  commands.push(`echo vfio-pci > ${at(device)}/driver_override`);
  if (driver !== undefined) commands.push(`echo ${device.name} > ${at(device)}/driver/unbind`);
  commands.push(`echo ${device.name} > /sys/bus/pci/drivers_probe`);
  return commands;
}
