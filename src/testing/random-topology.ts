/**
 * Random PCI topologies as lines of a machine file: root ports, switches, both kinds of bridges, cards of several functions,
 * with and without ACS, with requester-ID aliases. Made from a list of numbers, so that a property test can shrink it.
 */

export type Entry = { readonly address: string; readonly properties: Record<string, string> };

const LAST_BUS = 0x7f;
const MOST_DEPTH = 4;

function hex(value: number): string {
  return value.toString(16).padStart(2, '0');
}

class Generator {
  readonly entries: Entry[] = [];
  readonly #choices: readonly number[];
  #used = 0;
  #bus = 0;

  constructor(choices: readonly number[]) {
    this.#choices = choices;
  }

  /** A number below `limit`; 0 once the choices are used up. */
  #pick(limit: number): number {
    const choice = this.#choices[this.#used] ?? 0;
    this.#used += 1;
    return choice % limit;
  }

  #acs(): string {
    return ['none', 'on', '{ offers: [SV, RR, CR, UF], on: [SV, RR] }'][this.#pick(3)] ?? 'none';
  }

  #add(
    bus: number,
    devfn: readonly [slot: number, func: number],
    properties: Record<string, string>,
  ): void {
    const [slot, func] = devfn;
    this.entries.push({ address: `0000:${hex(bus)}:${hex(slot)}.${func}`, properties });
  }

  /** A bridge and what is behind it. */
  #bridge(
    bus: number,
    devfn: readonly [number, number],
    { type, behind }: { type: string; behind: (bus: number) => void },
  ): void {
    this.#bus += 1;
    const secondary = this.#bus;
    const acs = type.endsWith('-port') ? { acs: this.#acs() } : {};
    this.#add(bus, devfn, { type, secondary: `"0000:${hex(secondary)}"`, ...acs });
    behind(secondary);
  }

  /** One to three functions, sometimes using one another's requester ID. */
  #card(bus: number, slot: number, type: string): void {
    const functions = 1 + this.#pick(3);
    for (let func = 0; func < functions; func += 1) {
      const properties: Record<string, string> = { type };
      if (type !== 'pci') properties['acs'] = this.#acs();
      if (this.#pick(8) === 7) properties['aliases'] = `["${hex(slot)}.${this.#pick(4)}"]`;
      this.#add(bus, [slot, func], properties);
    }
  }

  #behindPort(bus: number, depth: number): void {
    const kind = depth >= MOST_DEPTH || this.#bus > LAST_BUS ? 0 : this.#pick(4);
    if (kind === 3) {
      const behind = (secondary: number): void => {
        this.#conventional(secondary, depth + 1);
      };
      this.#bridge(bus, [0, 0], { type: 'pcie-pci-bridge', behind });
    } else if (kind === 2) this.#switch(bus, depth);
    else this.#card(bus, 0, 'endpoint');
  }

  #switch(bus: number, depth: number): void {
    const oneSlot = this.#pick(2) === 1;
    const ports = 1 + this.#pick(3);
    this.#bridge(bus, [0, 0], {
      type: 'upstream-port',
      behind: (inner) => {
        for (let port = 0; port < ports; port += 1) {
          const behind = (secondary: number): void => {
            this.#behindPort(secondary, depth + 2);
          };
          this.#bridge(inner, oneSlot ? [0, port] : [port, 0], { type: 'downstream-port', behind });
        }
      },
    });
  }

  #conventional(bus: number, depth: number): void {
    const slots = 1 + this.#pick(3);
    for (let slot = 1; slot <= slots; slot += 1) {
      const deeper = depth < MOST_DEPTH && this.#bus <= LAST_BUS && this.#pick(4) === 3;
      if (deeper) {
        const behind = (secondary: number): void => {
          this.#conventional(secondary, depth + 1);
        };
        this.#bridge(bus, [slot, 0], { type: 'pci-bridge', behind });
      } else this.#card(bus, slot, 'pci');
    }
  }

  rootBus(): void {
    const slots = 1 + this.#pick(4);
    for (let slot = 1; slot <= slots; slot += 1) {
      switch (this.#pick(5)) {
        case 0:
          this.#card(0, slot, 'rc-endpoint');
          break;
        case 1: {
          const behind = (secondary: number): void => {
            this.#conventional(secondary, 1);
          };
          this.#bridge(0, [slot, 0], { type: 'pci-bridge', behind });
          break;
        }
        default: {
          const ports = 1 + this.#pick(3);
          for (let port = 0; port < ports; port += 1) {
            const behind = (secondary: number): void => {
              this.#behindPort(secondary, 1);
            };
            this.#bridge(0, [slot, port], { type: 'root-port', behind });
          }
        }
      }
    }
  }
}

/** A topology; the same choices give the same one. */
export function randomTopology(choices: readonly number[]): Entry[] {
  const generator = new Generator(choices);
  generator.rootBus();
  return generator.entries;
}

/** As a machine file. */
export function topologyText(entries: readonly Entry[]): string {
  const lines = entries.map(({ address, properties }) => {
    const parts = Object.entries(properties).map(([key, value]) => `${key}: ${value}`);
    return `  - { address: "${address}", ${parts.join(', ')} }`;
  });
  return `devices:\n${lines.join('\n')}\n`;
}
