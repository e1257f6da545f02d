/**
 * Block devices and what uses them: mounts in every mount name space, swap, and what is stacked on them (LVM, RAID,
 * encryption, loop devices, several disks under one btrfs).
 *
 * A process of another name space shows its mounts in its own mountinfo; one look for each name space is enough.
 */
import { join } from 'node:path';
import { linkName, names, readText, realPath, type HostRoots } from './files.ts';
import type { Holder } from './holders.ts';

type BlockDevice = {
  readonly name: string;
  readonly path: string | undefined;
  /** block devices that are built on this one */
  readonly uppers: readonly string[];
  readonly mounts: readonly string[];
  readonly swap: boolean;
};

export class BlockDevices {
  readonly #roots: HostRoots;
  readonly #list: readonly BlockDevice[];

  constructor(roots: HostRoots) {
    this.#roots = roots;
    this.#list = readBlocks(roots);
  }

  /** Uses of every block device that belongs to the device at the sysfs path `at`. */
  usesBelow(at: string): Holder[] {
    const seen = new Set<string>();
    return this.#list
      .filter((block) => this.#belongsTo(block, at))
      .flatMap((block) => this.#usesOf(block, seen));
  }

  // A namespace of an NVMe subsystem with several ways to it hangs below the subsystem, not below a controller.
  #belongsTo({ path }: BlockDevice, at: string): boolean {
    if (path === undefined) return false;
    if (path.startsWith(`${at}/`)) return true;
    const subsystem = /\/nvme-subsystem\/(nvme-subsys\d+)\//.exec(path)?.[1];
    if (subsystem === undefined) return false;
    const folder = join(this.#roots.sys, 'class/nvme-subsystem', subsystem);
    return names(folder)
      .filter((name) => /^nvme\d+$/.test(name))
      .some((name) => realPath(folder, name)?.startsWith(`${at}/`));
  }

  #usesOf(block: BlockDevice, seen: Set<string>): Holder[] {
    if (seen.has(block.name)) return [];
    seen.add(block.name);
    const stacked = block.uppers.flatMap((name) => {
      const upper = this.#list.find((candidate) => candidate.name === name);
      const uses = upper === undefined ? [] : this.#usesOf(upper, seen);
      const sentence = `/dev/${block.name} is part of /dev/${name}`;
      return [
        { kind: 'block-holder', sentence, vital: uses.some(({ vital }) => vital) } as const,
        ...uses,
      ];
    });
    const mounts = block.mounts.map((where) => ({
      kind: 'mount' as const,
      sentence: `/dev/${block.name} is mounted at ${where}`,
      vital: true,
    }));
    const swap = block.swap
      ? [{ kind: 'swap' as const, sentence: `/dev/${block.name} is swap space`, vital: true }]
      : [];
    return [...mounts, ...swap, ...stacked];
  }
}

function readBlocks(roots: HostRoots): BlockDevice[] {
  const mounts = readMounts(roots);
  const loops = loopBackings(roots);
  const btrfs = btrfsMembers(roots);
  const swaps = new Set(
    (readText(roots.proc, 'swaps') ?? '')
      .split('\n')
      .slice(1)
      .map((line) => realPath(unescaped(line.split(/\s/)[0] ?? '')) ?? ''),
  );
  return names(roots.sys, 'class/block').map((name) => {
    const number = readText(roots.sys, 'class/block', name, 'dev') ?? '';
    const file = join(roots.dev, name);
    const family = btrfs.find((members) => members.includes(name)) ?? [name];
    const where = family.flatMap((member) => mounts.get(join(roots.dev, member)) ?? []);
    return {
      name,
      path: realPath(roots.sys, 'class/block', name),
      uppers: [...names(roots.sys, 'class/block', name, 'holders'), ...(loops.get(file) ?? [])],
      mounts: [...new Set([...(mounts.get(number) ?? []), ...where])],
      swap: swaps.has(file),
    };
  });
}

/** Mount points by device number and by source path, with the process where they are not of this name space. */
function readMounts(roots: HostRoots): Map<string, string[]> {
  const mounts = new Map<string, string[]>();
  const add = (key: string, where: string): void => {
    const known = mounts.get(key) ?? [];
    if (!known.includes(where)) mounts.set(key, [...known, where]);
  };
  const seen = new Set<string>();
  const visit = (pid: string, owner: string | undefined): void => {
    const text = readText(roots.proc, pid, 'mountinfo') ?? '';
    const space = linkName(roots.proc, pid, 'ns/mnt') ?? text;
    if (seen.has(space)) return;
    seen.add(space);
    for (const line of text.split('\n')) {
      const [left = '', right = ''] = line.split(' - ');
      const [, , number = '', , point = ''] = left.split(' ');
      const source = unescaped(right.split(' ')[1] ?? '');
      const where =
        owner === undefined
          ? unescaped(point)
          : `${unescaped(point)} in the mount name space of ${owner}`;
      add(number, where);
      if (source.startsWith('/')) add(realPath(source) ?? source, where);
    }
  };
  visit('self', undefined);
  const own = new Set([...mounts.values()].flat());
  for (const pid of names(roots.proc).filter((name) => /^\d+$/.test(name))) {
    visit(pid, `${readText(roots.proc, pid, 'comm') ?? 'process'} (${pid})`);
  }
  return withoutCopies(mounts, own);
}

/** A name space mostly holds copies of mounts that this one has: one of them says enough. */
function withoutCopies(
  mounts: ReadonlyMap<string, string[]>,
  own: ReadonlySet<string>,
): Map<string, string[]> {
  return new Map(
    [...mounts].map(([key, places]) => {
      const here = places.filter((place) => own.has(place));
      return [key, here.length > 0 ? here : places.slice(0, 1)];
    }),
  );
}

/** Loop devices by the block device that they read. */
function loopBackings(roots: HostRoots): Map<string, string[]> {
  const backings = new Map<string, string[]>();
  for (const name of names(roots.sys, 'class/block').filter((each) => each.startsWith('loop'))) {
    const file = readText(roots.sys, 'class/block', name, 'loop/backing_file');
    if (file !== undefined) backings.set(file, [...(backings.get(file) ?? []), name]);
  }
  return backings;
}

/** Names of the devices of each btrfs: only one of them is named where it is mounted. */
function btrfsMembers(roots: HostRoots): string[][] {
  return names(roots.sys, 'fs/btrfs').map((id) => names(roots.sys, 'fs/btrfs', id, 'devices'));
}

/** mountinfo and swaps write blanks as \040. */
function unescaped(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_match, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
