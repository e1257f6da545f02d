/**
 * The things that a checked world is made of, whatever state it is in: devices, groups, domains, users and their containers,
 * drivers. What comes and goes is in slots.ts.
 */
import { Known } from '../base/transfer.ts';
import { Faults } from '../base/faults.ts';
import type { ReservedRegion } from '../iommu/domain.ts';
import { IommuDevice, type Domain, type IommuOps } from '../iommu/domain.ts';
import { GroupTable, type DmaOwner, type IommuGroup } from '../iommu/group.ts';
import { BareDomain } from '../iommu/hardware/bare.ts';
import { PROFILES } from '../iommu/profile.ts';
import { newBusDevice, type BusDevice, type Driver } from '../kernel/driver-state.ts';
import type { DeviceIdentity } from '../machine/drivers.ts';
import { PhysicalMemory } from '../machine/memory.ts';
import { Accounting } from '../pinning/accounting.ts';
import { VFIO_TYPE1v2_IOMMU } from '../uapi/vfio.ts';
import { register, unregister } from '../vfio/registration.ts';
import {
  newContainer,
  DEFAULT_PARAMETERS,
  newTable,
  type Container,
  type VfioDeviceOps,
  type VfioGroup,
  type VfioTable,
} from '../vfio/state.ts';
import { Type1, type SharedDomain } from '../vfio/type1/type1.ts';
import { DOMAIN, domainOf, DOMAINS_PER_USER, item, TYPE1 } from './cells.ts';
import { CheckedIommufd } from './iommufd.ts';
import type { CheckDevice, CheckMachine } from './model.ts';
import type { WorldOptions } from './world.ts';

/** A domain that knows its number in rows. */
class NumberedDomain extends BareDomain {
  readonly number: number;

  constructor(
    kind: 'blocked' | 'dma' | 'unmanaged',
    name: string,
    number: number,
    owner?: IommuOps,
  ) {
    super({ kind, name }, {}, owner);
    this.number = number;
  }
}

function numberOf(domain: Domain): number {
  if (domain instanceof NumberedDomain) return domain.number;
  throw new Error(`${domain.name} is a domain of no user`);
}

/** What a kernel driver knows by its ids; vfio-pci and pci-stub take a device by driver_override alone. */
const IDENTITY: DeviceIdentity = { vendor: 1, device: 1, subvendor: 0, subdevice: 0, class: 0 };

export const VFIO_OPS: VfioDeviceOps = { pasids: true };

// Programs map nothing here.
const TABLE = {
  parameters: { ...DEFAULT_PARAMETERS, entryLimit: 0 },
  pinning: {
    physical: new PhysicalMemory(),
    accounting: new Accounting(),
    faults: new Faults(),
  },
  iommuGroups: undefined,
};

const DIRECT: ReservedRegion = { start: 0n, last: 0xfffn, type: 'direct' };

export class Inventory {
  readonly machine: CheckMachine;
  readonly groups: readonly IommuGroup[];
  readonly devices: readonly IommuDevice[];
  readonly users: readonly CheckedIommufd[];
  readonly containers: readonly Container[];
  readonly table: VfioTable = newTable(TABLE);
  /** by device */
  readonly kernelDrivers: readonly Driver[];
  readonly vfioPci: Driver;
  readonly pciStub: Driver;
  /** whose container gets the domain that is allocated next */
  acting = 0;
  readonly #defaults: readonly NumberedDomain[];
  readonly #blocked = new NumberedDomain('blocked', 'the blocking domain', DOMAIN.blocked);
  readonly #userDomains: readonly NumberedDomain[];

  constructor(machine: CheckMachine, { profile, bounds, rulesOff }: WorldOptions) {
    this.machine = machine;
    const ops = this.#ops();
    const names = Array.from({ length: bounds.users }, (_, u) => `user ${'XYZW'[u] ?? u}`);
    const count = 1 + Math.max(...machine.devices.map(({ group }) => group));
    const groups = new GroupTable({ profile: PROFILES[profile], rulesOff });
    this.groups = Array.from({ length: count }, () => groups.alloc());
    this.#defaults = this.groups.map(
      () => new NumberedDomain('dma', 'the default domain', DOMAIN.default, ops),
    );
    this.#userDomains = names.flatMap((name, u) =>
      Array.from({ length: DOMAINS_PER_USER }, (_, which) => {
        const what = ['IOAS 1', 'IOAS 2', 'container'][which] ?? '';
        const number = domainOf(u, which);
        return new NumberedDomain('unmanaged', `the ${what} of ${name}`, number, ops);
      }),
    );
    this.devices = machine.devices.map((spec) => makeDevice(spec, ops));
    this.users = names.map(
      (name, u) => new CheckedIommufd(name, this.#domainsOf(u).slice(0, TYPE1), this.devices),
    );
    this.containers = names.map(() => newContainer());
    this.vfioPci = this.#vfioDriver();
    this.pciStub = plainDriver('pci-stub', true);
    this.kernelDrivers = machine.devices.map(({ kernelDriver }) =>
      plainDriver(kernelDriver, false),
    );
  }

  // Default domains come and go with the group's first and last member, but stay the same objects.
  #ops(): IommuOps {
    return {
      name: 'checked',
      capable: () => true,
      blockedDomain: this.#blocked,
      allocPaging: (device, { kind }) =>
        kind === 'unmanaged'
          ? item(this.#domainsOf(this.acting), TYPE1)
          : item(this.#defaults, this.groupIndex(this.devices.indexOf(device))),
    };
  }

  #domainsOf(user: number): NumberedDomain[] {
    return this.#userDomains.slice(user * DOMAINS_PER_USER, (user + 1) * DOMAINS_PER_USER);
  }

  #vfioDriver(): Driver {
    return {
      ...plainDriver('vfio-pci', true),
      probe: ({ iommu }) => {
        register(this.table, iommu, VFIO_OPS);
      },
      remove: ({ name, iommu }, done) => {
        const device = this.table.devices.find((each) => each?.iommu === iommu);
        if (device === undefined) throw new Error(`${name} was never registered with VFIO`);
        unregister(device, done);
      },
    };
  }

  groupIndex(device: number): number {
    return this.machine.devices[device]?.group ?? 0;
  }

  /** A device as it appears on the bus. */
  busDevice(device: number): BusDevice {
    const iommu = item(this.devices, device);
    return newBusDevice(iommu.name, IDENTITY, iommu);
  }

  /** The domains that devices of a group can be on. */
  domains(group: number): Known<Domain> {
    const core = [item(this.#defaults, group), this.#blocked];
    return new Known<Domain>([...core, ...this.#userDomains], { holds: 'domain' });
  }

  defaultDomain(group: number): Domain {
    return item(this.#defaults, group);
  }

  get blockingDomain(): Domain {
    return this.#blocked;
  }

  /** The number of a domain in rows; 0 for none. */
  domainNumber(domain: Domain | undefined): number {
    return domain === undefined ? DOMAIN.none : numberOf(domain);
  }

  /** An index of users; -1 for an owner that is a container. */
  userOf(owner: DmaOwner): number {
    return this.users.findIndex((user) => user === owner);
  }

  /** A container keeps its number when users exchange theirs; each group has one. */
  owners(container: VfioGroup): Known<DmaOwner> {
    return new Known<DmaOwner>([...this.users, container], { holds: 'user', others: true });
  }

  /** The SET_IOMMU of a user's container. */
  type1(user: number): { readonly type1: Type1; readonly shared: SharedDomain } {
    const domain = item(this.#domainsOf(user), TYPE1);
    const [first] = this.devices;
    if (first === undefined) throw new Error('a world without devices');
    const shared = { domain, ops: first.ops, coherent: true, groups: [] };
    return { type1: new Type1(VFIO_TYPE1v2_IOMMU, TABLE), shared };
  }
}

function plainDriver(name: string, managedDma: boolean): Driver {
  return {
    name,
    managedDma,
    ids: managedDma ? [] : [{ vendor: IDENTITY.vendor, device: IDENTITY.device }],
    probe: () => undefined,
    remove: (_device, done) => {
      done();
    },
  };
}

function makeDevice(spec: CheckDevice, ops: IommuOps): IommuDevice {
  return new IommuDevice({
    name: spec.name,
    ops,
    maxPasids: spec.pasid ? 2 : 0,
    atsSupported: spec.ats,
    requesterIds: spec.requesterIds,
    sourceValidated: spec.sourceValidated,
    reservedRegions: spec.direct ? [DIRECT] : [],
  });
}
