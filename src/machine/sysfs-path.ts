/**
 * Paths of PCI devices in sysfs: `pci0000:00/0000:00:1c.0/0000:01:00.0`. Each component after the root bus is a bridge,
 * the last one is the device. A root bus below a device belongs to a controller that does the DMA of all that is on it
 * (Intel VMD).
 */
import { parseAddress, parseBus, type BusAddress, type PciAddress } from './pci/address.ts';

export type DevicePath = {
  readonly root: BusAddress;
  /** the bridge above; undefined on a root bus */
  readonly parent: PciAddress | undefined;
  /** whose requester ID the DMA of this root bus carries */
  readonly dmaDevice: PciAddress | undefined;
};

/** @returns undefined for a path that is not one of a PCI device */
export function parsePath(path: string): DevicePath | undefined {
  const components = path.split('/');
  const at = components.findLastIndex((component) =>
    /^pci[0-9a-f]{4,8}:[0-9a-f]{2}$/i.test(component),
  );
  const root = at < 0 ? undefined : parseBus((components[at] ?? '').slice('pci'.length));
  if (root === undefined || at === components.length - 1) return undefined;
  const above = components.slice(at + 1, -1).map(parseAddress);
  return {
    root,
    parent: above.findLast((address) => address !== undefined),
    dmaDevice: components
      .slice(0, at)
      .map(parseAddress)
      .findLast((address) => address !== undefined),
  };
}
