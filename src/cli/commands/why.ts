/** `uiommu why DEVICE`: can it be assigned, by which interface, and if not: what refuses, and what to do about it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { assess, commandsFor, type Assignability } from '../../explain/assign.ts';
import { kernelDriver } from '../../explain/use.ts';
import { planSplit, type SplitPlan } from '../../explain/split.ts';
import { HOST_ROOTS } from '../../host/files.ts';
import { guardsOf, heldBy } from '../../host/guards.ts';
import { HolderIndex, type Holders } from '../../host/holders.ts';
import { interfacesOf, type InterfaceState } from '../../host/interfaces.ts';
import { GroupView } from '../../iommu/group-view.ts';
import { reasonsBetween, roleOf } from '../../iommu/group-reasons.ts';
import type { ProfileName } from '../../iommu/profile.ts';
import { pciSystem, type PciSystemParts } from '../../kernel/system.ts';
import { iommuStatus } from '../../machine/iommu-status.ts';
import type { Machine } from '../../machine/machine.ts';
import type { PciDevice } from '../../machine/pci/device.ts';
import { UsageError, type Command } from '../command.ts';
import { chosenMachine, deviceNamed } from '../machine-argument.ts';
import { MACHINE_OPTIONS, chosenProfile, parseOptions } from '../options.ts';
import { idsOf, nameOf, whatIs } from '../pci-words.ts';
import { chosenStyle } from '../style.ts';
import { whyText } from '../why-text.ts';
import { print } from '../output.ts';

const HELP = `usage: uiommu why [--host | -m MACHINE] [--profile P] [--json] [--color WHEN] DEVICE

Tells whether DEVICE can be assigned to user space (a virtual machine, a driver in user space), by which interface, and
what is in the way: the call that is refused, its errno and reason, and the next step. Then who shares its IOMMU group,
why, and how to split the group. On a host also who uses the device: open device files, mounted disks, network
interfaces, the display of the boot screen.

The answer is that of a claim that is tried on the booted machine, as under uiommu run. Commands are printed only where
they end in a claim and harm nothing that this host needs.

DEVICE is an address (0000:01:00.0, or 01:00.0 in domain 0; a slot like 00:1f where it has one function), a label of a machine file, and
on this host also a network interface (eth0), a disk (nvme0n1) or a device file (/dev/sda).

  --host, -m MACHINE, --profile P, --json, --color WHEN    as for uiommu ls

Exit status: 0 it can be assigned as it stands, 1 it cannot (yet), 2 wrong usage or input.

examples:
  uiommu why 01:00.0                 on this computer
  uiommu why eth0                    the same by the name of its interface
  uiommu why -m pc GPU               on the built-in machine
  uiommu why 01:00.0 && start-vm     only if nothing is in the way
`;

/** Everything that is said of one device. */
export type Report = {
  readonly device: PciDevice;
  readonly view: GroupView;
  readonly system: PciSystemParts;
  readonly assessment: Assignability;
  readonly commands: readonly string[];
  readonly plan: SplitPlan | undefined;
  readonly holders: Holders | undefined;
  readonly interfaces: readonly InterfaceState[];
};

function report(machine: Machine, profile: ProfileName, device: PciDevice): Report {
  const system = pciSystem(machine, { profile });
  const view = new GroupView(machine, profile, system.pci.builder);
  const id = view.idOf(device);
  const onHost = machine.source === 'host';
  const index = onHost ? new HolderIndex() : undefined;
  const assessment = assess(machine, device.name, {
    profile,
    guards: (touched) => (index === undefined ? [] : guardsOf(index, view, touched)),
  });
  const shared = view.membersWith(device).length > 1;
  return {
    device,
    view,
    system,
    assessment,
    commands: commandsOnHost(machine, commandsFor(assessment)),
    plan: shared && view.explained ? planSplit(machine, device, profile) : undefined,
    holders: index?.holdersOf(heldBy(view, device)),
    interfaces: id === undefined ? [] : interfacesOf(machine, device.name, id),
  };
}

/** vfio-pci has to be there before a device can name it. */
function commandsOnHost({ source }: Machine, commands: readonly string[]): readonly string[] {
  const loaded = source !== 'host' || existsSync(join(HOST_ROOTS.sys, 'bus/pci/drivers/vfio-pci'));
  return loaded || commands.length === 0 ? commands : ['modprobe vfio-pci', ...commands];
}

function jsonOutput(all: Report): string {
  const { device, view, system, assessment, plan, holders, interfaces } = all;
  const shown = {
    device: device.name,
    what: whatIs(device),
    name: nameOf(device) ?? null,
    role: roleOf(device),
    ids: idsOf(device),
    driver: device.facts.driver ?? null,
    answer: assessment.answer,
    obstacles: assessment.obstacles.map(({ rule, calls, code, sentence, step }) => ({
      rule,
      calls,
      errno: code ?? null,
      sentence,
      step: step ?? null,
    })),
    commands: all.commands,
    interfaces: assessment.trials.map((trial) => ({
      name: trial.interface,
      paths: interfaces.find(({ name }) => name === trial.interface)?.paths ?? [],
      refused:
        trial.refusal === undefined
          ? null
          : {
              call: trial.refusal.call,
              errno: trial.refusal.code,
              reason: trial.refusal.reason,
            },
    })),
    group: view.idOf(device) ?? null,
    members: view
      .membersWith(device)
      .filter((member) => member !== device)
      .map((member) => ({
        address: member.name,
        driver: member.facts.driver ?? null,
        kernelDma: kernelDriver(system, member.name) !== undefined,
        because: view.explained
          ? reasonsBetween(device, member, (other) => view.mergeOf(other))
          : null,
      })),
    split: plan === undefined ? null : splitJson(plan),
    holders: holders?.holders ?? null,
    iommu: iommuStatus(view.machine),
    notRead: view.machine.remarks,
  };
  return `${JSON.stringify(shown, null, 2)}\n`;
}

function splitJson({ changes, parted, inseparable }: SplitPlan): object {
  return {
    changes: changes.map((change) => ({ device: change.device.name, sentence: change.sentence })),
    parted: parted.map(({ name }) => name),
    inseparable: inseparable.map((one) => ({ device: one.device.name, because: one.because })),
  };
}

export const whyCommand: Command = {
  name: 'why',
  summary: 'can DEVICE be assigned, and if not: what refuses it, and the next step',
  help: HELP,
  run(args) {
    const { values, positionals } = parseOptions('why', args, MACHINE_OPTIONS);
    const [written, ...rest] = positionals;
    if (written === undefined || rest.length > 0) {
      throw new UsageError('why needs one DEVICE, like 01:00.0 (uiommu ls shows them all)');
    }
    const profile = chosenProfile(values.profile);
    const style = chosenStyle(values.color);
    const machine = chosenMachine(values);
    const all = report(machine, profile, deviceNamed(machine, written));
    print(values.json === true ? jsonOutput(all) : whyText(all, style));
    return all.assessment.answer === 'yes' ? 0 : 1;
  },
};
