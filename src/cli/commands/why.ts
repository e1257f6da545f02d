/** `uiommu why DEVICE`: can it be given to user space, through which door, and if not: rule, culprit, next step. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { HOST_ROOTS, names } from '../../host/files.ts';
import { HolderIndex, type Holders } from '../../host/holders.ts';
import { assess, kernelDriver, type Assignability } from '../../explain/assign.ts';
import { GroupView } from '../../iommu/group-view.ts';
import { planSplit, type SplitPlan } from '../../explain/split.ts';
import { reasonsBetween, roleOf } from '../../iommu/group-reasons.ts';
import { iommuStatus } from '../../machine/iommu-status.ts';
import { managedDriver } from '../../machine/drivers.ts';
import type { PciDevice } from '../../machine/pci/device.ts';
import { UsageError, type Command } from '../command.ts';
import { chosenMachine, deviceNamed } from '../machine-argument.ts';
import { MACHINE_OPTIONS, chosenProfile, parseOptions } from '../options.ts';
import { idsOf, whatIs } from '../pci-words.ts';
import { chosenStyle, type Style } from '../style.ts';

const HELP = `usage: uiommu why [--host | -m MACHINE] [--profile P] [--json] [--color WHEN] DEVICE

Tells whether DEVICE can be given to user space (a virtual machine, a driver in user space), through which API, and
what is in the way: the rule, the culprit and the next step. Then who shares its IOMMU group and because of what, and
what would part them. On a host also who holds the device: open device files, mounted disks, the default route, the
framebuffer of the boot screen.

DEVICE is an address (0000:01:00.0, or 01:00.0 in domain 0) or a label of a machine file.

  --host, -m MACHINE, --profile P, --json, --color WHEN    as for uiommu ls

Exit status: 0 it can be assigned as it stands, 1 it cannot (yet), 2 wrong usage or input.

examples:
  uiommu why 01:00.0                 on this computer
  uiommu why -m pc GPU               on the built-in machine
  uiommu why 01:00.0 && start-vm     only if nothing is in the way
`;

type Report = {
  readonly device: PciDevice;
  readonly view: GroupView;
  readonly assessment: Assignability;
  readonly plan: SplitPlan | undefined;
  readonly holders: Holders | undefined;
  /** ways that lead to the device, with what is missing on a host */
  readonly doors: readonly string[];
};

function report(view: GroupView, device: PciDevice): Report {
  const id = view.idOf(device);
  const shared = view.membersWith(device).length > 1;
  const onHost = view.machine.source === 'host';
  const holders = onHost ? new HolderIndex().holdersOf(device.name, id) : undefined;
  return {
    device,
    view,
    assessment: withUsers(assess(view, device), holders),
    plan: shared && view.explained ? planSplit(view.machine, device, view.profile) : undefined,
    holders,
    doors: id === undefined ? [] : doorsOf(device, id, onHost),
  };
}

/** Somebody has the group or the device open already: it is taken. */
function withUsers(assessment: Assignability, holders: Holders | undefined): Assignability {
  const users = (holders?.holders ?? []).filter(({ kind }) => kind === 'vfio-user');
  if (users.length === 0 || assessment.answer === 'no') return assessment;
  const taken = users.map(({ sentence }) => ({
    rule: 'in-use' as const,
    culprit: undefined,
    sentence: `it is in use: ${sentence}`,
    step: 'end that process, or let it close the file',
  }));
  return { ...assessment, answer: 'not-yet', obstacles: [...assessment.obstacles, ...taken] };
}

function doorsOf(device: PciDevice, id: number, onHost: boolean): string[] {
  const group = `/dev/vfio/${id}`;
  if (!onHost) {
    return [
      `group API (VFIO container): ${group}`,
      'device API (IOMMUFD): /dev/vfio/devices/vfioN with /dev/iommu',
    ];
  }
  const { sys, dev } = HOST_ROOTS;
  const [cdev] = names(sys, 'bus/pci/devices', device.name, 'vfio-dev');
  const missing = (path: string): string => (existsSync(path) ? '' : ` (${path} is not there now)`);
  return [
    `group API (VFIO container): ${group}${missing(join(dev, 'vfio/vfio'))}`,
    `device API (IOMMUFD): /dev/vfio/devices/${cdev ?? 'vfioN'} with /dev/iommu${missing(join(dev, 'iommu'))}`,
  ];
}

function verdictLine({ device, assessment, view }: Report, style: Style): string {
  const what = `${device.name} (${whatIs(device)}, ${idsOf(device)})`;
  switch (assessment.answer) {
    case 'yes': {
      const { driver } = device.facts;
      const ready =
        driver !== undefined && managedDriver(driver) !== undefined && driver.includes('vfio');
      return `${style.good('Yes')}: ${what} can be assigned${ready ? '' : '; bind it to vfio-pci first'}.`;
    }
    case 'not-yet':
      return `${style.warn('Not yet')}: ${what} could be assigned, but not as it stands.`;
    case 'no':
      return `${style.bad('No')}: ${what} cannot be assigned on ${view.machine.name}.`;
  }
}

function obstacleLines({ assessment }: Report, style: Style): string[] {
  const lines: string[] = [];
  for (const { sentence, step, rule } of assessment.obstacles) {
    lines.push(`  - ${sentence} ${style.dim(`[${rule}]`)}`);
    if (step !== undefined) lines.push(`    next: ${step}`);
  }
  if (assessment.commands.length > 0) {
    lines.push('', 'As root:', ...assessment.commands.map((command) => `  ${command}`));
  }
  return lines;
}

function memberLine({ view, device }: Report, member: PciDevice, style: Style): string[] {
  const driver = member.facts.driver ?? 'no driver';
  const kernel = kernelDriver(view.machine, member);
  const row = managedDriver(driver);
  const note =
    kernel === undefined
      ? row === undefined
        ? ''
        : `: leaves the DMA to user space, it ${row.why} (${row.source})`
      : ': does DMA for the kernel';
  const lines = [`  ${member.name}  ${roleOf(member)}, ${driver}${note}`];
  if (member === device || !view.explained) return lines;
  const reasons = reasonsBetween(device, member, (other) => view.mergeOf(other));
  return [...lines, ...reasons.map((reason) => style.dim(`    because ${reason}`))];
}

function groupLines(all: Report, style: Style): string[] {
  const { view, device, plan } = all;
  const id = view.idOf(device);
  if (id === undefined) return [];
  const members = view.membersWith(device);
  if (members.length === 1) return ['', `It is alone in group ${id}.`];
  const others = members.filter((member) => member !== device);
  const lines = [
    '',
    `${style.bold(`Group ${id}`)}: ${members.length} devices that can only be given away together`,
  ];
  for (const member of [device, ...others]) lines.push(...memberLine(all, member, style));
  if (!view.explained) {
    lines.push(
      '',
      'Why they share a group can only be told with all capabilities readable: run it as root.',
    );
  }
  return plan === undefined ? lines : [...lines, '', ...planLines(all, plan, style)];
}

function planLines({ device, view }: Report, plan: SplitPlan, style: Style): string[] {
  const lines = [style.bold('What would part them')];
  if (plan.changes.length > 0) {
    const parted = plan.parted.map(({ name }) => name).join(' ');
    lines.push(`  away from ${parted}:`, ...plan.changes.map(({ sentence }) => `    ${sentence}`));
  }
  for (const { device: member, because } of plan.inseparable) {
    lines.push(`  nothing parts it from ${member.name}: ${because}`);
  }
  const disagreement = view.disagreements().some((one) => one.device === device);
  if (disagreement) {
    lines.push(
      '  (The kernel of this machine formed this group by other rules than those of Linux 7.3.)',
    );
  }
  return lines;
}

function holderLines({ holders }: Report, style: Style): string[] {
  if (holders === undefined) return [];
  const lines = ['', style.bold('Who holds it')];
  for (const { sentence, vital } of holders.holders) {
    lines.push(`  ${sentence}${vital ? style.bad('  (this system needs it)') : ''}`);
  }
  if (holders.holders.length === 0) lines.push('  nobody that could be seen');
  if (holders.hiddenProcesses > 0) {
    lines.push(
      style.dim(
        `  open files of ${holders.hiddenProcesses} processes of other users could not be looked at (root can)`,
      ),
    );
  }
  return lines;
}

function textOutput(all: Report, style: Style): string {
  const { view, doors, assessment } = all;
  const lines = [verdictLine(all, style), ...obstacleLines(all, style)];
  if (doors.length > 0 && assessment.answer !== 'no') {
    lines.push('', style.bold('Through'), ...doors.map((door) => `  ${door}`));
  }
  lines.push(...groupLines(all, style), ...holderLines(all, style));
  if (view.idOf(all.device) !== undefined)
    lines.push('', style.dim(iommuStatus(view.machine).sentence));
  lines.push(...view.machine.remarks.map((remark) => style.dim(`not read: ${remark}`)));
  return `${lines.join('\n')}\n`;
}

function jsonOutput({ device, view, assessment, plan, holders, doors }: Report): string {
  const id = view.idOf(device);
  const members = view.membersWith(device);
  const shown = {
    device: device.name,
    what: whatIs(device),
    role: roleOf(device),
    ids: idsOf(device),
    driver: device.facts.driver ?? null,
    answer: assessment.answer,
    obstacles: assessment.obstacles.map(({ rule, culprit, sentence, step }) => ({
      rule,
      culprit: culprit?.name ?? null,
      sentence,
      step: step ?? null,
    })),
    commands: assessment.commands,
    doors,
    group: id ?? null,
    members: members
      .filter((member) => member !== device)
      .map((member) => ({
        address: member.name,
        driver: member.facts.driver ?? null,
        kernelDma: kernelDriver(view.machine, member) !== undefined,
        because: view.explained
          ? reasonsBetween(device, member, (other) => view.mergeOf(other))
          : null,
      })),
    split:
      plan === undefined
        ? null
        : {
            changes: plan.changes.map((change) => ({
              device: change.device.name,
              sentence: change.sentence,
            })),
            parted: plan.parted.map(({ name }) => name),
            inseparable: plan.inseparable.map((one) => ({
              device: one.device.name,
              because: one.because,
            })),
          },
    holders: holders?.holders ?? null,
    iommu: iommuStatus(view.machine),
    notRead: view.machine.remarks,
  };
  return `${JSON.stringify(shown, null, 2)}\n`;
}

export const whyCommand: Command = {
  name: 'why',
  summary: 'can DEVICE be assigned, and if not: rule, culprit, next step',
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
    const device = deviceNamed(machine, written);
    const all = report(new GroupView(machine, profile), device);
    process.stdout.write(values.json === true ? jsonOutput(all) : textOutput(all, style));
    return all.assessment.answer === 'yes' ? 0 : 1;
  },
};
