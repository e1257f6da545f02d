/**
 * /sys/bus/pci/slots: places where firmware can plug functions in and out.
 *
 * The firmware of such a machine describes the slot behind every port that has no bridge in it, and the 32 slots of a
 * conventional bus; a slot's name is its number on its bus, and a second one of that name gets a suffix.
 *
 * After drivers/pci/slot.c (make_slot_name) and drivers/pci/hotplug/{acpiphp_glue,pci_hotplug_core}.c.
 */
import { Errno } from '../../base/errno.ts';
import { slotOf } from '../../machine/pci/address.ts';
import { busSpeeds } from '../../machine/pci/link.ts';
import type { PciBus } from '../../machine/pci/device.ts';
import type { SysfsContext } from './context.ts';
import { Directory, fixed, readable, type Attribute, type Named } from './tree.ts';

const CONVENTIONAL_SLOTS = 32;

type Slot = { readonly bus: PciBus; readonly number: number };

export function slotsDirectory({ system }: SysfsContext): Directory {
  return new Directory({
    list: () => {
      const taken = new Map<string, number>();
      return slotsOf([...system.machine.buses]).map((slot): Named => {
        const name = String(slot.number);
        const before = taken.get(name) ?? 0;
        taken.set(name, before + 1);
        return [before === 0 ? name : `${name}-${before}`, slotDirectory(slot)];
      });
    },
  });
}

/** In the order in which Linux comes upon them: depth first, as buses are numbered. */
function slotsOf(buses: readonly PciBus[]): Slot[] {
  const inOrder = [...buses].sort((a, b) => a.domain - b.domain || a.number - b.number);
  return inOrder.flatMap((bus) => {
    const { self } = bus;
    if (self === undefined || bus.isVirtual) return [];
    if (self.isDownstream) return hasBridge(bus) ? [] : [{ bus, number: 0 }];
    if (self.isExpress && self.portType !== undefined && !conventionalBehind(bus)) return [];
    return Array.from({ length: CONVENTIONAL_SLOTS }, (_, number) => ({ bus, number }));
  });
}

function hasBridge({ devices }: PciBus): boolean {
  return [...devices.values()].some(({ isBridge }) => isBridge);
}

/** The bus is a conventional one: not that of a switch. */
function conventionalBehind({ self }: PciBus): boolean {
  return self?.isExpress === true && self.portType === PCIE_TO_PCI;
}

const PCIE_TO_PCI = 7;

function slotDirectory({ bus, number }: Slot): Directory {
  const occupied = (): boolean => [...bus.devices.keys()].some((devfn) => slotOf(devfn) === number);
  const address = `${bus.name}:${number.toString(16).padStart(2, '0')}`;
  const attention: Attribute = {
    ...readable(() => {
      throw new Errno('EINVAL', `slot ${address} has no attention indicator`);
    }, 0o644),
    store: (_write, done) => {
      done(new Errno('ENODEV', `slot ${address} has no attention indicator`));
    },
  };
  return fixed({
    adapter: readable(() => `${Number(occupied())}\n`),
    address: readable(() => `${address}\n`),
    attention,
    cur_bus_speed: readable(() => `${busSpeeds(bus).now}\n`),
    latch: readable(() => `${Number(!occupied())}\n`),
    max_bus_speed: readable(() => `${busSpeeds(bus).most}\n`),
  });
}
