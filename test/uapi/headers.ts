/**
 * Where the kernel's own headers are: in UIOMMU_KERNEL_HEADERS (a kernel source tree, or one with installed headers), else
 * where `npm run selftests` keeps the newest kernel source that it unpacked.
 */
import { existsSync, readdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

export type KernelHeaders = {
  /** the directory that holds linux/iommufd.h */
  readonly uapi: string;
  /** the directory that holds iommufd_test.h */
  readonly mock: string;
};

function inTree(root: string): KernelHeaders | undefined {
  const mock = join(root, 'drivers/iommu/iommufd');
  const uapi = ['usr/include', 'include/uapi']
    .map((directory) => join(root, directory))
    .find((directory) => existsSync(join(directory, 'linux/iommufd.h')));
  return uapi !== undefined && existsSync(join(mock, 'iommufd_test.h'))
    ? { uapi, mock }
    : undefined;
}

/** The kernel source tree that there is; undefined where there is none. */
export function kernelTree(): string | undefined {
  const given = process.env['UIOMMU_KERNEL_HEADERS'];
  if (given !== undefined) return inTree(given) === undefined ? undefined : given;
  const cache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'uiommu');
  if (!existsSync(cache)) return undefined;
  return readdirSync(cache)
    .filter((name) => name.startsWith('linux-source-'))
    .sort(new Intl.Collator('en', { numeric: true }).compare)
    .map((name) => join(cache, name))
    .findLast((root) => inTree(root) !== undefined);
}

/** undefined where there are none. */
export function kernelHeaders(): KernelHeaders | undefined {
  const root = kernelTree();
  return root === undefined ? undefined : inTree(root);
}
