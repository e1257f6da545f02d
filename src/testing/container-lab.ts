/**
 * ContainerLab: a machine with devices that each have a group of their own, and a program that puts them into a container. Calls
 * answer "ok" or the errno; `reason` is what a person would read.
 */
import assert from 'node:assert/strict';
import { ClientFile, InProcessClient, type InProcessClientOptions } from '../client/in-process.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import { pciSystem, type PciOptions, type PciSystemParts } from '../kernel/system.ts';
import * as uapi from '../uapi/vfio.ts';
import { ContainerFile } from '../vfio/container-file.ts';
import { Type1 } from '../vfio/type1/type1.ts';
import { attempt } from './attempt.ts';

/** Requester IDs of the devices: 0000:01:00.0 and so on. */
export const DEVICES = ['0000:01:00.0', '0000:02:00.0', '0000:03:00.0'] as const;

/** The second device has this region, which nothing can be mapped to. */
export const RESERVED = { first: 0x4000_0000n, last: 0x4000_ffffn } as const;

const MACHINE = `kind: pc
name: containers
devices:
${DEVICES.map(
  (address, i) => `  - address: 0000:00:0${i + 1}.0
    type: root-port
    secondary: 0000:0${i + 1}
  - address: ${address}
    ids: 1234:11e8
    driver: vfio-pci${i === 1 ? '\n    reserved: [{ start: 0x40000000, last: 0x4000ffff }]' : ''}`,
).join('\n')}
`;

export class ContainerLab {
  readonly system: PciSystemParts;
  readonly client: InProcessClient;
  readonly container = new ContainerFile();
  readonly file: ClientFile;
  /** why the last call was refused */
  reason = '';
  readonly #groups: ClientFile[] = [];

  constructor(
    options: { readonly client?: InProcessClientOptions; readonly machine?: PciOptions } = {},
  ) {
    this.system = pciSystem(loadMachine(MACHINE, 'containers'), options.machine);
    this.client = new InProcessClient(options.client);
    this.file = new ClientFile(this.client, this.client.install(this.container));
  }

  iommu(index: number): IommuDevice {
    const device = this.system.pci.core.device(DEVICES[index] ?? '');
    assert.ok(device);
    return device.iommu;
  }

  /** Puts the group of a device into the container; its file is opened once. @returns "ok" or the errno */
  join(index: number): string {
    const group = (this.#groups[index] ??= this.#openGroup(index));
    return this.try(() => group.ioctl('VFIO_GROUP_SET_CONTAINER', { container: this.file.fd }));
  }

  #openGroup(index: number): ClientFile {
    const group = this.system.vfio.group(String(this.iommu(index).requireGroup().id));
    assert.ok(group);
    const fd = this.client.install(this.system.vfio.openGroup(group));
    return new ClientFile(this.client, fd);
  }

  leave(index: number): string {
    return this.try(() => this.#groups[index]?.ioctl('VFIO_GROUP_UNSET_CONTAINER'));
  }

  setIommu(type: number = uapi.VFIO_TYPE1v2_IOMMU): string {
    return this.try(() => this.file.ioctl('VFIO_SET_IOMMU', { extension: BigInt(type) }));
  }

  /** A container with the first device. */
  static ready(
    type: number = uapi.VFIO_TYPE1v2_IOMMU,
    options: ConstructorParameters<typeof ContainerLab>[0] = {},
  ): ContainerLab {
    const lab = new ContainerLab(options);
    assert.equal(lab.join(0), 'ok');
    assert.equal(lab.setIommu(type), 'ok');
    return lab;
  }

  get type1(): Type1 {
    const { iommu } = this.container.container;
    assert.ok(iommu instanceof Type1);
    return iommu;
  }

  map(
    iova: bigint,
    pages: number,
    given: { readonly vaddr?: bigint; readonly flags?: number } = {},
  ): string {
    const { vaddr = this.client.allocate(Math.min(pages, 64)), flags = 3 } = given;
    const size = BigInt(pages) * 4096n;
    return this.try(() => this.file.ioctl('VFIO_IOMMU_MAP_DMA', { vaddr, iova, size, flags }));
  }

  /** @returns how many bytes were unmapped, or the errno */
  unmap(iova: bigint, size: bigint, flags = 0): bigint | string {
    let unmapped = 0n;
    const outcome = this.try(() => {
      unmapped = this.file.ioctl('VFIO_IOMMU_UNMAP_DMA', { argsz: 24, iova, size, flags }).size;
    });
    return outcome === 'ok' ? unmapped : outcome;
  }

  /** Ranges that the domain of a device shows: first and last IOVA. */
  shown(index: number): [bigint, bigint][] {
    const attached = this.iommu(index).attached;
    const domain = this.type1.pagingDomains.find((each) => each === attached);
    assert.ok(domain, `${DEVICES[index] ?? ''} is on no domain of the container`);
    return [...domain.table.spans()].map((span) => [
      BigInt(span.firstPage) * 4096n,
      BigInt(span.lastPage) * 4096n + BigInt(span.lastOffset),
    ]);
  }

  try(action: () => unknown): string {
    const { answer, reason } = attempt(action);
    this.reason = reason;
    return answer;
  }

  /** The program exits; nothing of it must be left. */
  exit(): void {
    this.client.exit();
    assert.deepEqual(this.system.iommufd.leaks(), []);
    assert.equal(this.client.memory.lockedPages, 0);
  }
}
