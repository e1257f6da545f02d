/**
 * An IOMMU without page tables: its domains are names, attaching is a fact and nothing more. What the ownership checker and
 * tests put devices behind, since ownership never asks what a domain maps. `beforeCall` sees every call of the driver and may throw
 * an Errno in its place: that is how failures are injected.
 */
import { Domain, type DomainKind, type IommuDevice, type IommuOps } from '../domain.ts';

export type BareIommuOptions = {
  /** Called before each driver call, with a name such as "attach 0000:01:00.0 to blocking domain". */
  readonly beforeCall?: (call: string) => void;
  /** Every domain takes PASIDs. Default true. */
  readonly pasids?: boolean;
};

export class BareDomain extends Domain {
  override kind: DomainKind;
  override readonly name: string;
  override readonly setDevicePasid?: (device: IommuDevice, pasid: number) => void;
  readonly #before: (call: string) => void;

  constructor(
    identity: { readonly kind: DomainKind; readonly name: string },
    options: BareIommuOptions,
    owner?: IommuOps,
  ) {
    super(owner);
    this.kind = identity.kind;
    this.name = identity.name;
    const before = options.beforeCall ?? ((): void => undefined);
    this.#before = before;
    if (options.pasids ?? true) {
      this.setDevicePasid = (device, pasid): void => {
        before(`attach ${device.name} PASID ${pasid} to ${this.name}`);
      };
    }
  }

  override attachDevice(device: IommuDevice): void {
    this.#before(`attach ${device.name} to ${this.name}`);
  }
}

/** One IOMMU of this kind; every call of this function makes another one. */
export function bareIommu(options: BareIommuOptions = {}): IommuOps {
  let made = 0;
  const ops: IommuOps = {
    name: 'bare',
    capable: (_device, capability) => capability === 'cache-coherency',
    blockedDomain: new BareDomain({ kind: 'blocked', name: 'the blocking domain' }, options),
    identityDomain: new BareDomain({ kind: 'identity', name: 'the identity domain' }, options),
    probeDevice: (device) => options.beforeCall?.(`probe ${device.name}`),
    allocPaging: (_device, { kind }) => {
      options.beforeCall?.(`allocate a ${kind} domain`);
      return new BareDomain({ kind, name: `${kind} domain ${++made}` }, options, ops);
    },
  };
  return ops;
}
