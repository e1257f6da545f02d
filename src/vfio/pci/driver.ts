/**
 * vfio-pci as a driver: which functions it takes, and how VFIO's calls reach their devices.
 *
 * Invariant: tokens of a physical function count the opens of its virtual ones exactly, because open and close bracket each other.
 *
 * After drivers/vfio/pci/vfio_pci.c and vfio_pci_core.c (registration, match, rw, mmap).
 */
import { Errno } from '../../base/errno.ts';
import { HEADER_NORMAL } from '../../machine/pci/config-space.ts';
import type { ManagedFunction } from '../../machine/pci/managed-function.ts';
import type { Functions } from '../../machine/pci/reset.ts';
import {
  VFIO_PCI_NUM_REGIONS,
  VFIO_PCI_ROM_REGION_INDEX,
  VFIO_PCI_VGA_REGION_INDEX,
} from '../../uapi/vfio.ts';
import type { RegionPlace, VfioDeviceOps } from '../state.ts';
import { DeviceSets } from './device-set.ts';
import { VfioPciDevice } from './device.ts';
import { PCI_IOCTLS } from './ioctls.ts';
import { mapRegion } from './mmap.ts';
import { tokenOption, VfTokens } from './vf-token.ts';
import { vgaCount } from './vga.ts';

/** All devices that one driver of vfio-pci's kind has. */
export class VfioPciDriver {
  readonly #functions: Functions;
  readonly #sets = new DeviceSets<VfioPciDevice>();
  readonly #tokens = new VfTokens();

  constructor(functions: Functions) {
    this.#functions = functions;
  }

  /**
   * Takes a function. EINVAL for a bridge.
   * @param options it has virtual functions, or could have: their users need its token
   * @returns the device, to be registered with VFIO
   */
  probe(managed: ManagedFunction, options: { readonly hasToken: boolean }): VfioPciDevice {
    const { pci } = managed;
    if (pci.config.headerType !== HEADER_NORMAL) {
      throw new Errno('EINVAL', `${pci.name} is a bridge, vfio-pci takes endpoints`);
    }
    if (options.hasToken) this.#tokens.add(pci);
    const device = new VfioPciDevice(managed, { functions: this.#functions, tokens: this.#tokens });
    device.set = this.#sets.add(device);
    return device;
  }

  /** Gives it back: no file is open any more. */
  remove(device: VfioPciDevice): void {
    this.#sets.remove(device);
    this.#tokens.remove(device.pci);
    device.set = undefined;
    device.remove();
  }
}

/** What VFIO asks of a device. */
export function vfioPciOps(device: VfioPciDevice): VfioDeviceOps {
  const { pci, tokens } = device;
  return {
    pasids: true,
    openDevice: () => {
      device.enable();
      tokens.opened(pci);
    },
    closeDevice: () => {
      tokens.closed(pci);
      device.disable();
    },
    request: () => device.interrupts.request(),
    match: (_vfio, named) => {
      const { name } = pci;
      if (!named.startsWith(name) || !['', ' '].includes(named.charAt(name.length))) return false;
      tokens.match(pci, tokenOption(named.slice(name.length)));
      return true;
    },
    matchToken: (_vfio, token) => {
      tokens.match(pci, token);
    },
    awake: (_vfio, work) => device.managed.whileAwake(work),
    ioctl: (_vfio, call) => PCI_IOCTLS.execute(device, call),
    regionRead: (_vfio, place, into) => {
      requireRegion(device, place.index);
      return device.managed.whileAwake(() => readRegion(device, place, into));
    },
    regionWrite: (_vfio, place, bytes) => {
      requireRegion(device, place.index);
      return device.managed.whileAwake(() => writeRegion(device, place, bytes));
    },
    mmap: (_vfio, request) => mapRegion(device, request),
    memory: () => device,
    flags: () => device.flags,
  };
}

function requireRegion({ name }: VfioPciDevice, index: number): void {
  if (index >= VFIO_PCI_NUM_REGIONS) throw new Errno('EINVAL', `${name} has no region ${index}`);
}

function readRegion(
  { open, managed }: VfioPciDevice,
  { index, offset, end }: RegionPlace,
  into: Uint8Array,
): number {
  if (index < VFIO_PCI_ROM_REGION_INDEX) return open.regions.readBar(index, offset, into);
  if (index === VFIO_PCI_ROM_REGION_INDEX) return open.regions.readRom(offset, into);
  if (index === VFIO_PCI_VGA_REGION_INDEX) {
    const count = vgaCount(managed.pci, offset, into.length);
    // No model answers at legacy addresses.
    into.fill(0xff, 0, count);
    return count;
  }
  open.config.checkEnd(end);
  open.config.read(offset, into);
  return into.length;
}

function writeRegion(
  { open, managed }: VfioPciDevice,
  { index, offset, end }: RegionPlace,
  bytes: Uint8Array,
): number {
  if (index < VFIO_PCI_ROM_REGION_INDEX) return open.regions.writeBar(index, offset, bytes);
  if (index === VFIO_PCI_ROM_REGION_INDEX) throw new Errno('EINVAL', 'a ROM cannot be written');
  if (index === VFIO_PCI_VGA_REGION_INDEX) return vgaCount(managed.pci, offset, bytes.length);
  open.config.checkEnd(end);
  open.config.write(offset, bytes);
  return bytes.length;
}
