/**
 * The /dev/iommu that the checker's users have: contexts that own groups, and IOASes that are names. Who is attached to what
 * is IOMMUFD's own (iommufd/attachment.ts) over these.
 *
 * Left out: memory, objects and their life. An IOAS has one automatic HWPT, since all devices are behind one kind of IOMMU; it
 * and its domain are always there.
 */
import { Errno } from '../base/errno.ts';
import type { Domain, IommuDevice } from '../iommu/domain.ts';
import type { AttachHandle, IommuGroup, Subgroup } from '../iommu/group.ts';
import { claimDevice, releaseDeviceClaim } from '../iommu/ownership.ts';
import {
  attachTo,
  detachFrom,
  replaceBy,
  type Attachment,
  type AttachmentSide,
} from '../iommufd/attachment.ts';
import type { IommufdBinding, IommufdContext } from '../vfio/iommufd.ts';

/** The automatic HWPT of an IOAS, under the ID of the IOAS. */
export class CheckedHwpt {
  readonly id: number;
  readonly domain: Domain;

  constructor(id: number, domain: Domain) {
    this.id = id;
    this.domain = domain;
  }

  toString(): string {
    return this.domain.name;
  }
}

type Attachments = Map<number, Attachment<CheckedBinding, CheckedHwpt>>;

const HANDLE: AttachHandle = { domain: undefined };

const ignore = (): void => undefined;

/** An attachment takes nothing but its domain. */
const SIDE: AttachmentSide<CheckedBinding, CheckedHwpt> = {
  admit: ignore,
  dismiss: ignore,
  admitAll: ignore,
  dismissAll: ignore,
  handle: () => HANDLE,
  forgotten: ignore,
};

export class CheckedIommufd implements IommufdContext {
  readonly name: string;
  /** the first is the one for VFIO containers */
  readonly hwpts: readonly CheckedHwpt[];
  readonly bindings: readonly CheckedBinding[];
  #attachments = new Map<Subgroup, Attachments>();

  /**
   * @param name for people: "user X"
   * @param domains of its IOASes
   * @param devices that it may bind
   */
  constructor(name: string, domains: readonly Domain[], devices: readonly IommuDevice[]) {
    this.name = name;
    this.hwpts = domains.map((domain, i) => new CheckedHwpt(i + 1, domain));
    this.bindings = devices.map((device, i) => new CheckedBinding(i + 1, this, device));
  }

  bind(device: IommuDevice): IommufdBinding {
    const binding = this.bindings.find(({ iommu }) => iommu === device);
    if (binding === undefined) throw new Error(`${device.name} is none of the world's`);
    claimDevice(device, this);
    return binding;
  }

  createCompatIoas(): void {
    // It is there from the beginning.
  }

  hasCompatIoas(): boolean {
    return true;
  }

  setNoIommuMode(): void {
    throw new Error(`${this.name} is given no device without IOMMU`);
  }

  compatIoasId(): number {
    return 1;
  }

  hasGroup(group: IommuGroup): boolean {
    return group.owner === this;
  }

  get(): this {
    return this;
  }

  put(): void {
    // Contexts live as long as the world.
  }

  hwpt(id: number): CheckedHwpt {
    const found = this.hwpts[id - 1];
    if (found === undefined) throw new Errno('ENOENT', `${this.name} has no object ${id}`);
    return found;
  }

  /** What the members of a subgroup are attached to through this context, by PASID. */
  attachments(subgroup: Subgroup): Attachments {
    const found = this.#attachments.get(subgroup);
    if (found !== undefined) return found;
    const table: Attachments = new Map();
    this.#attachments.set(subgroup, table);
    return table;
  }

  /**
   * Before loading. A new map, because one that is cleared again and again keeps the memory that it had before from being
   * collected soon: V8 links a map's earlier memory to its later one.
   */
  forgetAttachments(): void {
    if (this.#attachments.size > 0) this.#attachments = new Map();
  }
}

export class CheckedBinding implements IommufdBinding {
  readonly id: number;
  readonly context: CheckedIommufd;
  readonly iommu: IommuDevice;

  constructor(id: number, context: CheckedIommufd, iommu: IommuDevice) {
    this.id = id;
    this.context = context;
    this.iommu = iommu;
  }

  get attachments(): Attachments {
    return this.context.attachments(this.iommu.requireGroup().subgroupOf(this.iommu));
  }

  attach(pasid: number, ptId: number): number {
    attachTo(SIDE, this, pasid, this.context.hwpt(ptId));
    return ptId;
  }

  replace(pasid: number, ptId: number): number {
    replaceBy(SIDE, this, pasid, this.context.hwpt(ptId));
    return ptId;
  }

  detach(pasid: number): void {
    detachFrom(SIDE, this, pasid);
  }

  unbind(): void {
    releaseDeviceClaim(this.iommu);
  }

  /** The IOAS that the device is attached to under a PASID. */
  attachedTo(pasid: number): CheckedHwpt | undefined {
    const attachment = this.attachments.get(pasid);
    return attachment?.devices.has(this.id) === true ? attachment.hwpt : undefined;
  }
}

/** Puts back what a device is attached to under a PASID. @param id of the HWPT */
export function placeAttachment(binding: CheckedBinding, pasid: number, id: number): void {
  const { attachments, context } = binding;
  const known = attachments.get(pasid);
  if (known !== undefined) known.devices.set(binding.id, binding);
  else {
    const hwpt = context.hwpt(id);
    attachments.set(pasid, { hwpt, devices: new Map([[binding.id, binding]]) });
  }
}
