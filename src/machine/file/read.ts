/**
 * Machine files: a machine written by a person, or a capture of a real one. The format is declared in
 * file/machine-shape.ts and explained in docs/machine-file.md.
 *
 * loadMachine() in src/iommu adds the check that groups which the file names are those of the topology; it is what
 * programs call.
 */
import { Errno, type ErrnoCode } from '../../base/errno.ts';
import { nearestWord } from '../../base/nearest.ts';
import type { DriverSpec, DriverId } from '../drivers.ts';
import { readDevices, type Entry, type RootBus } from './devices.ts';
import { MACHINE_SHAPE } from './machine-shape.ts';
import {
  Problems,
  fieldOf,
  flagOf,
  mapOf,
  mapsOf,
  numberOf,
  itemsOf,
  readYaml,
  textOf,
  textsOf,
  type MapValue,
  type Place,
} from './reader.ts';
import { readRegions } from './regions.ts';
import {
  Machine,
  usualRegions,
  type DeviceDescription,
  type Iommu,
  type IommuKind,
  type UnsafeInterrupts,
} from '../machine.ts';
import { parseConfigAcs, parseDisableRedirect, type AcsOptions } from '../pci/acs-control.ts';
import { formatAddress, parseAddress, parseBus } from '../pci/address.ts';
import { assignAddresses } from '../pci/assign-addresses.ts';
import type { PciDevice } from '../pci/device.ts';
import { virtualFunctionConfig } from '../pci/sriov.ts';

export type MachineFile = {
  readonly machine: Machine;
  readonly problems: Problems;
  /** where the file says to which group a device belongs */
  readonly groupPlaces: ReadonlyMap<PciDevice, Place>;
};

/**
 * Reads a machine file.
 * @param name for messages, usually the file's name
 * @param places see {@link readYaml}; wanted where the caller may still find something wrong
 * @throws InputError that says where, what was expected and the nearest right word, one line for each problem
 */
export function readMachineFile(text: string, name: string, places = false): MachineFile {
  const problems = new Problems(name);
  const read = readParts(text, name, { problems, places });
  if (problems.any && !places) return readMachineFile(text, name, true);
  problems.throwIfAny();
  return read;
}

function readParts(
  text: string,
  name: string,
  { problems, places }: { readonly problems: Problems; readonly places: boolean },
): MachineFile {
  const file = readYaml(text, MACHINE_SHAPE, problems, places);
  const machine = emptyMachine(file, name, problems);
  const roots = readRoots(file, problems);
  const devices = readDevices(mapsOf(file, 'devices'), roots, problems);
  refuseUnknownIommus(machine, devices, problems);
  const groupPlaces = new Map<PciDevice, Place>();
  const read = { machine, problems, groupPlaces };
  if (problems.any) return read;
  // A root bus of a controller comes with its first device, when the controller is there.
  for (const { address, dmaDevice } of roots) {
    if (dmaDevice === undefined) machine.addRootBus(address);
  }
  for (const { entry, description } of devices) {
    const device = machine.add(completed(machine, entry, description));
    const place = entry.value.fields.get('group')?.value.at;
    if (place !== undefined) groupPlaces.set(device, place);
  }
  if (machine.source === 'file') assignAddresses(machine.buses);
  switchOnVirtualFunctions(machine, devices, problems);
  return read;
}

function emptyMachine(file: MapValue, name: string, problems: Problems): Machine {
  const capture = mapOf(file, 'capture');
  const boot = mapOf(file, 'boot');
  const machine = new Machine({
    kind: textOf(file, 'kind') === 'selftest' ? 'selftest' : 'pc',
    name: textOf(file, 'name') ?? name,
    source: capture === undefined ? 'file' : 'capture',
    acs: boot !== undefined && textOf(boot, 'acs') === 'as-is' ? 'as-is' : 'enable',
    acsOptions: readAcsOptions(boot, problems),
    atsDisabled: boot !== undefined && flagOf(boot, 'ats') === false,
    unsafeInterrupts: readUnsafeInterrupts(boot),
    noIommu: boot !== undefined && flagOf(boot, 'noiommu') === true,
    iommus: readIommus(file, problems),
    drivers: mapsOf(file, 'drivers').map(readDriver),
    firmwareTables:
      capture === undefined ? [] : textsOf(capture, 'firmware').map(({ text }) => text),
  });
  for (const { text } of capture === undefined ? [] : textsOf(capture, 'unreadable')) {
    machine.remarks.push(text);
  }
  for (const group of mapsOf(file, 'groups')) {
    const id = numberOf(group, 'id') ?? 0;
    const reserved = readRegions(group, 'reserved', problems);
    machine.recordedGroups.set(id, {
      id,
      type: textOf(group, 'type') ?? '',
      reserved,
      name: textOf(group, 'name'),
      others: textsOf(group, 'others').map(({ text }) => text),
    });
  }
  return machine;
}

function readUnsafeInterrupts(boot: MapValue | undefined): UnsafeInterrupts {
  const modules = boot === undefined ? [] : textsOf(boot, 'unsafe-interrupts');
  const has = (name: string): boolean => modules.some(({ text }) => text === name);
  return { type1: has('vfio_iommu_type1'), iommufd: has('iommufd') };
}

function readAcsOptions(boot: MapValue | undefined, problems: Problems): AcsOptions {
  if (boot === undefined) return { disableRedirect: [], configure: [] };
  const read = <T>(
    key: string,
    parse: (text: string) => T | undefined,
    form: string,
  ): T | undefined => {
    const written = textOf(boot, key);
    if (written === undefined) return undefined;
    const parsed = parse(written);
    const at = boot.fields.get(key)?.value.at ?? boot.at;
    if (parsed === undefined)
      problems.add(at, `Linux could not parse "${written}"; expected ${form}`);
    return parsed;
  };
  const device = '[DOMAIN:]BUS:SLOT.FN[/SLOT.FN]… or pci:VENDOR:DEVICE';
  return {
    disableRedirect:
      read('disable-acs-redir', parseDisableRedirect, `${device}, separated by ;`) ?? [],
    configure:
      read('config-acs', parseConfigAcs, `BITS@DEVICE, bits 0, 1 or x, DEVICE ${device}`) ?? [],
  };
}

function readIommus(file: MapValue, problems: Problems): Iommu[] {
  const field = fieldOf(file, 'iommu');
  const kind = textOf(file, 'kind');
  if (field === undefined) return kind === 'selftest' ? [] : [defaultIommu()];
  if (field.kind === 'scalar') return [];
  const values = field.kind === 'map' ? [field] : mapsOf(file, 'iommu');
  const modes = values.map((value) => textOf(value, 'mode') ?? 'translated');
  if (new Set(modes).size > 1) {
    problems.add(field.at, 'Linux passes all IOMMUs through or none; expected one "mode" for all');
  }
  return values.map((value, index) => {
    const iommuKind = (textOf(value, 'kind') ?? 'intel') as IommuKind;
    const written = value.fields.has('reserved');
    return {
      name: textOf(value, 'name') ?? `iommu${index}`,
      kind: iommuKind,
      mode: textOf(value, 'mode') === 'passthrough' ? 'passthrough' : 'translated',
      interruptRemapping: flagOf(value, 'interrupt-remapping') ?? true,
      reserved: written ? readRegions(value, 'reserved', problems) : usualRegions(iommuKind),
    };
  });
}

function defaultIommu(): Iommu {
  return { name: 'iommu0', kind: 'intel', mode: 'translated', reserved: usualRegions('intel') };
}

function readDriver(value: MapValue): DriverSpec {
  const failProbe = textOf(value, 'fail-probe') as ErrnoCode | undefined;
  return {
    name: textOf(value, 'name') ?? '',
    managedDma: flagOf(value, 'user-dma') ?? false,
    ids: textsOf(value, 'ids').map(({ text }) => readDriverId(text)),
    overrideOnly: flagOf(value, 'override-only') ?? false,
    bridges: flagOf(value, 'bridges') ?? false,
    ...(failProbe === undefined ? {} : { failProbe }),
    dma: flagOf(value, 'dma') ?? false,
  };
}

function readDriverId(text: string): DriverId {
  const [vendor = '*', device = '*'] = text.split(':');
  return {
    ...(vendor === '*' ? {} : { vendor: Number.parseInt(vendor, 16) }),
    ...(device === '*' ? {} : { device: Number.parseInt(device, 16) }),
  };
}

function readRoots(file: MapValue, problems: Problems): RootBus[] {
  const items = itemsOf(file, 'root-buses');
  if (items.length === 0) return [{ address: { domain: 0, bus: 0 }, dmaDevice: undefined }];
  const seen = new Set<string>();
  return items.flatMap((item) => {
    const written =
      item.kind === 'scalar' ? item.text : item.kind === 'map' ? textOf(item, 'bus') : undefined;
    const address = parseBus(written ?? '');
    if (address === undefined) return [];
    const name = `${address.domain}:${address.bus}`;
    if (seen.has(name))
      problems.add(item.at, `root bus ${written ?? ''} is here twice; expected it once`);
    seen.add(name);
    const dmaDevice = item.kind === 'map' ? textOf(item, 'dma-device') : undefined;
    return [{ address, dmaDevice: parseAddress(dmaDevice ?? '') }];
  });
}

function refuseUnknownIommus(
  machine: Machine,
  devices: readonly { entry: Entry; description: DeviceDescription }[],
  problems: Problems,
): void {
  const names = machine.iommus.map(({ name }) => name);
  for (const { entry, description } of devices) {
    const wanted = description.facts?.iommu;
    if (typeof wanted !== 'string' || names.includes(wanted)) continue;
    const close = nearestWord(wanted, names);
    problems.add(
      entry.value.fields.get('iommu')?.value.at ?? entry.at,
      `there is no IOMMU "${wanted}"; expected none or one of ${names.join(', ')}` +
        (close === undefined ? '' : `, did you mean ${close}?`),
    );
  }
}

/** A virtual function that is only named looks like its physical function says. */
function completed(
  machine: Machine,
  entry: Entry,
  description: DeviceDescription,
): DeviceDescription {
  const physfn =
    description.physfn === undefined ? undefined : machine.get(formatAddress(description.physfn));
  if (physfn === undefined || entry.raw !== undefined) return description;
  return { ...description, config: virtualFunctionConfig(physfn) };
}

function switchOnVirtualFunctions(
  machine: Machine,
  devices: readonly { entry: Entry }[],
  problems: Problems,
): void {
  for (const { entry } of devices) {
    const sriov = mapOf(entry.value, 'sriov');
    if (sriov === undefined) continue;
    const listed = [...machine.devices].filter(({ physfn }) => physfn?.name === entry.name).length;
    const enabled = numberOf(sriov, 'enabled') ?? listed;
    if (enabled === 0) continue;
    const total = numberOf(sriov, 'total') ?? 0;
    const at = sriov.fields.get('enabled')?.value.at ?? sriov.at;
    if (enabled > total) {
      problems.add(
        at,
        `${enabled} virtual functions are more than there are; expected at most ${total}`,
      );
      continue;
    }
    try {
      machine.setVirtualFunctions(entry.name, enabled);
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      problems.add(at, error.message);
    }
  }
}
