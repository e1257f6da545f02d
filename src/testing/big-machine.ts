/**
 * Machines of any size for benchmarks and tests of scale: domains full of root ports, switches, cards with several
 * functions, bridges to conventional PCI; with and without ACS, always the same for one size.
 */
import { Machine, RECORDED_IOMMU } from '../machine/machine.ts';
import { ACS_BITS, PORT_TYPES } from '../machine/pci/capabilities.ts';
import { buildConfig, type ConfigDescription } from '../machine/pci/config-builder.ts';
import type { PciDevice } from '../machine/pci/device.ts';

const ISOLATION = ACS_BITS.SV | ACS_BITS.RR | ACS_BITS.CR | ACS_BITS.UF;
const LAST_BUS = 0xff;
const PORTS_PER_DOMAIN = 120;

class Builder {
  readonly machine: Machine;
  readonly #wanted: number;
  #bus = 0;

  constructor(machine: Machine, wanted: number) {
    this.machine = machine;
    this.#wanted = wanted;
  }

  get full(): boolean {
    return this.machine.deviceCount >= this.#wanted;
  }

  #add(
    place: { domain: number; bus: number; devfn: number; parent?: PciDevice | undefined },
    config: Partial<ConfigDescription>,
    driver?: string,
  ): PciDevice | undefined {
    if (this.full) return undefined;
    const { domain, bus, devfn, parent } = place;
    return this.machine.add({
      address: { domain, bus, devfn },
      parent: parent?.address,
      config: buildConfig({ vendor: 0x1b36, device: 0x0005, classCode: 0x020000, ...config }),
      facts: { driver },
    });
  }

  /** A root port, every second without ACS, with one of three things behind it. */
  #port(domain: number, index: number): void {
    const secondary = (this.#bus += 1);
    const acs = index % 2 === 0 ? { offered: ISOLATION, control: ISOLATION } : undefined;
    const bridge = { primary: 0, secondary, subordinate: secondary };
    const port = this.#add(
      { domain, bus: 0, devfn: index },
      { portType: PORT_TYPES['root-port'], classCode: 0x060400, multifunction: true, bridge, acs },
      'pcieport',
    );
    if (port === undefined) return;
    if (index % 3 === 2) this.#conventional(domain, port);
    else this.#card(domain, port, index % 3 === 0 ? 1 : 4);
  }

  #card(domain: number, port: PciDevice, functions: number): void {
    const bus = port.subordinate?.number ?? 0;
    for (let devfn = 0; devfn < functions; devfn += 1) {
      const multifunction = functions > 1;
      this.#add(
        { domain, bus, devfn, parent: port },
        { portType: PORT_TYPES.endpoint, multifunction },
        devfn === 0 ? 'nvme' : undefined,
      );
    }
  }

  #conventional(domain: number, port: PciDevice): void {
    const bus = port.subordinate?.number ?? 0;
    const secondary = (this.#bus += 1);
    const config = {
      portType: PORT_TYPES['pcie-pci-bridge'],
      classCode: 0x060400,
      bridge: { primary: bus, secondary, subordinate: secondary },
    };
    const bridge = this.#add({ domain, bus, devfn: 0, parent: port }, config);
    if (bridge === undefined) return;
    for (let slot = 1; slot <= 8; slot += 1) {
      this.#add({ domain, bus: secondary, devfn: slot << 3, parent: bridge }, {});
    }
  }

  domain(domain: number): void {
    this.#bus = 0;
    for (
      let index = 0;
      index < PORTS_PER_DOMAIN && this.#bus < LAST_BUS - 1 && !this.full;
      index += 1
    ) {
      this.#port(domain, index);
    }
  }
}

/** A machine with exactly `count` PCI devices. */
export function bigMachine(count: number): Machine {
  const machine = new Machine({
    kind: 'pc',
    name: `${count} devices`,
    source: 'file',
    acs: 'as-is',
    iommus: [RECORDED_IOMMU],
  });
  const builder = new Builder(machine, count);
  for (let domain = 0; !builder.full; domain += 1) builder.domain(domain);
  return machine;
}
