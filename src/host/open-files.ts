/**
 * Device files that processes have open. A file is known again by its device number, wherever it was opened and whatever it is
 * called there; a VFIO device that came out of a group has no path and says in its fdinfo what it is (Linux 7.3).
 *
 * Files of other users' processes can only be seen by root; how many processes hide theirs is counted.
 */
import { readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { names, readText, realPath, type HostRoots } from './files.ts';

export type OpenFile = {
  /** as the process opened it; undefined for a VFIO device that came out of a group */
  readonly path: string | undefined;
  /** where the device is in sysfs; undefined for one that is not there */
  readonly device: string | undefined;
  /** "qemu-system-x86 (4711)" */
  readonly process: string;
  readonly vfio: boolean;
};

export type OpenFiles = {
  readonly list: readonly OpenFile[];
  /** processes whose files could not be read */
  readonly hidden: number;
};

const VFIO_DEVICE = 'anon_inode:[vfio-device]';

export function readOpenFiles(roots: HostRoots): OpenFiles {
  const list: OpenFile[] = [];
  let hidden = 0;
  for (const pid of names(roots.proc).filter((name) => /^\d+$/.test(name))) {
    const open = names(roots.proc, pid, 'fd');
    // A process always has a memory map; one that shows no files at all hides them or is a kernel thread.
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
  const path = target(link);
  if (path === undefined) return undefined;
  const process = `${readText(roots.proc, pid, 'comm') ?? 'process'} (${pid})`;
  if (path === VFIO_DEVICE) {
    const info = readText(roots.proc, pid, 'fdinfo', fd) ?? '';
    const at = /^vfio-device-syspath:\s*\/sys\/(\S+)$/m.exec(info)?.[1];
    const device = at === undefined ? undefined : realPath(roots.sys, at);
    return { path: undefined, device, process, vfio: true };
  }
  // In a container or a chroot it may be below another root. Other files are left alone: looking at them may hang.
  if (!path.includes('/dev/')) return undefined;
  const vfio = path.includes('/dev/vfio/');
  return { path, device: deviceInSysfs(roots, link), process, vfio };
}

function target(link: string): string | undefined {
  try {
    return readlinkSync(link);
  } catch {
    return undefined;
  }
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
