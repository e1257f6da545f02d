/** What `uiommu why` says, as text. */
import type { Obstacle } from '../explain/assign.ts';
import { groupReasons } from '../explain/group-summary.ts';
import type { SplitPlan } from '../explain/split.ts';
import { kernelDriver } from '../explain/use.ts';
import { listed } from '../iommu/group-reasons.ts';
import { iommuStatus } from '../machine/iommu-status.ts';
import { managedDriver } from '../machine/drivers.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import type { Report } from './commands/why.ts';
import { idsOf, nameOf, whatIs } from './pci-words.ts';
import type { Style } from './style.ts';

export function whyText(all: Report, style: Style): string {
  const { view, device } = all;
  const lines = [
    verdictLine(all, style),
    ...nameLines(device, style),
    ...all.assessment.obstacles.flatMap((obstacle) => obstacleLines(obstacle, style)),
    ...commandLines(all),
    ...interfaceLines(all, style),
    ...groupLines(all, style),
    ...holderLines(all, style),
  ];
  if (view.idOf(device) !== undefined) {
    lines.push('', style.dim(iommuStatus(view.machine).sentence));
  }
  lines.push(...view.machine.remarks.map((remark) => style.dim(`not read: ${remark}`)));
  return `${lines.join('\n')}\n`;
}

function verdictLine({ device, assessment, view, holders }: Report, style: Style): string {
  const what = `${device.name} (${whatIs(device)}, ${idsOf(device)})`;
  switch (assessment.answer) {
    case 'yes':
      return (holders?.hiddenProcesses ?? 0) > 0
        ? `${style.good('Yes')}, as far as could be seen: ${what} can be assigned.`
        : `${style.good('Yes')}: ${what} can be assigned.`;
    case 'not-yet':
      return `${style.warn('Not yet')}: ${what} could be assigned, but not as it stands.`;
    case 'no':
      return `${style.bad('No')}: ${what} cannot be assigned on ${view.machine.name}.`;
  }
}

function nameLines(device: PciDevice, style: Style): string[] {
  const name = nameOf(device);
  return name === undefined ? [] : [style.dim(`  ${name}`)];
}

function obstacleLines({ rule, calls, code, sentence, step }: Obstacle, style: Style): string[] {
  const tag = code === undefined ? rule : `${calls.join(', ')}: ${code}`;
  const lines = [`  - ${sentence} ${style.dim(`[${tag}]`)}`];
  if (step !== undefined) lines.push(`    next: ${step}`);
  return lines;
}

function commandLines({ commands, device }: Report): string[] {
  if (commands.length === 0) return [];
  return [
    '',
    'As root:',
    ...commands.map((command) => `  ${command}`),
    `Then look again (uiommu why ${device.name}): drivers_probe reports success whatever came of it.`,
  ];
}

const TITLES = { iommufd: 'IOMMUFD', container: 'container' } as const;

function interfaceLines({ assessment, interfaces }: Report, style: Style): string[] {
  if (interfaces.length === 0 || assessment.answer === 'no') return [];
  const rows = interfaces.map(({ name, paths, missing }) => {
    const trial = assessment.trials.find((each) => each.interface === name);
    const refusal = trial?.refusal;
    const answer =
      refusal === undefined ? style.good('claimed') : `${refusal.call}: ${refusal.code}`;
    return `  ${TITLES[name].padEnd(9)}  ${paths.join(' with ')}: ${missing ?? answer}`;
  });
  return ['', style.bold('Interfaces, as it stands'), ...rows];
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
    `${style.bold(`Group ${id}`)}: ${members.length} devices, one owner. ${whoIsAssigned(members)}`,
    ...table([device, ...others], all),
  ];
  if (!view.explained) {
    lines.push('', 'Why they share a group takes all capabilities to say: run it as root.');
  }
  const reasons = groupReasons(view, members);
  lines.push(...reasons.map(({ sentence }) => style.dim(`  because ${sentence}`)));
  return plan === undefined ? lines : [...lines, '', ...planLines(all, plan, style)];
}

/** A bridge needs no driver of user space: its own leaves DMA alone. */
function whoIsAssigned(members: readonly PciDevice[]): string {
  const bridges = members.filter((member) => isBridge(member));
  const rest = members.filter((member) => !isBridge(member)).map(({ name }) => name);
  const together =
    rest.length === 1 ? `assign: ${listed(rest)}` : `assign together: ${listed(rest)}`;
  if (rest.length === 0) return 'Bridges stay with the host.';
  return bridges.length === 0
    ? 'They are assigned together.'
    : `Bridges stay with the host; ${together}`;
}

const BASE_CLASS_BRIDGE = 0x06;

function isBridge(device: PciDevice): boolean {
  return device.isBridge || device.classCode >> 16 === BASE_CLASS_BRIDGE;
}

function table(members: readonly PciDevice[], { system }: Report): string[] {
  const rows = members.map((member) => {
    const driver = member.facts.driver ?? '-';
    return [
      member.name,
      whatIs(member),
      driver,
      dmaWords(driver, kernelDriver(system, member.name)),
    ];
  });
  const widths = [0, 1, 2].map((column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    `  ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  ')}`.trimEnd(),
  );
}

function dmaWords(driver: string, kernel: string | undefined): string {
  if (kernel !== undefined) return 'kernel DMA';
  const row = managedDriver(driver);
  return row === undefined ? '' : `no kernel DMA: ${row.why}`;
}

function planLines({ device, view }: Report, plan: SplitPlan, style: Style): string[] {
  const lines = [style.bold('How to split the group')];
  if (plan.changes.length > 0) {
    const parted = plan.parted.map(({ name }) => name).join(' ');
    lines.push(`  away from ${parted}:`, ...plan.changes.map(({ sentence }) => `    ${sentence}`));
  }
  if (plan.inseparable.length > 0) {
    const names = plan.inseparable.map(({ device: member }) => member.name);
    lines.push(`  nothing separates it from ${listed(names)}, for the reasons above`);
  }
  if (view.disagreements().some((one) => one.device === device)) {
    lines.push(
      '  (The kernel of this machine formed this group by other rules than those of Linux 7.3.)',
    );
  }
  return lines;
}

function holderLines({ holders }: Report, style: Style): string[] {
  if (holders === undefined) return [];
  const lines = ['', style.bold('Who uses it')];
  for (const { sentence, vital } of holders.holders) {
    lines.push(`  ${sentence}${vital ? style.bad('  (this system needs it)') : ''}`);
  }
  if (holders.holders.length === 0) lines.push('  nothing that could be seen');
  if (holders.hiddenProcesses > 0) {
    lines.push(
      style.dim(
        `  open files of ${holders.hiddenProcesses} processes of other users could not be read (root can)`,
      ),
    );
  }
  return lines;
}
