/**
 * What can happen in the checker's world: one entry per action and per device, user and argument. `can` says whether it makes
 * sense at all in this state (a closed file is not closed again); whether it is allowed is for the engine to say, by an Errno.
 * `run` calls the engine's functions and decides nothing.
 *
 * A probe is two steps, because the claim of a sibling may come between them; everything else is one step, as one mutex in
 * Linux makes it one. Hence these bounds: probes of vfio-pci and pci-stub are one step, they touch no DMA.
 */
import { Errno } from '../base/errno.ts';
import { finishReset, prepareReset } from '../iommu/attach.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import {
  beginProbe,
  failProbe,
  finishProbe,
  hold,
  matches,
  probe,
  release,
  setOverride,
  unhold,
  type BusDevice,
  type Driver,
} from '../kernel/driver-state.ts';
import { VFIO_TYPE1v2_IOMMU } from '../uapi/vfio.ts';
import { setIommu } from '../vfio/container.ts';
import { bindNode, closeDevice, openNode, openThroughGroup } from '../vfio/device.ts';
import {
  openGroup,
  putGroupFile,
  setContainer,
  setIommufd,
  unsetContainer,
} from '../vfio/group.ts';
import { attachPasid, attachPt, detachPasid, detachPt } from '../vfio/iommufd.ts';
import { hasNode } from '../vfio/registration.ts';
import type { Container, DeviceOpen, VfioDevice, VfioGroup } from '../vfio/state.ts';
import { item } from './cells.ts';
import type { CheckedIommufd } from './iommufd.ts';
import { OVERRIDES, THE_PASID, type CheckDevice } from './model.ts';
import type { World } from './world.ts';

export type Action = {
  /** "user X binds A to its IOMMUFD" */
  readonly text: string;
  can(world: World): boolean;
  /** Throws Errno when a rule refuses. */
  run(world: World): void;
};

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
          setIommuAction(world, u),
        ])
      : []),
  ];
}

const ignore = (): void => undefined;

function spec(world: World, d: number): CheckDevice {
  return item(world.machine.devices, d);
}

function userName(world: World, u: number): string {
  return world.users[u]?.name ?? '';
}

function bus(world: World, d: number): BusDevice {
  return item(world.bus, d);
}

function iommu(world: World, d: number): IommuDevice {
  return item(world.devices, d);
}

function vfioGroup(world: World, g: number): VfioGroup {
  const group = world.vfioGroup(g);
  if (group === undefined) throw new Error(`group ${g} has no VFIO device`);
  return group;
}

function vfioDevice(world: World, d: number): VfioDevice {
  const device = world.vfioDevice(d);
  if (device === undefined) throw new Error(`${spec(world, d).name} is not known to VFIO`);
  return device;
}

function container(world: World, u: number): Container {
  return item(world.inventory.containers, u);
}

function context(world: World, u: number): CheckedIommufd {
  return item(world.users, u);
}

/** Nothing holds the device's lock, a reset neither. */
function isFree(world: World, d: number): boolean {
  const device = world.bus[d];
  return device?.listed === true && !device.held && !device.iommu.blocked;
}

/** The driver would be probed: where driver_override is no state of its own, it is chosen with the driver. */
function canProbe(world: World, d: number, driver: Driver): boolean {
  const device = bus(world, d);
  if (!isFree(world, d) || device.driver !== undefined) return false;
  return !world.options.bounds.override || matches(driver, device, []);
}

function isProbing(world: World, d: number): boolean {
  const { driver, bound } = bus(world, d);
  return driver?.managedDma === false && !bound;
}

function probeOrThrow(world: World, d: number, driver: Driver): void {
  const { refused, failed } = probe(driver, bus(world, d), ignore);
  const error = refused ?? failed;
  if (error !== undefined) throw error;
}

function driverActions(world: World, d: number): Action[] {
  const { name, kernelDriver } = spec(world, d);
  const kernel = (w: World): Driver => item(w.inventory.kernelDrivers, d);
  return [
    {
      text: `${kernelDriver} is about to be probed on ${name}`,
      can: (w) => canProbe(w, d, kernel(w)),
      run: (w) => {
        beginProbe(kernel(w), bus(w, d));
        hold(bus(w, d), ignore);
      },
    },
    {
      text: `the probe of ${kernelDriver} on ${name} succeeds: it does kernel DMA`,
      can: (w) => isProbing(w, d),
      run: (w) => {
        finishProbe(bus(w, d));
        unhold(bus(w, d));
      },
    },
    {
      text: `the probe of ${kernelDriver} on ${name} fails`,
      can: (w) => isProbing(w, d),
      run: (w) => {
        failProbe(bus(w, d));
        unhold(bus(w, d));
      },
    },
    {
      text: `vfio-pci is bound to ${name}`,
      can: (w) => canProbe(w, d, w.inventory.vfioPci),
      run: (w) => {
        probeOrThrow(w, d, w.inventory.vfioPci);
      },
    },
    {
      text: `pci-stub is bound to ${name}`,
      can: (w) => canProbe(w, d, w.inventory.pciStub),
      run: (w) => {
        probeOrThrow(w, d, w.inventory.pciStub);
      },
    },
    {
      text: `${name} is unbound from its driver`,
      can: (w) => isFree(w, d) && bus(w, d).driver !== undefined,
      run: (w) => {
        release(bus(w, d), ignore, ignore);
      },
    },
  ];
}

function overrideActions(world: World, d: number): Action[] {
  return [undefined, ...OVERRIDES].map((value) => ({
    text: `driver_override of ${spec(world, d).name} becomes ${value ?? 'nothing'}`,
    can: (w) => w.isPresent(d) && bus(w, d).override !== value,
    run: (w) => {
      setOverride(bus(w, d), value ?? '\n');
    },
  }));
}

function plugActions(world: World, d: number): Action[] {
  const { name } = spec(world, d);
  return [
    {
      text: `${name} is removed`,
      can: (w) => isFree(w, d),
      run: (w) => {
        w.remove(d);
      },
    },
    {
      text: `${name} is plugged`,
      can: (w) => !w.isPresent(d),
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
      can: (w) => isFree(w, d) && w.isMember(d) && bus(w, d).driver === w.inventory.vfioPci,
      run: (w) => {
        prepareReset(iommu(w, d));
      },
    },
    {
      text: `the reset of ${name} is done`,
      can: (w) => iommu(w, d).blocked,
      run: (w) => {
        finishReset(iommu(w, d));
      },
    },
  ];
}

/** IDs of a user's IOASes. */
function ioasIds(world: World): number[] {
  return Array.from({ length: world.options.bounds.ioases }, (_, i) => i + 1);
}

/** What the RID or PASID of a device is attached to. */
function attachedTo(world: World, d: number, pasid: number): number {
  return world.boundTo(d)?.bindings[d]?.attachedTo(pasid)?.id ?? 0;
}

function nodeActions(world: World, u: number, d: number): Action[] {
  const user = userName(world, u);
  const { name, pasid } = spec(world, d);
  const slot = world.slot(u, d);
  const node = (w: World): DeviceOpen | undefined => w.nodes[slot];
  const bound = (w: World): boolean => node(w)?.accessGranted === true;
  return [
    {
      text: `${user} opens the node of ${name}`,
      can: (w) => {
        const device = w.registered(d);
        return node(w) === undefined && device !== undefined && hasNode(device);
      },
      run: (w) => {
        w.nodes[slot] = openNode(vfioDevice(w, d));
      },
    },
    {
      text: `${user} binds ${name} to its IOMMUFD`,
      can: (w) => node(w) !== undefined && !bound(w),
      run: (w) => {
        const open = node(w);
        if (open !== undefined) bindNode(open, () => context(w, u));
      },
    },
    ...ioasIds(world).map((id) => ({
      text: `${user} attaches ${name} to its IOAS ${id}`,
      can: (w: World) => bound(w) && attachedTo(w, d, 0) !== id,
      run: (w: World) => {
        attachPt(vfioDevice(w, d), id);
      },
    })),
    {
      text: `${user} detaches ${name}`,
      can: (w) => bound(w) && vfioDevice(w, d).attached,
      run: (w) => {
        detachPt(vfioDevice(w, d));
      },
    },
    ...(pasid ? pasidActions(world, u, d) : []),
    {
      text: `${user} closes the node of ${name}`,
      can: (w) => node(w) !== undefined,
      run: (w) => {
        close(w.nodes, slot);
      },
    },
  ];
}

function close(opens: (DeviceOpen | undefined)[], slot: number): void {
  const open = opens[slot];
  if (open === undefined) return;
  closeDevice(open);
  opens[slot] = undefined;
}

function pasidActions(world: World, u: number, d: number): Action[] {
  const user = userName(world, u);
  const { name } = spec(world, d);
  const slot = world.slot(u, d);
  const bound = (w: World): boolean => w.nodes[slot]?.accessGranted === true;
  return [
    ...ioasIds(world).map((id) => ({
      text: `${user} attaches PASID ${THE_PASID} of ${name} to its IOAS ${id}`,
      can: (w: World) => bound(w) && attachedTo(w, d, THE_PASID) !== id,
      run: (w: World) => {
        attachPasid(vfioDevice(w, d), THE_PASID, id);
      },
    })),
    {
      text: `${user} detaches PASID ${THE_PASID} of ${name}`,
      can: (w) => bound(w) && vfioDevice(w, d).pasids.has(THE_PASID),
      run: (w) => {
        detachPasid(vfioDevice(w, d), THE_PASID);
      },
    },
  ];
}

/** The user has the descriptor of the group file. */
function hasFile(world: World, u: number, g: number): boolean {
  return world.file[g] === u && world.lingering[g] === 0 && world.holder(g) === u;
}

function groupActions(world: World, u: number, g: number): Action[] {
  const user = userName(world, u);
  const which = world.groups.length > 1 ? `group ${g}` : 'the group';
  const canSet = (w: World): boolean => hasFile(w, u, g) && w.behind(g) === 'nothing';
  return [
    {
      text: `${user} opens the file of ${which}`,
      can: (w) => w.vfioGroup(g) !== undefined && !hasFile(w, u, g),
      run: (w) => {
        openGroup(vfioGroup(w, g));
        w.file[g] = u;
        w.lingering[g] = 0;
      },
    },
    {
      text: `${user} puts ${which} into its container`,
      can: canSet,
      run: (w) => {
        w.inventory.acting = u;
        setContainer(vfioGroup(w, g), container(w, u));
      },
    },
    {
      text: `${user} sets its IOMMUFD as container of ${which}`,
      can: canSet,
      run: (w) => {
        setIommufd(vfioGroup(w, g), context(w, u));
      },
    },
    {
      text: `${user} takes ${which} out of its container`,
      can: (w) => hasFile(w, u, g) && w.behind(g) !== 'nothing',
      run: (w) => {
        unsetContainer(vfioGroup(w, g));
      },
    },
    {
      text: `${user} closes the file of ${which}`,
      can: (w) => hasFile(w, u, g),
      run: (w) => {
        const { opened } = vfioGroup(w, g);
        if (opened !== undefined) putGroupFile(opened);
        w.lingering[g] = 1;
      },
    },
  ];
}

function setIommuAction(world: World, u: number): Action {
  return {
    text: `${userName(world, u)} calls SET_IOMMU on its container`,
    can: (w) => container(w, u).groups.length > 0 && container(w, u).iommu === undefined,
    run: (w) => {
      w.inventory.acting = u;
      setIommu(container(w, u), VFIO_TYPE1v2_IOMMU);
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
        hasFile(w, u, g) && w.registered(d) !== undefined && w.groupDevices[slot] === undefined,
      run: (w) => {
        w.groupDevices[slot] = openThroughGroup(vfioGroup(w, g), vfioDevice(w, d));
      },
    },
    {
      text: `${user} closes ${name}, which came from the group file`,
      can: (w) => w.groupDevices[slot] !== undefined,
      run: (w) => {
        close(w.groupDevices, slot);
      },
    },
  ];
}
