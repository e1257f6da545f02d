/**
 * /sys/bus/pci/drivers: a directory for each driver, with links to the devices that it has.
 *
 * After drivers/base/bus.c (bind_store, unbind_store) and drivers/pci/pci-driver.c (new_id_store, remove_id_store).
 */
import type { Driver } from '../driver-state.ts';
import type { SysfsContext } from './context.ts';
import { word } from './parse.ts';
import { devicePath, devpathOf, driverPath } from './paths.ts';
import { atOnce, Directory, linkTo, writable, type Attribute, type Named } from './tree.ts';
import { ueventAttribute } from './uevent-attribute.ts';

export function driversDirectory(context: SysfsContext): Directory {
  const { core } = context.system;
  return new Directory({
    list: () => core.drivers.map((driver) => [driver.name, driverDirectory(context, driver)]),
    find: (name) => {
      const driver = core.driver(name);
      return driver && driverDirectory(context, driver);
    },
  });
}

function driverDirectory(context: SysfsContext, driver: Driver): Directory {
  const { system } = context;
  const files = driverFiles(context, driver);
  const path = driverPath(driver.name);
  return new Directory({
    list: () => [
      ...Object.entries(files),
      ...[...system.functions]
        .filter(({ device }) => device.bound && device.driver === driver)
        .map(({ pci }): Named => [pci.name, linkTo(path, devicePath(pci))]),
    ],
    find: (name) => {
      const known = system.function(name);
      if (known?.device.bound === true && known.device.driver === driver) {
        return linkTo(path, devicePath(known.pci));
      }
      return Object.hasOwn(files, name) ? files[name] : undefined;
    },
  });
}

function driverFiles(context: SysfsContext, { name }: Driver): Record<string, Attribute> {
  const { core } = context.system;
  return {
    bind: writable((text, done) => {
      core.bind(name, word(text), done);
    }),
    unbind: writable((text, done) => {
      core.unbind(name, word(text), done);
    }),
    new_id: writable(
      atOnce((text) => {
        core.newId(name, text);
      }),
    ),
    remove_id: writable(
      atOnce((text) => {
        core.removeIdText(name, text);
      }),
    ),
    uevent: ueventAttribute((action, synthetic) => {
      const devpath = devpathOf(driverPath(name));
      context.uevents.emit({ action, devpath, subsystem: 'drivers', keys: synthetic });
    }),
  };
}
