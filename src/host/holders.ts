/**
 * Who holds a device of the running system: open device files, mounted disks, the default route, the boot framebuffer. What
 * belongs to a device is found by its place in sysfs: everything below the device's own folder is the device's.
 *
 * Files of other users' processes can only be seen by root; how many processes could not be looked at is said.
 */
import { readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { HOST_ROOTS, linkName, names, readText, realPath, type HostRoots } from './files.ts';

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
  /** "mounted at /home (/dev/nvme0n1p2)" */
  readonly sentence: string;
  /** taking the device away breaks the running system */
  readonly vital: boolean;
};

export type Holders = {
  readonly holders: readonly Holder[];
  /** processes whose files could not be looked at */
  readonly hiddenProcesses: number;
};

/** Everything that is looked up once and serves every device. */
export class HolderIndex {
  readonly #roots: HostRoots;
  readonly #blocks: readonly BlockDevice[];
  readonly #routes: ReadonlySet<string>;
  readonly #files: OpenFiles;

  constructor(roots: HostRoots = HOST_ROOTS) {
    this.#roots = roots;
    this.#blocks = readBlocks(roots);
    this.#routes = defaultRouteInterfaces(roots);
    this.#files = readOpenFiles(roots);
  }

  /** Who holds the device `name` ("0000:01:00.0"), a member of group `group`. */
  holdersOf(name: string, group: number | undefined): Holders {
    const at = realPath(this.#roots.sys, 'bus/pci/devices', name);
    if (at === undefined) return { holders: [], hiddenProcesses: this.#files.hidden };
    return {
      holders: [
        ...this.#openFiles(at, group),
        ...this.#disks(at),
        ...this.#interfaces(at),
        ...this.#display(at, name),
      ],
      hiddenProcesses: this.#files.hidden,
    };
  }

  #openFiles(at: string, group: number | undefined): Holder[] {
    const groupPath =
      group === undefined ? undefined : join(this.#roots.dev, 'vfio', String(group));
    const found = new Map<string, Holder>();
    for (const file of this.#files.list) {
      const isGroup = file.path === groupPath;
      if (!isGroup && !isBelow(file.device, at)) continue;
      const vfio = isGroup || file.path.startsWith(join(this.#roots.dev, 'vfio'));
      const sentence = `${file.path} is open in ${file.process}`;
      found.set(sentence, { kind: vfio ? 'vfio-user' : 'open-file', sentence, vital: false });
    }
    return [...found.values()];
  }

  #disks(at: string): Holder[] {
    return this.#blocks
      .filter((block) => isBelow(block.path, at))
      .flatMap((block) => this.#usesOf(block, new Set()))
      .filter(
        (holder, index, all) =>
          all.findIndex((other) => other.sentence === holder.sentence) === index,
      );
  }

  /** Mounts and swap of a block device, and of what is stacked on it (LVM, RAID, encryption). */
  #usesOf(block: BlockDevice, seen: Set<string>): Holder[] {
    if (seen.has(block.name)) return [];
    seen.add(block.name);
    const stacked = block.holders.flatMap((name) => {
      const upper = this.#blocks.find((candidate) => candidate.name === name);
      const uses = upper === undefined ? [] : this.#usesOf(upper, seen);
      const sentence = `/dev/${block.name} is part of /dev/${name}`;
      return [
        { kind: 'block-holder', sentence, vital: uses.some(({ vital }) => vital) } as const,
        ...uses,
      ];
    });
    const mounts = block.mounts.map(
      (where) =>
        ({
          kind: 'mount',
          sentence: `/dev/${block.name} is mounted at ${where}`,
          vital: true,
        }) as const,
    );
    const swap = block.swap
      ? [{ kind: 'swap', sentence: `/dev/${block.name} is swap space`, vital: true } as const]
      : [];
    return [...mounts, ...swap, ...stacked];
  }

  #interfaces(at: string): Holder[] {
    const holders: Holder[] = [];
    for (const name of names(this.#roots.sys, 'class/net')) {
      if (!isBelow(realPath(this.#roots.sys, 'class/net', name), at)) continue;
      const master = linkName(this.#roots.sys, 'class/net', name, 'master');
      const route = [name, master].find((one) => one !== undefined && this.#routes.has(one));
      if (route !== undefined) {
        const over = route === name ? '' : ` (${name} is a port of it)`;
        holders.push({
          kind: 'default-route',
          sentence: `the default route goes over ${route}${over}`,
          vital: true,
        });
      } else if (master !== undefined) {
        holders.push({
          kind: 'interface-up',
          sentence: `${name} is a port of ${master}`,
          vital: false,
        });
      } else if (readText(this.#roots.sys, 'class/net', name, 'operstate') === 'up') {
        holders.push({
          kind: 'interface-up',
          sentence: `network interface ${name} is up`,
          vital: false,
        });
      }
    }
    return holders;
  }

  #display(at: string, name: string): Holder[] {
    const holders: Holder[] = [];
    const holder = bootFramebuffer(readText(this.#roots.proc, 'iomem') ?? '', name);
    if (holder !== undefined) {
      holders.push({
        kind: 'framebuffer',
        sentence: `the boot framebuffer (${holder}) holds memory of it (/proc/iomem)`,
        vital: false,
      });
    }
    if (readText(at, 'boot_vga') === '1') {
      holders.push({
        kind: 'boot-display',
        sentence: 'it is the display that firmware booted with',
        vital: false,
      });
    }
    return holders;
  }
}

function isBelow(path: string | undefined, at: string): boolean {
  return path !== undefined && (path === at || path.startsWith(`${at}/`));
}

const FRAMEBUFFERS =
  /^(?:BOOTFB|simplefb|efifb|vesafb|simple-framebuffer|simpledrm|.*framebuffer.*)$/i;

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

type BlockDevice = {
  readonly name: string;
  readonly path: string | undefined;
  readonly holders: readonly string[];
  readonly mounts: readonly string[];
  readonly swap: boolean;
};

function readBlocks(roots: HostRoots): BlockDevice[] {
  const mounts = new Map<string, string[]>();
  for (const line of (readText(roots.proc, 'self/mountinfo') ?? '').split('\n')) {
    const [, , number = '', , where = ''] = line.split(' ');
    mounts.set(number, [...(mounts.get(number) ?? []), unescaped(where)]);
  }
  const swaps = new Set(
    (readText(roots.proc, 'swaps') ?? '')
      .split('\n')
      .slice(1)
      .map((line) => realPath(line.split(/\s/)[0] ?? '') ?? ''),
  );
  return names(roots.sys, 'class/block').map((name) => ({
    name,
    path: realPath(roots.sys, 'class/block', name),
    holders: names(roots.sys, 'class/block', name, 'holders'),
    mounts: mounts.get(readText(roots.sys, 'class/block', name, 'dev') ?? '') ?? [],
    swap: swaps.has(join(roots.dev, name)),
  }));
}

/** mountinfo writes blanks as \040. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}

function defaultRouteInterfaces(roots: HostRoots): Set<string> {
  const found = new Set<string>();
  for (const line of (readText(roots.proc, 'net/route') ?? '').split('\n').slice(1)) {
    const [name, destination, , , , , , mask] = line.trim().split(/\s+/);
    if (name !== undefined && destination === '00000000' && mask === '00000000') found.add(name);
  }
  for (const line of (readText(roots.proc, 'net/ipv6_route') ?? '').split('\n')) {
    const words = line.trim().split(/\s+/);
    const name = words.at(-1);
    if (
      /^0{32}$/.test(words[0] ?? '') &&
      words[1] === '00' &&
      name !== undefined &&
      name !== 'lo'
    ) {
      found.add(name);
    }
  }
  return found;
}

type OpenFile = {
  /** as the process opened it */
  readonly path: string;
  /** where the device is in sysfs; undefined for one that is not there */
  readonly device: string | undefined;
  /** "qemu-system-x86 (4711)" */
  readonly process: string;
};

type OpenFiles = { readonly list: readonly OpenFile[]; readonly hidden: number };

function readOpenFiles(roots: HostRoots): OpenFiles {
  const list: OpenFile[] = [];
  let hidden = 0;
  for (const pid of names(roots.proc).filter((name) => /^\d+$/.test(name))) {
    const open = names(roots.proc, pid, 'fd');
    // A process always has a memory map; one that shows no files at all hides them from us or is a kernel thread.
    if (open.length === 0 && (readText(roots.proc, pid, 'cmdline') ?? '') !== '') hidden += 1;
    for (const fd of open) {
      const file = deviceFile(roots, pid, fd);
      if (file !== undefined) list.push(file);
    }
  }
  return { list, hidden };
}

function deviceFile(roots: HostRoots, pid: string, fd: string): OpenFile | undefined {
  const link = join(roots.proc, pid, 'fd', fd);
  let path: string;
  try {
    path = readlinkSync(link);
  } catch {
    return undefined;
  }
  if (!path.startsWith(`${roots.dev}/`)) return undefined;
  const process = `${readText(roots.proc, pid, 'comm') ?? 'process'} (${pid})`;
  return { path, device: deviceInSysfs(roots, link), process };
}

/** The sysfs folder of the device file behind `link`; for VFIO device files, of the PCI device. */
function deviceInSysfs(roots: HostRoots, link: string): string | undefined {
  try {
    const info = statSync(link);
    const kind = info.isBlockDevice() ? 'block' : 'char';
    if (kind === 'char' && !info.isCharacterDevice()) return undefined;
    const [major, minor] = [majorOf(info.rdev), minorOf(info.rdev)];
    return realPath(roots.sys, 'dev', kind, `${major}:${minor}`);
  } catch {
    return undefined;
  }
}

/** Linux packs device numbers as MMMmmmmm with the upper bits of both further up. */
function majorOf(rdev: number): number {
  return (Math.floor(rdev / 2 ** 8) & 0xfff) | (Math.floor(rdev / 2 ** 32) & ~0xfff);
}

function minorOf(rdev: number): number {
  return (rdev & 0xff) | (Math.floor(rdev / 2 ** 12) & ~0xff & 0xffffff);
}
