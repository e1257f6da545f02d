/**
 * /dev/iommu for programs that use it, real or not: typed calls on a real file descriptor. Nothing here knows the engine; the
 * same program runs on a Linux that has the device and under `uiommu run`.
 *
 * Addresses and lengths are in bytes; IOVAs are bigint.
 */
import { errnoName } from '../base/errno.ts';
import { UiommuError } from '../base/error.ts';
import type { Fields, Static, Struct } from '../base/struct.ts';
import { Arena, type Block } from '../os/arena.ts';
import { closeFile, openPath } from '../os/files.ts';
import { sys } from '../os/libc.ts';
import { NR, O_RDWR } from '../os/numbers.ts';
import { IOMMUFD_IOCTLS, type IoctlSpec } from '../uapi/ioctls.ts';
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
} from '../uapi/iommufd.ts';

/** A call that the kernel refused. */
export class CallError extends UiommuError {
  override readonly name = 'CallError';
  /** "EINVAL", or the number where it has no name */
  readonly code: string;

  constructor(call: string, errno: number) {
    const code = errnoName(errno) ?? `errno ${errno}`;
    super(`${call}: ${code}`);
    this.code = code;
  }
}

const PAGE_SIZE = 4096;

/** Memory that devices may be given: whole pages at an address that does not change. */
export function allocatePages(count: number): Block {
  return new Arena(count * PAGE_SIZE).take(count * PAGE_SIZE);
}

/** What a device may do with mapped memory. */
export type MapAccess = { readonly read?: boolean; readonly write?: boolean };

export type MapOptions = MapAccess & {
  /** where; the kernel chooses if absent */
  readonly iova?: bigint;
};

function mapFlags({ read = true, write = true, iova }: MapOptions): number {
  return (
    (read ? IOMMU_IOAS_MAP_READABLE : 0) |
    (write ? IOMMU_IOAS_MAP_WRITEABLE : 0) |
    (iova === undefined ? 0 : IOMMU_IOAS_MAP_FIXED_IOVA)
  );
}

/** One open of /dev/iommu. */
export class Iommufd {
  readonly fd: number;
  readonly #argument = new Arena(PAGE_SIZE).take(PAGE_SIZE);

  /** @throws CallError ENOENT where there is no such device, EACCES where this user may not open it */
  constructor(path = '/dev/iommu') {
    this.fd = openPath(path, O_RDWR);
    if (this.fd < 0) throw new CallError(`open ${path}`, -this.fd);
  }

  /**
   * One ioctl.
   * @param given fields that are not 0
   * @returns the struct as it came back
   * @throws CallError
   */
  call<F extends Fields>(spec: IoctlSpec<F>, given: Partial<Static<Struct<F>>>): Static<Struct<F>> {
    const { struct, number, name } = spec;
    const { bytes, address } = this.#argument;
    bytes.fill(0, 0, struct.size);
    struct.encode(struct.make(given), bytes);
    const result = sys(NR.ioctl, this.fd, number, address);
    if (result < 0) throw new CallError(name, -result);
    return struct.decode(bytes.slice(0, struct.size));
  }

  /** Makes an I/O address space. */
  allocIoas(): Ioas {
    return new Ioas(this, this.call(IOMMUFD_IOCTLS.IOMMU_IOAS_ALLOC, {}).out_ioas_id);
  }

  /** Destroys an object by its id. */
  destroy(id: number): void {
    this.call(IOMMUFD_IOCTLS.IOMMU_DESTROY, { id });
  }

  close(): void {
    closeFile(this.fd);
  }
}

/** An I/O address space: what devices that are attached to it see as memory. */
export class Ioas {
  readonly iommufd: Iommufd;
  readonly id: number;

  constructor(iommufd: Iommufd, id: number) {
    this.iommufd = iommufd;
    this.id = id;
  }

  /**
   * Shows memory of this process to devices.
   * @returns the IOVA at which they find it
   */
  map({ address, length }: { address: number; length: number }, options: MapOptions = {}): bigint {
    const { iova } = this.iommufd.call(IOMMUFD_IOCTLS.IOMMU_IOAS_MAP, {
      flags: mapFlags(options),
      ioas_id: this.id,
      user_va: BigInt(address),
      length: BigInt(length),
      iova: options.iova ?? 0n,
    });
    return iova;
  }

  /** Shows here what another address space shows: the same pages, without a second pin. */
  copyFrom(
    source: Ioas,
    { iova: from, length }: { iova: bigint; length: number },
    options: MapOptions = {},
  ): bigint {
    const answer = this.iommufd.call(IOMMUFD_IOCTLS.IOMMU_IOAS_COPY, {
      flags: mapFlags(options),
      dst_ioas_id: this.id,
      src_ioas_id: source.id,
      length: BigInt(length),
      dst_iova: options.iova ?? 0n,
      src_iova: from,
    });
    return answer.dst_iova;
  }

  /**
   * Takes whole mappings away.
   * @returns how many bytes were mapped there
   */
  unmap({ iova, length }: { iova: bigint; length: bigint }): bigint {
    return this.iommufd.call(IOMMUFD_IOCTLS.IOMMU_IOAS_UNMAP, { ioas_id: this.id, iova, length })
      .length;
  }

  destroy(): void {
    this.iommufd.destroy(this.id);
  }
}
