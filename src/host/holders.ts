/**
 * What uses a device of the running system: open device files, mounted disks, network interfaces, the boot framebuffer. What
 * belongs to a device is found by its place in sysfs: everything below the device's own folder is the device's.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { basename, join } from 'node:path';
import { managedDriver } from '../machine/drivers.ts';
import { BlockDevices } from './blocks.ts';
import { HOST_ROOTS, linkName, readText, realPath, type HostRoots } from './files.ts';
import { Network, type NetworkState } from './network.ts';
import { readOpenFiles, type OpenFile, type OpenFiles } from './open-files.ts';

export type HolderKind =
  | 'open-file'
  | 'vfio-user'
  | 'mount'
  | 'swap'
  | 'block-holder'
  | 'default-route'
  | 'interface-up'
  | 'framebuffer'
  | 'boot-display';

export type Holder = {
  readonly kind: HolderKind;
  /** "/dev/nvme0n1p2 is mounted at /home" */
  readonly sentence: string;
  /** taking the device away breaks the running system */
  readonly vital: boolean;
};

export type Holders = {
  readonly holders: readonly Holder[];
  /** processes whose files could not be read */
  readonly hiddenProcesses: number;
};

/** A device with the group whose files count as its own. */
export type Held = {
  /** "0000:01:00.0" */
  readonly name: string;
  readonly group: number | undefined;
  /** all members of the group: who has one of them open has them all */
  readonly members: readonly string[];
};

/** Everything that is looked up once and serves every device. */
export class HolderIndex {
  readonly #roots: HostRoots;
  readonly #blocks: BlockDevices;
  readonly #network: Network;
  readonly #files: OpenFiles;

  /** @param network addresses and routes; of the running system unless given */
  constructor(roots: HostRoots = HOST_ROOTS, network?: NetworkState) {
    this.#roots = roots;
    this.#blocks = new BlockDevices(roots);
    this.#network = new Network(roots, network);
    this.#files = readOpenFiles(roots);
  }

  /** What uses the device, and who has a file of its group open. */
  holdersOf(held: Held): Holders {
    const { name } = held;
    const at = this.#place(name);
    const found =
      at === undefined
        ? []
        : [
            ...this.#openFiles(at, held),
            ...this.#blocks.usesBelow(at),
            ...this.#network.usesBelow(at),
            ...this.#display(at, name),
          ];
    const once = found.filter(
      ({ sentence }, index) => found.findIndex((other) => other.sentence === sentence) === index,
    );
    return { holders: once, hiddenProcesses: this.#files.hidden };
  }

  #place(name: string): string | undefined {
    return realPath(this.#roots.sys, 'bus/pci/devices', name);
  }

  #openFiles(at: string, { group, members }: Held): Holder[] {
    const groupPath =
      group === undefined ? undefined : join(this.#roots.dev, 'vfio', String(group));
    const places = members.map((name) => this.#place(name)).filter((each) => each !== undefined);
    const holders = this.#files.list.flatMap((file) => {
      // The longest place is the device itself, not a bridge above it.
      const member = places
        .filter((each) => isBelow(file.device, each))
        .sort((a, b) => b.length - a.length)[0];
      const ofGroup = file.vfio && (member !== undefined || isGroupFile(file, groupPath));
      if (!ofGroup && !isBelow(file.device, at)) return [];
      const which = member === undefined || !file.vfio ? '' : ` (${basename(member)})`;
      const sentence = `${file.path ?? 'a VFIO device'}${which} is open in ${file.process}`;
      return [{ kind: file.vfio ? 'vfio-user' : 'open-file', sentence, vital: false } as const];
    });
    if (holders.length > 0 || groupPath === undefined) return holders;
    return [...this.#askGroup(groupPath), ...this.#unnamed(places)];
  }

  // Processes of other users are hidden. The group's file can be opened once: whoever may open it can see whether it is.
  #askGroup(path: string): Holder[] {
    if (this.#files.hidden === 0) return [];
    try {
      closeSync(openSync(path, constants.O_RDWR));
      return [];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY') return [];
      const sentence = `${path} is in use (EBUSY) by a process of another user`;
      return [{ kind: 'vfio-user', sentence, vital: false }];
    }
  }

  // Before 7.3 a VFIO device that came out of a group does not say which one it is.
  #unnamed(places: readonly string[]): Holder[] {
    const offered = places.some((at) => managedDriver(linkName(at, 'driver') ?? '')?.vfio === true);
    if (!offered) return [];
    return this.#files.list
      .filter(({ path, device }) => path === undefined && device === undefined)
      .map(({ process }) => ({
        kind: 'open-file',
        sentence: `${process} has a VFIO device open, and this kernel does not say which one`,
        vital: false,
      }));
  }

  #display(at: string, name: string): Holder[] {
    const holders: Holder[] = [];
    const holder = bootFramebuffer(readText(this.#roots.proc, 'iomem') ?? '', name);
    if (holder !== undefined) {
      holders.push({
        kind: 'framebuffer',
        sentence: `the boot framebuffer (${holder}) holds memory of it (/proc/iomem)`,
        vital: true,
      });
    }
    if (readText(at, 'boot_vga') === '1') {
      const driver = linkName(at, 'driver');
      const givenUp = driver !== undefined && managedDriver(driver)?.vfio === true;
      const sentence = 'it is the display that firmware booted with';
      holders.push({ kind: 'boot-display', sentence, vital: !givenUp });
    }
    return holders;
  }
}

/** In another mount name space it may have another path; its device is the same. */
function isGroupFile({ path, device }: OpenFile, groupPath: string | undefined): boolean {
  if (groupPath === undefined) return false;
  return path === groupPath || device?.endsWith(`/vfio/${basename(groupPath)}`) === true;
}

function isBelow(path: string | undefined, at: string): boolean {
  return path !== undefined && (path === at || path.startsWith(`${at}/`));
}

// Names of the drivers that take over what firmware drew on; drivers/video/fbdev and drivers/gpu/drm/sysfb.
const FRAMEBUFFERS =
  /^(?:BOOTFB|simplefb|efifb|vesafb|simple-framebuffer|simpledrm|efidrm|vesadrm|ofdrm|corebootdrm|.*framebuffer.*)$/i;

/** Who of the boot framebuffers sits below the memory of device `name`: the nesting shows it, addresses are not needed. */
export function bootFramebuffer(iomem: string, name: string): string | undefined {
  let inside: number | undefined;
  for (const line of iomem.split('\n')) {
    const match = /^(\s*)[0-9a-f]+-[0-9a-f]+ : (.*)$/i.exec(line);
    if (match === null) continue;
    const depth = (match[1] ?? '').length;
    const holder = match[2] ?? '';
    if (inside !== undefined && depth <= inside) inside = undefined;
    if (holder === name) inside ??= depth;
    else if (inside !== undefined && FRAMEBUFFERS.test(holder)) return holder;
  }
  return undefined;
}
