/**
 * Resources of a function in sysfs: the list, a file for each base address register, and the expansion ROM.
 *
 * Not here: what reading or mapping a register's file reaches. Nothing stands behind these files yet, so reading an I/O one
 * gives EIO and mapping is refused; programs reach registers through VFIO.
 *
 * After drivers/pci/pci-sysfs.c (resource_show, pci_dev_resource_*_is_visible, pci_read_rom).
 */
import { Errno } from '../../base/errno.ts';
import {
  BAR_COUNT,
  RESOURCE,
  RESOURCE_FLAGS,
  resourceSize,
  type Resource,
} from '../../machine/pci/bar.ts';
import type { PciFunction } from '../pci-function.ts';
import { booleanOrInvalid } from './parse.ts';
import { readable, type Attribute } from './tree.ts';

const OWNER_ONLY = 0o600;

export function resourceAttributes(known: PciFunction): Record<string, Attribute> {
  const { pci } = known;
  const attributes: Record<string, Attribute> = { resource: readable(() => resourceText(known)) };
  for (const [index, resource] of pci.resources.slice(0, BAR_COUNT).entries()) {
    if (resourceSize(resource) === 0n) continue;
    attributes[`resource${index}`] = memoryAttribute(pci.name, resource);
    if ((resource.flags & RESOURCE_FLAGS.PREFETCH) === 0) continue;
    attributes[`resource${index}_wc`] = memoryAttribute(pci.name, resource);
  }
  const rom = pci.resources[RESOURCE.ROM];
  if (rom !== undefined && resourceSize(rom) > 0n) attributes['rom'] = romAttribute(known, rom);
  return attributes;
}

function memoryAttribute(name: string, resource: Resource): Attribute {
  return {
    kind: 'attribute',
    mode: OWNER_ONLY,
    size: Number(resourceSize(resource)),
    read: () => {
      throw new Errno('EIO', `registers of ${name} are reached through VFIO`);
    },
    store: (_write, done) => {
      done(new Errno('EIO', `registers of ${name} are reached through VFIO`));
    },
  };
}

// Writing a truth value lets later reads through.
function romAttribute(known: PciFunction, rom: Resource): Attribute {
  return {
    kind: 'attribute',
    mode: OWNER_ONLY,
    size: Number(resourceSize(rom)),
    read: () => {
      const { name } = known.pci;
      if (!known.romEnabled)
        throw new Errno('EINVAL', `the ROM of ${name} is not enabled: write 1`);
      throw new Errno('EIO', `there is no valid image in the ROM of ${name}`);
    },
    store: ({ bytes }, done) => {
      try {
        known.romEnabled = booleanOrInvalid(String.fromCharCode(...bytes.subarray(0, 2)));
      } catch (error) {
        if (!(error instanceof Errno)) throw error;
        done(error);
        return;
      }
      done();
    },
  };
}

const digits = (value: bigint | number): string => `0x${value.toString(16).padStart(16, '0')}`;

/** A line for each: BARs, ROM, those of virtual functions; with a bus behind, windows too. */
function resourceText({ pci }: PciFunction): string {
  const shown = pci.subordinate === undefined ? RESOURCE.WINDOWS : RESOURCE.COUNT;
  return pci.resources
    .slice(0, shown)
    .map(({ start, last, flags }) => `${digits(start)} ${digits(last)} ${digits(flags)}\n`)
    .join('');
}
