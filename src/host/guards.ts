/**
 * What stands in the way of steps on a host although no kernel refuses them: a group that a process has open already, and what the
 * running system needs. A mounted disk can be unbound without a murmur; only this keeps commands for it from being printed.
 */
import type { Guard } from '../explain/assign.ts';
import type { GroupView } from '../iommu/group-view.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import type { Held, Holder, HolderIndex } from './holders.ts';

/** A device with its group, as the index asks for it. */
export function heldBy(view: GroupView, device: PciDevice): Held {
  const members = view.membersWith(device).map(({ name }) => name);
  return { name: device.name, group: view.idOf(device), members };
}

/** @param touched devices that would lose their driver or go away, the asked one first; each reason is given once */
export function guardsOf(index: HolderIndex, view: GroupView, touched: readonly string[]): Guard[] {
  const seen = new Set<string>();
  return touched.flatMap((name) => {
    const device = view.machine.get(name);
    if (device === undefined) return [];
    const { holders } = index.holdersOf(heldBy(view, device));
    return holders.flatMap((holder) => {
      const guard = guardFor(name, holder);
      if (guard === undefined || seen.has(holder.sentence)) return [];
      seen.add(holder.sentence);
      return [guard];
    });
  });
}

function guardFor(name: string, { kind, sentence, vital }: Holder): Guard | undefined {
  if (kind === 'vfio-user') {
    const step = 'end that process, or let it close the file';
    return { rule: 'in-use', sentence: `${name} is in use: ${sentence}`, step };
  }
  if (!vital) return undefined;
  const step = 'stop using it first; nothing else keeps a driver from being unbound';
  return { rule: 'vital', sentence: `this system needs ${name}: ${sentence}`, step };
}
