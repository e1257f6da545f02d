/**
 * What can happen in the checker's world: one entry per action and per device, user and argument. `can` says whether it makes
 * sense at all in this state (a closed file is not closed again); whether it is allowed is for the rules to say, by an Errno.
 *
 * A probe is two steps, because the claim of a sibling may come between them; everything else is one step, as one mutex in
 * Linux makes it one.
 */
import { Errno } from '../base/errno.ts';
import {
  attachDevicePasid,
  attachSubgroup,
  detachDevicePasid,
  detachSubgroup,
  finishReset,
  NO_PASID,
  prepareReset,
  replaceDevicePasid,
  replaceGroupHandle,
} from '../iommu/attach.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import { releaseDevice } from '../iommu/group.ts';
import {
  claimDevice,
  claimGroup,
  releaseDeviceClaim,
  releaseGroup,
  unuseDefaultDomain,
  useDefaultDomain,
} from '../iommu/ownership.ts';
import { item, TYPE1 } from './cells.ts';
import type { CheckDevice } from './model.ts';
import { CDEV, DRIVER, MODE, type World } from './world.ts';

export type Action = {
  /** "user X binds A to its IOMMUFD" */
  readonly text: string;
  can(world: World): boolean;
  /** Throws Errno when a rule refuses. */
  run(world: World): void;
};

const OVERRIDES = ['nothing', 'vfio-pci', 'pci-stub'] as const;
const THE_PASID = 1;

/** All actions of a world, in a fixed order. */
export function actionsOf(world: World): Action[] {
  const { bounds } = world.options;
  const devices = world.machine.devices.map((_, d) => d);
  const users = world.users.map((_, u) => u);
  const groups = world.groups.map((_, g) => g);
  return [
    ...devices.flatMap((d) => driverActions(world, d)),
    ...(bounds.override ? devices.flatMap((d) => overrideActions(world, d)) : []),
    ...(bounds.hotplug ? devices.flatMap((d) => plugActions(world, d)) : []),
    ...devices.flatMap((d) => resetActions(world, d)),
    ...users.flatMap((u) => devices.flatMap((d) => nodeActions(world, u, d))),
    ...(bounds.groupFiles
      ? users.flatMap((u) => [
          ...groups.flatMap((g) => groupActions(world, u, g)),
          ...devices.flatMap((d) => groupDeviceActions(world, u, d)),
          setIommu(world, u),
        ])
      : []),
  ];
}

function iommuDevice(world: World, d: number): IommuDevice {
  return item(world.devices, d);
}

function spec(world: World, d: number): CheckDevice {
  return item(world.machine.devices, d);
}

function userName(world: World, u: number): string {
  return world.users[u]?.name ?? '';
}

/** Nobody holds the device's lock: not in a reset window. */
function isFree(world: World, d: number): boolean {
  return world.present[d] === 1 && world.devices[d]?.blocked === false;
}

function isDriverless(world: World, d: number): boolean {
  return isFree(world, d) && world.driver[d] === DRIVER.none;
}

function overridden(world: World, d: number, wanted: number): boolean {
  return !world.options.bounds.override || world.override[d] === wanted;
}

function driverActions(world: World, d: number): Action[] {
  const { name, kernelDriver } = spec(world, d);
  return [
    {
      text: `${kernelDriver} is about to be probed on ${name}`,
      can: (w) => isDriverless(w, d) && overridden(w, d, 0),
      run: (w) => {
        useDefaultDomain(iommuDevice(w, d), kernelDriver);
        w.driver[d] = DRIVER.probing;
      },
    },
    {
      text: `the probe of ${kernelDriver} on ${name} succeeds: it does kernel DMA`,
      can: (w) => w.driver[d] === DRIVER.probing,
      run: (w) => {
        w.driver[d] = DRIVER.kernel;
      },
    },
    {
      text: `the probe of ${kernelDriver} on ${name} fails`,
      can: (w) => w.driver[d] === DRIVER.probing,
      run: (w) => {
        unuseDefaultDomain(iommuDevice(w, d));
        w.driver[d] = DRIVER.none;
      },
    },
    {
      text: `vfio-pci is bound to ${name}`,
      can: (w) => isDriverless(w, d) && overridden(w, d, 1),
      run: (w) => {
        if (!w.isMember(d)) throw new Errno('EINVAL', `${name} has no IOMMU group`);
        w.driver[d] = DRIVER.vfio;
      },
    },
    {
      text: `pci-stub is bound to ${name}`,
      can: (w) => isDriverless(w, d) && overridden(w, d, 2),
      run: (w) => {
        w.driver[d] = DRIVER.stub;
      },
    },
    {
      text: `${name} is unbound from its driver`,
      can: (w) => isFree(w, d) && canUnbind(w, d),
      run: (w) => {
        unbind(w, d);
      },
    },
  ];
}

function canUnbind(world: World, d: number): boolean {
  const driver = world.driver[d];
  return driver === DRIVER.kernel || driver === DRIVER.stub || driver === DRIVER.vfio;
}

function unbind(world: World, d: number): void {
  const driver = world.driver[d];
  if (driver === DRIVER.kernel) unuseDefaultDomain(iommuDevice(world, d));
  const waits = world.groupOf(d).enforces('unbind-waits-for-users');
  if (driver === DRIVER.vfio && waits && usersOf(world, d) > 0) {
    world.driver[d] = DRIVER.leaving;
    return;
  }
  world.driver[d] = DRIVER.none;
  if (driver === DRIVER.vfio) dropGroupWithoutDevices(world, d);
}

/** Open files of a device, of whatever kind. */
export function usersOf(world: World, d: number): number {
  let users = 0;
  for (let u = 0; u < world.users.length; u++) {
    const slot = world.slot(u, d);
    if (world.cdev[slot] !== CDEV.closed) users++;
    if (world.groupDevice[slot] === 1) users++;
  }
  return users;
}

/** Files with access to a device: what its driver counts as opens. */
export function opensOf(world: World, d: number): number {
  let opens = 0;
  for (let u = 0; u < world.users.length; u++) {
    const slot = world.slot(u, d);
    if (world.cdev[slot] === CDEV.bound) opens++;
    if (world.groupDevice[slot] === 1) opens++;
  }
  return opens;
}

// The last VFIO device of a group has gone: what was set on its file is undone, and the file is dead.
function dropGroupWithoutDevices(world: World, d: number): void {
  const g = world.groupIndex(d);
  if (vfioDevices(world, g) > 0) return;
  closeGroupFile(world, g);
}

function vfioDevices(world: World, g: number): number {
  let count = 0;
  for (let d = 0; d < world.deviceCount; d++) {
    if (world.groupIndex(d) !== g) continue;
    if (world.driver[d] === DRIVER.vfio || world.driver[d] === DRIVER.leaving) count++;
  }
  return count;
}

// The last file of a device that vfio-pci wants back.
function finishUnbind(world: World, d: number): void {
  if (world.driver[d] !== DRIVER.leaving || usersOf(world, d) > 0) return;
  world.driver[d] = DRIVER.none;
  dropGroupWithoutDevices(world, d);
}

function overrideActions(world: World, d: number): Action[] {
  return OVERRIDES.map((value, i) => ({
    text: `driver_override of ${spec(world, d).name} becomes ${value}`,
    can: (w) => w.present[d] === 1 && w.override[d] !== i,
    run: (w) => {
      w.override[d] = i;
    },
  }));
}

function plugActions(world: World, d: number): Action[] {
  const { name } = spec(world, d);
  return [
    {
      text: `${name} is removed`,
      can: (w) => isFree(w, d) && (w.driver[d] === DRIVER.none || canUnbind(w, d)),
      run: (w) => {
        unbind(w, d);
        if (w.driver[d] !== DRIVER.none) return;
        releaseDevice(iommuDevice(w, d));
        w.present[d] = 0;
        w.override[d] = 0;
      },
    },
    {
      text: `${name} is plugged`,
      can: (w) => w.present[d] === 0,
      run: (w) => {
        try {
          w.plug(d);
        } catch (error) {
          // As in Linux: the device exists, only without group.
          if (!(error instanceof Errno)) throw error;
        }
      },
    },
  ];
}

function resetActions(world: World, d: number): Action[] {
  const { name, ats } = spec(world, d);
  if (!ats) return [];
  return [
    {
      text: `a reset of ${name} begins`,
      can: (w) => isFree(w, d) && w.isMember(d) && w.driver[d] === DRIVER.vfio,
      run: (w) => {
        prepareReset(iommuDevice(w, d));
      },
    },
    {
      text: `the reset of ${name} is done`,
      can: (w) => w.devices[d]?.blocked === true,
      run: (w) => {
        finishReset(iommuDevice(w, d));
      },
    },
  ];
}

function nodeActions(world: World, u: number, d: number): Action[] {
  const user = userName(world, u);
  const { name, pasid } = spec(world, d);
  const slot = world.slot(u, d);
  const bound = (w: World): boolean => w.cdev[slot] === CDEV.bound;
  const ioases = Array.from({ length: world.options.bounds.ioases }, (_, i) => i);
  return [
    {
      text: `${user} opens the node of ${name}`,
      can: (w) => w.cdev[slot] === CDEV.closed && hasNode(w, d),
      run: (w) => {
        w.cdev[slot] = CDEV.open;
      },
    },
    {
      text: `${user} binds ${name} to its IOMMUFD`,
      can: (w) => w.cdev[slot] === CDEV.open,
      run: (w) => {
        bindNode(w, u, d);
      },
    },
    ...ioases.map((which) => ({
      text: `${user} attaches ${name} to its IOAS ${which + 1}`,
      can: (w: World) => bound(w) && w.attached[d] !== which + 1,
      run: (w: World) => {
        attach(w, d, which);
      },
    })),
    {
      text: `${user} detaches ${name}`,
      can: (w) => bound(w) && w.attached[d] !== 0,
      run: (w) => {
        detach(w, d);
      },
    },
    ...(pasid ? pasidActions(world, u, d) : []),
    {
      text: `${user} closes the node of ${name}`,
      can: (w) => w.cdev[slot] !== CDEV.closed,
      run: (w) => {
        const wasBound = bound(w);
        w.cdev[slot] = CDEV.closed;
        if (wasBound) letGo(w, d);
        finishUnbind(w, d);
      },
    },
  ];
}

function hasNode(world: World, d: number): boolean {
  if (world.driver[d] !== DRIVER.vfio) return false;
  const { profile } = world.groupOf(d).table;
  return (
    !profile.singletonNodes || world.groupOf(d).members.length === 1 || isNodeRuleOff(world, d)
  );
}

function isNodeRuleOff(world: World, d: number): boolean {
  return !world.groupOf(d).enforces('one-device-per-group');
}

function bindNode(world: World, u: number, d: number): void {
  const g = world.groupIndex(d);
  if (world.file[g] !== 0 && world.groupOf(d).enforces('paths-exclude')) {
    throw new Errno('EBUSY', 'the group file is open');
  }
  if (opensOf(world, d) > 0) throw new Errno('EINVAL', 'the device is open through another file');
  claimDevice(iommuDevice(world, d), item(world.users, u));
  world.cdev[world.slot(u, d)] = CDEV.bound;
  world.context[d] = u + 1;
}

/** The other members of the device's subgroup that are attached under a key, RID or PASID. */
function attachedWith(world: World, d: number, column: Uint8Array): number[] {
  const subgroup = world.subgroupOf(d);
  const found: number[] = [];
  for (let other = 0; other < world.deviceCount; other++) {
    if (other === d || column[other] === 0) continue;
    if (world.isMember(other) && subgroup.members.includes(iommuDevice(world, other)))
      found.push(other);
  }
  return found;
}

function attach(world: World, d: number, which: number): void {
  const user = (world.context[d] ?? 0) - 1;
  const domain = world.userDomain(user, which);
  const peers = attachedWith(world, d, world.attached);
  if (world.attached[d] !== 0) {
    replaceGroupHandle(world.subgroupOf(d), domain, world.handle(d, NO_PASID));
    for (const peer of peers) world.attached[peer] = which + 1;
  } else if (peers.length > 0) {
    const [peer = 0] = peers;
    if (world.attached[peer] !== which + 1 || world.context[peer] !== world.context[d]) {
      throw new Errno('EINVAL', 'the group is on another page table');
    }
  } else {
    world.attachFirst(d, domain);
  }
  world.attached[d] = which + 1;
}

function detach(world: World, d: number): void {
  const peers = attachedWith(world, d, world.attached);
  world.attached[d] = 0;
  if (peers.length === 0) world.detachLast(d);
}

// The last access to a device through an IOMMUFD has ended.
function letGo(world: World, d: number): void {
  if (world.pasid[d] !== 0) detachPasid(world, d);
  if (world.attached[d] !== 0) detach(world, d);
  releaseDeviceClaim(iommuDevice(world, d));
  world.context[d] = 0;
}

function pasidActions(world: World, u: number, d: number): Action[] {
  const user = userName(world, u);
  const { name } = spec(world, d);
  const slot = world.slot(u, d);
  const ioases = Array.from({ length: world.options.bounds.ioases }, (_, i) => i);
  return [
    ...ioases.map((which) => ({
      text: `${user} attaches PASID ${THE_PASID} of ${name} to its IOAS ${which + 1}`,
      can: (w: World) => w.cdev[slot] === CDEV.bound && w.pasid[d] !== which + 1,
      run: (w: World) => {
        attachPasid(w, d, which);
      },
    })),
    {
      text: `${user} detaches PASID ${THE_PASID} of ${name}`,
      can: (w) => w.cdev[slot] === CDEV.bound && w.pasid[d] !== 0,
      run: (w) => {
        detachPasid(w, d);
      },
    },
  ];
}

function attachPasid(world: World, d: number, which: number): void {
  const user = (world.context[d] ?? 0) - 1;
  const domain = world.userDomain(user, which);
  const handle = world.handle(d, THE_PASID);
  const peers = attachedWith(world, d, world.pasid);
  if (world.pasid[d] !== 0) {
    replaceDevicePasid(iommuDevice(world, d), THE_PASID, domain, handle);
    for (const peer of peers) world.pasid[peer] = which + 1;
  } else if (peers.length > 0) {
    if (world.pasid[peers[0] ?? 0] !== which + 1) {
      throw new Errno('EINVAL', 'the group has the PASID on another page table');
    }
  } else {
    attachDevicePasid(iommuDevice(world, d), THE_PASID, domain, handle);
  }
  world.pasid[d] = which + 1;
}

function detachPasid(world: World, d: number): void {
  const peers = attachedWith(world, d, world.pasid);
  world.pasid[d] = 0;
  if (peers.length === 0) detachDevicePasid(iommuDevice(world, d), THE_PASID);
}

function groupActions(world: World, u: number, g: number): Action[] {
  const user = userName(world, u);
  const which = world.groups.length > 1 ? `group ${g}` : 'the group';
  const mine = (w: World): boolean => w.file[g] === u + 1 && w.lingering[g] === 0;
  return [
    {
      text: `${user} opens the file of ${which}`,
      can: (w) => vfioDevices(w, g) > 0 && !mine(w),
      run: (w) => {
        openGroup(w, u, g);
      },
    },
    {
      text: `${user} puts ${which} into its container`,
      can: (w) => mine(w) && w.mode[g] === MODE.none,
      run: (w) => {
        setContainer(w, u, g);
      },
    },
    {
      text: `${user} sets its IOMMUFD as container of ${which}`,
      can: (w) => mine(w) && w.mode[g] === MODE.none,
      run: (w) => {
        w.mode[g] = MODE.iommufd;
      },
    },
    {
      text: `${user} takes ${which} out of its container`,
      can: (w) => mine(w) && w.mode[g] !== MODE.none,
      run: (w) => {
        if (w.mode[g] !== MODE.iommufd && containerDevices(w, g) > 0) {
          throw new Errno('EBUSY', 'devices are open through the container');
        }
        leaveContainer(w, g);
      },
    },
    {
      text: `${user} closes the file of ${which}`,
      can: mine,
      run: (w) => {
        if (w.mode[g] !== MODE.iommufd && containerDevices(w, g) > 0) w.lingering[g] = 1;
        else closeGroupFile(w, g);
      },
    },
  ];
}

function openGroup(world: World, u: number, g: number): void {
  const group = world.groups[g];
  for (let d = 0; d < world.deviceCount; d++) {
    if (world.groupIndex(d) !== g) continue;
    if (hasBoundNode(world, d) && group?.enforces('paths-exclude') === true) {
      throw new Errno('EBUSY', 'a device of the group is bound by its node');
    }
  }
  if (world.file[g] !== 0) throw new Errno('EBUSY', 'the group file is open');
  world.file[g] = u + 1;
}

/** Somebody has the device through its own node. */
export function hasBoundNode(world: World, d: number): boolean {
  for (let u = 0; u < world.users.length; u++) {
    if (world.cdev[world.slot(u, d)] === CDEV.bound) return true;
  }
  return false;
}

/** Devices that are open through a container: neither bound to an IOMMUFD nor closed. */
function containerDevices(world: World, g: number): number {
  let count = 0;
  for (let d = 0; d < world.deviceCount; d++) {
    if (world.groupIndex(d) !== g || world.context[d] !== 0) continue;
    if (opensOf(world, d) > 0) count++;
  }
  return count;
}

function containerIsSet(world: World, u: number): boolean {
  return world.groups.some((_, g) => world.file[g] === u + 1 && world.mode[g] === MODE.type1);
}

function setContainer(world: World, u: number, g: number): void {
  const group = world.groups[g];
  const cookie = world.cookies[g];
  if (group === undefined || cookie === undefined) return;
  claimGroup(group, cookie);
  if (!containerIsSet(world, u)) {
    world.mode[g] = MODE.container;
    return;
  }
  try {
    attachContainer(world, u, g);
  } catch (error) {
    releaseGroup(group);
    throw error;
  }
}

function attachContainer(world: World, u: number, g: number): void {
  for (const subgroup of world.groups[g]?.subgroups ?? [])
    attachSubgroup(subgroup, world.userDomain(u, TYPE1));
  world.mode[g] = MODE.type1;
}

function leaveContainer(world: World, g: number): void {
  const group = world.groups[g];
  if (group === undefined) return;
  if (world.mode[g] === MODE.type1) group.subgroups.forEach(detachSubgroup);
  if (world.mode[g] === MODE.type1 || world.mode[g] === MODE.container) releaseGroup(group);
  world.mode[g] = MODE.none;
}

function closeGroupFile(world: World, g: number): void {
  leaveContainer(world, g);
  world.file[g] = 0;
  world.lingering[g] = 0;
}

function setIommu(world: World, u: number): Action {
  return {
    text: `${userName(world, u)} calls SET_IOMMU on its container`,
    can: (w) =>
      !containerIsSet(w, u) &&
      w.groups.some((_, g) => w.file[g] === u + 1 && w.mode[g] === MODE.container),
    run: (w) => {
      w.groups.forEach((_, g) => {
        if (w.file[g] === u + 1 && w.mode[g] === MODE.container) attachContainer(w, u, g);
      });
    },
  };
}

function groupDeviceActions(world: World, u: number, d: number): Action[] {
  const user = userName(world, u);
  const { name } = spec(world, d);
  const slot = world.slot(u, d);
  const g = world.groupIndex(d);
  return [
    {
      text: `${user} gets ${name} from the group file`,
      can: (w) =>
        w.file[g] === u + 1 &&
        w.lingering[g] === 0 &&
        w.driver[d] === DRIVER.vfio &&
        w.groupDevice[slot] === 0,
      run: (w) => {
        getDevice(w, u, d);
      },
    },
    {
      text: `${user} closes ${name}, which came from the group file`,
      can: (w) => w.groupDevice[slot] === 1,
      run: (w) => {
        w.groupDevice[slot] = 0;
        if (opensOf(w, d) === 0 && w.context[d] !== 0) letGo(w, d);
        if (w.lingering[g] === 1 && containerDevices(w, g) === 0) closeGroupFile(w, g);
        finishUnbind(w, d);
      },
    },
  ];
}

function getDevice(world: World, u: number, d: number): void {
  const mode = world.mode[world.groupIndex(d)];
  if (mode === MODE.none) throw new Errno('EINVAL', 'the group has no container');
  const first = opensOf(world, d) === 0;
  if (first && mode === MODE.container) throw new Errno('EINVAL', 'SET_IOMMU was not called');
  if (first && mode === MODE.iommufd) {
    claimDevice(iommuDevice(world, d), item(world.users, u));
    world.context[d] = u + 1;
    try {
      attach(world, d, 0);
    } catch (error) {
      letGo(world, d);
      throw error;
    }
  }
  world.groupDevice[world.slot(u, d)] = 1;
}
