/**
 * A device's driver as plain data, and how it changes: probing, letting go, override. The bus around it (which drivers there are,
 * who is notified, what is tried when) is driver-core.ts; `uiommu check` runs these same functions.
 *
 * A probe runs DMA configuration, then the driver's probe; DMA configuration is where a driver that does kernel DMA is
 * refused while user space owns the group (ownership.ts), before the driver saw the device. Removing runs the driver's remove,
 * then DMA clean-up, so that ownership brackets everything a driver does.
 *
 * Invariants: `bound` only with a driver; a driver without `bound` is being probed or is leaving, and the device is held.
 * What is asked of a held device waits its turn.
 *
 * After drivers/base/dd.c (really_probe, __device_release_driver) and drivers/base/bus.c.
 */
import { Errno } from '../base/errno.ts';
import { PAGE_BYTES } from '../base/position.ts';
import type { Fields, Known } from '../base/transfer.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import { unuseDefaultDomain, useDefaultDomain } from '../iommu/ownership.ts';
import { idMatches, type DeviceIdentity, type DriverId } from '../machine/drivers.ts';

/** A driver of the bus. */
export type Driver = {
  readonly name: string;
  /** driver_managed_dma: the driver leaves its group's DMA alone, user space may own it */
  readonly managedDma: boolean;
  readonly ids: readonly DriverId[];
  /** The ids count only for devices whose driver_override names this driver. */
  readonly overrideOnly?: boolean;
  /** Devices that appear are offered to it after all others were offered to theirs. */
  readonly asynchronous?: boolean;
  /** It can enable virtual functions now: `sriov_numvfs` asks it. */
  configuresSriov?(): boolean;
  /** Takes the device. Throws Errno. */
  probe(device: BusDevice): void;
  /** Lets the device go; calls `done` when it has, which may be later. Cannot fail. */
  remove(device: BusDevice, done: () => void): void;
};

/** A device on the bus. */
export type BusDevice = {
  readonly name: string;
  readonly identity: DeviceIdentity;
  readonly iommu: IommuDevice;
  driver: Driver | undefined;
  /** the driver's probe succeeded and its remove has not begun */
  bound: boolean;
  /** driver_override */
  override: string | undefined;
  /** Removal has begun: nothing can be bound any more. */
  dead: boolean;
  /** on the bus: found by name */
  listed: boolean;
  /** The device lock is held: a probe runs, or a driver is leaving and waits for user space. */
  held: boolean;
  /** who waits for the lock */
  readonly waiting: (() => void)[];
};

export function newBusDevice(
  name: string,
  identity: DeviceIdentity,
  iommu: IommuDevice,
): BusDevice {
  return {
    name,
    identity,
    iommu,
    driver: undefined,
    bound: false,
    override: undefined,
    dead: false,
    listed: false,
    held: false,
    waiting: [],
  };
}

export type Notification =
  | 'add'
  | 'bind-driver'
  | 'bound-driver'
  | 'driver-not-bound'
  | 'unbind-driver'
  | 'unbound-driver'
  | 'remove'
  | 'removed';

/** Called in Linux's order, synchronously. */
export type Listener = (event: Notification, device: BusDevice) => void;

/** Runs `action` when nothing holds the device; `action` calls the release that it is given. */
export function hold(device: BusDevice, action: (release: () => void) => void): void {
  if (device.held) {
    device.waiting.push(() => {
      hold(device, action);
    });
    return;
  }
  device.held = true;
  action(() => {
    unhold(device);
  });
}

/** Ends a {@link hold}; whoever waits is next. */
export function unhold(device: BusDevice): void {
  device.held = false;
  device.waiting.shift()?.();
}

/** driver_override: neither binds nor unbinds. @param text as written; empty, or only a newline, clears */
export function setOverride(device: BusDevice, text: string): void {
  if (text.length >= PAGE_BYTES - 1) throw new Errno('EINVAL', 'driver_override is too long');
  const [value = ''] = text.split(/[\0\n]/, 1);
  device.override = value === '' ? undefined : value;
}

/**
 * The bus says that the driver may take the device: override, then added ids, then the driver's table.
 * @param added ids that were written to the driver's new_id
 */
export function matches(driver: Driver, device: BusDevice, added: readonly DriverId[]): boolean {
  const named = device.override === driver.name;
  if (device.override !== undefined && !named) return false;
  if (added.some((row) => idMatches(row, device.identity))) return true;
  if (named) return true;
  return ordinaryIds(driver).some((row) => idMatches(row, device.identity));
}

/** Ids that count without driver_override. */
export function ordinaryIds(driver: Driver): readonly DriverId[] {
  return driver.overrideOnly === true ? [] : driver.ids;
}

/** How a probe ended: `refused` before the driver saw the device, `failed` by the driver, or neither. */
export type Probed = { readonly refused?: Errno; readonly failed?: Errno };

/** Probes a device that the caller holds. */
export function probe(driver: Driver, device: BusDevice, notify: Listener): Probed {
  const refused = caught(() => {
    beginProbe(driver, device);
  });
  if (refused !== undefined) return { refused };
  notify('bind-driver', device);
  const failed = caught(() => {
    driver.probe(device);
  });
  if (failed !== undefined) {
    notify('driver-not-bound', device);
    failProbe(device);
    return { failed };
  }
  finishProbe(device);
  return {};
}

/**
 * The first half of a probe: the device has the driver, and its DMA is granted.
 * @throws Errno ENODEV for a device that is being removed, EBUSY for one that has a driver, what DMA configuration refuses
 */
export function beginProbe(driver: Driver, device: BusDevice): void {
  if (device.dead) throw new Errno('ENODEV', `${device.name} is being removed`);
  if (device.driver !== undefined) {
    throw new Errno('EBUSY', `${device.name} is bound to ${device.driver.name} already`);
  }
  if (!driver.managedDma) useDefaultDomain(device.iommu, driver.name);
  device.driver = driver;
}

/** The driver's own probe has succeeded, */
export function finishProbe(device: BusDevice): void {
  device.bound = true;
}

/** … or failed. */
export function failProbe(device: BusDevice): void {
  dropDriver(device);
}

function dropDriver(device: BusDevice): void {
  if (device.driver?.managedDma === false) unuseDefaultDomain(device.iommu);
  device.driver = undefined;
}

/** Takes the driver away, if there is one, once nothing holds the device. @param done called when it has let go */
export function release(device: BusDevice, notify: Listener, done: () => void): void {
  hold(device, (unlock) => {
    const { driver } = device;
    if (driver === undefined) {
      unlock();
      done();
      return;
    }
    notify('unbind-driver', device);
    device.bound = false;
    driver.remove(device, () => {
      finishRelease(device, notify, done);
    });
  });
}

/** The driver has let go of the device: what {@link release} waits for. */
export function finishRelease(device: BusDevice, notify: Listener, done: () => void): void {
  dropDriver(device);
  notify('unbound-driver', device);
  unhold(device);
  done();
}

/** The device can be found. */
export function joinBus(device: BusDevice): void {
  device.listed = true;
}

/** The driver is gone, now the device goes. */
export function leaveBus(device: BusDevice): void {
  device.dead = true;
  device.listed = false;
}

export type BusDeviceNames = {
  readonly drivers: Known<Driver>;
  /** values of driver_override */
  readonly overrides: Known<string>;
};

/**
 * The mutable fields, for whoever puts a state down and takes it up again. Not `waiting`: only states are kept in which nobody
 * waits for the device lock.
 */
export function busDeviceFields(
  fields: Fields<BusDevice>,
  { drivers, overrides }: BusDeviceNames,
): void {
  fields.flag('listed');
  fields.one('driver', drivers);
  fields.flag('bound');
  fields.flag('held');
  fields.flag('dead');
  fields.one('override', overrides);
}

/** The Errno that an action throws, if it does. */
export function caught(action: () => void): Errno | undefined {
  try {
    action();
  } catch (error) {
    if (error instanceof Errno) return error;
    throw error;
  }
  return undefined;
}
