/**
 * The PCI device behind a name that people use: a network interface, a disk or its partition, a controller, a device file, a
 * path that leads to one (/dev/disk/by-id/…). Found by its place in sysfs: the last PCI function on the way to it.
 */
import { basename } from 'node:path';
import { parseAddress } from '../machine/pci/address.ts';
import { HOST_ROOTS, names, realPath, type HostRoots } from './files.ts';

/** @returns "0000:01:00.0", several where a disk has several ways to it; none for a name that leads to no PCI device */
export function addressesOf(written: string, roots: HostRoots = HOST_ROOTS): string[] {
  const name = basename(written.startsWith('/') ? (realPath(written) ?? written) : written);
  if (name === '' || name.startsWith('.')) return [];
  const places = names(roots.sys, 'class')
    .map((kind) => realPath(roots.sys, 'class', kind, name))
    .filter((place) => place !== undefined);
  const found = places.flatMap((place) => functionsOn(place, roots));
  return [...new Set(found)].sort();
}

function functionsOn(place: string, roots: HostRoots): string[] {
  const subsystem = /\/nvme-subsystem\/(nvme-subsys\d+)/.exec(place)?.[1];
  if (subsystem !== undefined) {
    const at = [roots.sys, 'class/nvme-subsystem', subsystem] as const;
    return names(...at)
      .filter((entry) => /^nvme\d+$/.test(entry))
      .map((entry) => realPath(...at, entry))
      .flatMap((controller) => (controller === undefined ? [] : lastFunction(controller)));
  }
  return lastFunction(place);
}

function lastFunction(place: string): string[] {
  const functions = place.split('/').filter((part) => parseAddress(part) !== undefined);
  return functions.slice(-1);
}
