/**
 * The driver core of one bus: its devices and drivers, and who is offered to whom. How one device gets and loses its driver is
 * driver-state.ts.
 *
 * One operation at a time holds a device. A driver's remove may take until user space lets go of the device; what else is
 * asked of that device waits its turn, and everything else goes on. Hence completions: `done` is called at once, or later.
 *
 * Errors are Linux's for each way in: `bind` tells the errno, `drivers_probe` turns a refused DMA configuration into EINVAL
 * and hides a failed probe, automatic probing hides both and stops at the first refusal.
 *
 * After drivers/base/dd.c, drivers/base/bus.c and drivers/pci/pci-driver.c.
 */
import { Errno } from '../base/errno.ts';
import { idMatches, type DeviceIdentity, type DriverId } from '../machine/drivers.ts';
import {
  caught,
  hold,
  joinBus,
  leaveBus,
  matches,
  ordinaryIds,
  probe,
  release,
  setOverride,
  type BusDevice,
  type Driver,
  type Listener,
  type Notification,
  type Probed,
} from './driver-state.ts';

export type Done = (error?: Errno) => void;

type DynamicIds = Map<Driver, DriverId[]>;

export class DriverCore {
  /** write to drivers_autoprobe */
  autoprobe = true;
  readonly #drivers: Driver[] = [];
  // By name, in the order in which they were added.
  readonly #devices = new Map<string, BusDevice>();
  readonly #listeners: Listener[] = [];
  readonly #dynamic: DynamicIds = new Map();
  readonly #deferred = new Set<BusDevice>();

  get drivers(): readonly Driver[] {
    return this.#drivers;
  }

  /** Devices in the order in which they were added. */
  get devices(): readonly BusDevice[] {
    return [...this.#devices.values()];
  }

  listen(listener: Listener): void {
    this.#listeners.push(listener);
  }

  readonly #notify = (event: Notification, device: BusDevice): void => {
    for (const listener of this.#listeners) listener(event, device);
  };

  device(name: string): BusDevice | undefined {
    return this.#devices.get(name);
  }

  driver(name: string): Driver | undefined {
    return this.#drivers.find((driver) => driver.name === name);
  }

  #need(name: string): BusDevice {
    const device = this.device(name);
    if (device === undefined) throw new Errno('ENODEV', `there is no device "${name}" on the bus`);
    return device;
  }

  /** Registers a driver and offers it every device without one. */
  register(driver: Driver): void {
    this.#drivers.push(driver);
    if (this.autoprobe) this.#offer(driver);
  }

  // Errors concern nobody: the next device may be fine.
  #offer(driver: Driver): void {
    for (const device of this.devices) {
      if (!this.matches(driver, device)) continue;
      hold(device, (unlock) => {
        if (device.driver === undefined) this.#tryProbe(driver, device);
        unlock();
      });
    }
  }

  /** The bus says that the driver may take the device: override, then added ids, then the driver's table. */
  matches(driver: Driver, device: BusDevice): boolean {
    return matches(driver, device, this.#dynamic.get(driver) ?? []);
  }

  /** A driver that a device has from the beginning, whatever else would match. Nothing happens if its probe fails. */
  bindAtBoot(driver: Driver, device: BusDevice): void {
    hold(device, (unlock) => {
      if (device.driver === undefined) this.#tryProbe(driver, device);
      unlock();
    });
  }

  /** Puts a device on the bus: listeners bring it under its IOMMU. Drivers come with {@link initialProbe}. */
  add(device: BusDevice): void {
    this.#devices.set(device.name, device);
    joinBus(device);
    this.#notify('add', device);
  }

  /** Looks for a driver, where the bus does so by itself. */
  initialProbe(device: BusDevice): void {
    this.initialProbes([device]);
  }

  /** The same for devices that came together: drivers that want to be probed beside the others come last. */
  initialProbes(devices: readonly BusDevice[]): void {
    if (!this.autoprobe) return;
    for (const asynchronous of [false, true]) {
      const drivers = this.#drivers.filter((each) => (each.asynchronous ?? false) === asynchronous);
      for (const device of devices) {
        if (device.dead) continue;
        hold(device, (unlock) => {
          if (device.driver === undefined) this.#attach(device, drivers);
          unlock();
        });
      }
    }
  }

  /**
   * Offers the device to drivers in turn. One whose DMA is refused ends the search; one whose probe fails does not.
   * @returns the refusal that ended it
   */
  #attach(device: BusDevice, drivers: readonly Driver[] = this.#drivers): Errno | undefined {
    for (const driver of drivers) {
      if (!this.matches(driver, device)) continue;
      const { refused, failed } = this.#tryProbe(driver, device);
      if (refused !== undefined) return refused;
      if (failed === undefined) return undefined;
    }
    return undefined;
  }

  #tryProbe(driver: Driver, device: BusDevice): Probed {
    const result = this.#probe(driver, device);
    const error = result.refused ?? result.failed;
    if (error?.code === 'EPROBE_DEFER') this.#deferred.add(device);
    return result;
  }

  #probe(driver: Driver, device: BusDevice): Probed {
    const result = probe(driver, device, this.#notify);
    if (result.refused === undefined && result.failed === undefined) {
      this.#deferred.delete(device);
      this.#notify('bound-driver', device);
      this.#retryDeferred();
    }
    return result;
  }

  // A bound driver may be what the others waited for.
  #retryDeferred(): void {
    const waiting = [...this.#deferred];
    this.#deferred.clear();
    for (const device of waiting) this.initialProbe(device);
  }

  /** Groups have their default domains now: what was deferred for that is tried again. */
  retryDeferred(): void {
    this.#retryDeferred();
  }

  /** Write to DRIVER/bind. ENODEV for no such device or no match; EBUSY; the probe's errors. */
  bind(driverName: string, name: string, done: Done): void {
    attempt(done, () => {
      const driver = this.driver(driverName);
      if (driver === undefined) throw new Errno('ENODEV', `there is no driver "${driverName}"`);
      const device = this.#need(name);
      if (!this.matches(driver, device)) {
        const why =
          device.override === undefined
            ? `${driverName} does not know ${name} and its driver_override is empty`
            : `driver_override of ${name} is ${device.override}`;
        throw new Errno('ENODEV', why);
      }
      hold(device, (unlock) => {
        const { refused, failed } = this.#probe(driver, device);
        unlock();
        done(asBindError(refused ?? failed));
      });
    });
  }

  /** Write to DRIVER/unbind. ENODEV if the device is not bound to this driver. Done when the driver has let go. */
  unbind(driverName: string, name: string, done: Done): void {
    attempt(done, () => {
      const device = this.#need(name);
      if (device.driver?.name !== driverName) {
        const bound = device.driver?.name ?? 'no driver';
        throw new Errno('ENODEV', `${name} is bound to ${bound}, not to ${driverName}`);
      }
      release(device, this.#notify, done);
    });
  }

  /** Write to drivers_probe. ENODEV for no such device, EINVAL for a refusal; a failed probe is success. */
  driversProbe(name: string, done: Done): void {
    attempt(done, () => {
      const device = this.#need(name);
      if (device.driver !== undefined) {
        done();
        return;
      }
      hold(device, (unlock) => {
        const refused = device.driver === undefined ? this.#attach(device) : undefined;
        unlock();
        done(refused && new Errno('EINVAL', refused.message));
      });
    });
  }

  /** Write to driver_override. EINVAL for a text as long as a page. */
  setOverride(device: BusDevice, text: string): void {
    setOverride(device, text);
  }

  /** Write to DRIVER/new_id: up to seven hexadecimal numbers. EINVAL for fewer than two, and as {@link addId}. */
  newId(driverName: string, text: string): void {
    const { driver, fields, row } = this.#idFrom(driverName, text);
    const driverData = fields[6] ?? 0;
    if (driverData !== 0 && driver.ids.length > 0) {
      throw new Errno('EINVAL', `${driverName} has no entry with driver data ${driverData}`);
    }
    this.addId(driver, row, fields.length === ID_FIELDS);
  }

  /** Write to DRIVER/remove_id. EINVAL for fewer than two numbers, ENODEV for ids that were never added. */
  removeIdText(driverName: string, text: string): void {
    const { driver, row } = this.#idFrom(driverName, text);
    this.removeId(driver, row);
  }

  #idFrom(driverName: string, text: string): { driver: Driver; fields: number[]; row: WholeId } {
    const driver = this.driver(driverName);
    if (driver === undefined) throw new Errno('ENODEV', `there is no driver "${driverName}"`);
    const fields = hexNumbers(text);
    const [vendor, device, subvendor, subdevice, classCode, classMask] = fields;
    if (vendor === undefined || device === undefined) {
      throw new Errno('EINVAL', `"${text.trim()}" does not begin with vendor and device`);
    }
    const row = {
      vendor,
      device,
      ...(subvendor === undefined || subvendor === ANY ? {} : { subvendor }),
      ...(subdevice === undefined || subdevice === ANY ? {} : { subdevice }),
      ...(classCode === undefined ? {} : { class: classCode, classMask: classMask ?? 0 }),
    };
    return { driver, fields, row };
  }

  /** Write to DRIVER/new_id, decoded. EEXIST if the driver knows the device (unless all fields were given). */
  addId(driver: Driver, row: WholeId, complete: boolean): void {
    const rows = this.#dynamic.get(driver) ?? [];
    if (!complete) {
      const probe = { subvendor: ANY, subdevice: ANY, class: 0, ...row };
      const known = [...ordinaryIds(driver), ...rows];
      if (known.some((each) => idMatches(each, probe))) {
        throw new Errno('EEXIST', `${driver.name} knows these ids already`);
      }
    }
    this.#dynamic.set(driver, [...rows, row]);
    this.#offer(driver);
  }

  /** Write to DRIVER/remove_id, decoded. ENODEV if it was not added. */
  removeId(driver: Driver, row: WholeId): void {
    const rows = this.#dynamic.get(driver) ?? [];
    const index = rows.findIndex(
      ({ vendor, device }) => vendor === row.vendor && device === row.device,
    );
    if (index < 0) throw new Errno('ENODEV', `these ids were never added to ${driver.name}`);
    this.#dynamic.set(driver, rows.toSpliced(index, 1));
  }

  /** Takes a device off the bus: driver first, then listeners take it from its IOMMU. */
  remove(device: BusDevice, done: Done): void {
    this.#notify('remove', device);
    release(device, this.#notify, () => {
      leaveBus(device);
      this.#deferred.delete(device);
      this.#devices.delete(device.name);
      this.#notify('removed', device);
      done();
    });
  }
}

type WholeId = DriverId & Pick<DeviceIdentity, 'vendor' | 'device'>;

/** PCI_ANY_ID, as a device's own number: matches only rows that say nothing. */
const ANY = 0xffff_ffff;

const ID_FIELDS = 7;

// As sscanf reads: stops at the first word that is no number.
function hexNumbers(text: string): number[] {
  const numbers: number[] = [];
  for (const word of text.trim().split(/\s+/).slice(0, ID_FIELDS)) {
    const digits = /^(?:0x)?([0-9a-f]+)/i.exec(word)?.[1];
    if (digits === undefined) break;
    numbers.push(Number.parseInt(digits, 16));
  }
  return numbers;
}

function asBindError(error: Errno | undefined): Errno | undefined {
  return error?.code === 'EPROBE_DEFER' ? new Errno('EAGAIN', error.message) : error;
}

function attempt(done: Done, action: () => void): void {
  const error = caught(action);
  if (error !== undefined) done(error);
}
