/**
 * A claim of a device, tried on the machine itself: what the engine answers to a program that takes the device by each
 * interface of VFIO, in the order of calls that every such program makes. Nothing is left behind.
 *
 * No rule stands here. A refusal is the engine's own, with its reason.
 */
import { Errno, type ErrnoCode } from '../base/errno.ts';
import type { PciSystemParts } from '../kernel/system.ts';
import { VFIO_TYPE1v2_IOMMU } from '../uapi/vfio.ts';
import { ContainerFile } from '../vfio/container-file.ts';
import { setIommu } from '../vfio/container.ts';
import { vfioView } from '../vfio/iommufd.ts';
import { deviceName } from '../vfio/state.ts';

/** `iommufd`: the device's own node and /dev/iommu; `container`: the group's file and /dev/vfio/vfio. */
export type InterfaceName = 'iommufd' | 'container';

/** A call that was refused. */
export type Refusal = {
  /** "VFIO_DEVICE_BIND_IOMMUFD", "open /dev/vfio/7" */
  readonly call: string;
  readonly code: ErrnoCode;
  readonly reason: string;
};

export type Trial = {
  readonly interface: InterfaceName;
  /** undefined: the device was claimed and attached */
  readonly refusal: Refusal | undefined;
};

type Releasable = { release(): void };

/** What is open, closed in the opposite order whatever happens. */
class Opened {
  readonly #files: Releasable[] = [];

  add<T extends Releasable>(file: T): T {
    this.#files.push(file);
    return file;
  }

  close(): void {
    for (const file of this.#files.reverse()) file.release();
  }
}

/** One step of a claim: refused with the name of the call. */
class Refused extends Error {
  readonly refusal: Refusal;

  constructor(call: string, { code, message }: Errno) {
    super(message);
    this.refusal = { call, code, reason: message };
  }
}

function step<T>(call: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof Errno) throw new Refused(call, error);
    throw error;
  }
}

/** The file is not there: what the name of it would stand for does not exist. */
function missing({ pci, groups }: PciSystemParts, name: string, file: string): Errno {
  const device = pci.core.device(name);
  if (device?.iommu.group !== undefined && pci.vfio.deviceOf(device.iommu) !== undefined) {
    const reason = `profile ${groups.profile.name}: ${name} shares group ${device.iommu.group.id}, so it has no ${file}`;
    return new Errno('ENOENT', reason);
  }
  const driver = device?.driver?.name;
  const bound = driver === undefined ? 'has no driver' : `is bound to ${driver}, no VFIO driver`;
  return new Errno('ENOENT', `${name} ${bound}, so there is no ${file}`);
}

const CLIENT = { pid: 1 };

/**
 * Tries one interface.
 * @param name "0000:01:00.0", a device of the machine
 */
export function tryInterface(system: PciSystemParts, name: string, by: InterfaceName): Trial {
  const opened = new Opened();
  try {
    if (by === 'iommufd') claimByNode(system, name, opened);
    else claimByGroup(system, name, opened);
    return { interface: by, refusal: undefined };
  } catch (error) {
    if (error instanceof Refused) return { interface: by, refusal: error.refusal };
    throw error;
  } finally {
    opened.close();
  }
}

/** Both interfaces, one after the other. */
export function tryDevice(system: PciSystemParts, name: string): Trial[] {
  return [tryInterface(system, name, 'iommufd'), tryInterface(system, name, 'container')];
}

function claimByNode(system: PciSystemParts, name: string, opened: Opened): void {
  const { pci, vfio, iommufd } = system;
  const iommu = pci.core.device(name)?.iommu;
  const registered = iommu && vfio.deviceOf(iommu);
  const node = registered && vfio.device(deviceName(registered));
  const path = `/dev/vfio/devices/${registered === undefined ? 'vfioN' : deviceName(registered)}`;
  const file = step(`open ${path}`, () => {
    if (node === undefined) throw missing(system, name, path);
    return opened.add(vfio.openDevice(node));
  });
  const view = vfioView(opened.add(iommufd.open(CLIENT, 'user space')).context);
  step('VFIO_DEVICE_BIND_IOMMUFD', () => file.bind(() => view));
  step('VFIO_DEVICE_ATTACH_IOMMUFD_PT', () => {
    view.createCompatIoas();
    file.attach(view.compatIoasId());
  });
}

function claimByGroup(system: PciSystemParts, name: string, opened: Opened): void {
  const { pci, vfio } = system;
  const iommu = pci.core.device(name)?.iommu;
  // A group of the no-iommu mode is not named by its number alone.
  const node = (iommu && vfio.deviceOf(iommu)?.group.nodeName) ?? iommu?.group?.id;
  const path = `/dev/vfio/${node ?? 'GROUP'}`;
  const group = step(`open ${path}`, () => {
    const found = node === undefined ? undefined : vfio.group(String(node));
    if (found === undefined) throw missing(system, name, path);
    return opened.add(vfio.openGroup(found));
  });
  const { container } = new ContainerFile();
  step('VFIO_GROUP_SET_CONTAINER', () => {
    group.setContainer(container);
  });
  step('VFIO_SET_IOMMU', () => {
    setIommu(container, VFIO_TYPE1v2_IOMMU);
  });
  step('VFIO_GROUP_GET_DEVICE_FD', () => opened.add(group.getDevice(name)));
}
