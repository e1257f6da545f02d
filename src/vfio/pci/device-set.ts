/**
 * Device sets: the devices of vfio-pci that one bus reset hits together, so that one of them is reset only with the consent of
 * the users of all.
 *
 * Invariant: a device is in one set from registration until it is gone. On a root bus, and for a virtual function, a set is
 * one device; elsewhere it is everything on the bus that is bound to vfio-pci.
 *
 * After vfio_assign_device_set of drivers/vfio/vfio_main.c and its callers in drivers/vfio/pci/vfio_pci_core.c.
 */
import type { PciBus, PciDevice } from '../../machine/pci/device.ts';

/** Members in the order in which they were registered. */
export class DeviceSet<Member extends { readonly pci: PciDevice }> {
  readonly members: Member[] = [];

  find(pci: PciDevice): Member | undefined {
    return this.members.find((member) => member.pci === pci);
  }
}

export class DeviceSets<Member extends { readonly pci: PciDevice }> {
  readonly #sets = new Map<PciBus | PciDevice, DeviceSet<Member>>();

  add(member: Member): DeviceSet<Member> {
    const key = keyOf(member.pci);
    const set = this.#sets.get(key) ?? new DeviceSet<Member>();
    this.#sets.set(key, set);
    set.members.push(member);
    return set;
  }

  remove(member: Member): void {
    const key = keyOf(member.pci);
    const set = this.#sets.get(key);
    if (set === undefined) return;
    set.members.splice(set.members.indexOf(member), 1);
    if (set.members.length === 0) this.#sets.delete(key);
  }
}

function keyOf(pci: PciDevice): PciBus | PciDevice {
  return pci.bus.isRoot || pci.isVirtualFunction ? pci : pci.bus;
}
