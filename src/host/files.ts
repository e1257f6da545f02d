/**
 * Reading a host's pseudo files. Every read may fail (a file that is not there, one that only root may read): that is an
 * answer, not an error. The places of /sys, /proc, /dev and of the kernel's modules are given, so that tests read a tree of their own.
 */
import { readFileSync, readdirSync, readlinkSync, realpathSync } from 'node:fs';
import { basename, join } from 'node:path';

export type HostRoots = {
  readonly sys: string;
  readonly proc: string;
  readonly dev: string;
  readonly modules: string;
};

export const HOST_ROOTS: HostRoots = {
  sys: '/sys',
  proc: '/proc',
  dev: '/dev',
  modules: '/lib/modules',
};

/** Text without surrounding blanks; undefined if it cannot be read. */
export function readText(...path: string[]): string | undefined {
  return readBytes(...path)
    ?.toString()
    .trim();
}

export function readBytes(...path: string[]): Buffer | undefined {
  try {
    return readFileSync(join(...path));
  } catch {
    return undefined;
  }
}

/** Last component of a link's target; undefined if there is no such link. */
export function linkName(...path: string[]): string | undefined {
  const target = linkTarget(...path);
  return target === undefined ? undefined : basename(target);
}

export function linkTarget(...path: string[]): string | undefined {
  try {
    return readlinkSync(join(...path));
  } catch {
    return undefined;
  }
}

/** The path with all links followed; undefined if it leads nowhere. */
export function realPath(...path: string[]): string | undefined {
  try {
    return realpathSync(join(...path));
  } catch {
    return undefined;
  }
}

/** Names in a folder, sorted; none if it cannot be read. */
export function names(...path: string[]): string[] {
  try {
    return readdirSync(join(...path)).sort();
  } catch {
    return [];
  }
}
