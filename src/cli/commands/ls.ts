/** `uiommu ls`: the devices of a machine as a tree, with their groups and who may own their DMA. */
import { HolderIndex } from '../../host/holders.ts';
import { dmaUse, type DmaUse } from '../../explain/use.ts';
import { groupReasons } from '../../explain/group-summary.ts';
import { GroupView } from '../../iommu/group-view.ts';
import { reasonOf, roleOf } from '../../iommu/group-reasons.ts';
import { pciSystem, type PciSystemParts } from '../../kernel/system.ts';
import { iommuStatus } from '../../machine/iommu-status.ts';
import type { Machine } from '../../machine/machine.ts';
import type { PciBus, PciDevice } from '../../machine/pci/device.ts';
import { UsageError, type Command } from '../command.ts';
import { chosenMachine } from '../machine-argument.ts';
import { MACHINE_OPTIONS, chosenProfile, parseOptions } from '../options.ts';
import { idsOf, nameOf, whatIs } from '../pci-words.ts';
import { chosenStyle, type Style } from '../style.ts';
import { print } from '../output.ts';

const HELP = `usage: uiommu ls [--host | -m MACHINE] [--profile P] [--json] [--color WHEN]

Shows the devices of a machine as a tree, the IOMMU group of each, and who may own its DMA:

  kernel  a driver in the group does kernel DMA; user space cannot own the group as long as it is bound
  free    no driver does, and none of VFIO is bound; user space can take the group
  user    a driver of VFIO is bound; a program can claim the group
  in use  on this computer: a process has the group or a device of it open
  -       no group: no IOMMU translates for the device

Devices of one group share requester IDs, or can do peer-to-peer DMA that bypasses the IOMMU. They are assigned
together or not at all. Groups of more than one device are listed below the tree with the reason.

  --host           this computer, as any user (default). Root also sees the reasons
  -m MACHINE       a machine file, a capture, a recording (also .gz), the output of lspci -vvv or -xxxx, a kernel log,
                   "-" for standard input, or one of the built-in machines: pc, selftest
  --profile P      linux (default), singleton, shared, subgroup; strict-acs also merges ports of one switch
                   that can reach each other and that Linux leaves apart
  --json           the same and more, as JSON
  --color WHEN     auto (a terminal; not with NO_COLOR), always, never

Exit status: 0, or 2 where the machine cannot be read.

examples:
  uiommu ls                          what is in this computer
  uiommu ls -m pc                    the built-in machine
  uiommu capture > host.yaml && uiommu ls -m host.yaml --profile strict-acs
`;

/** Groups whose reason is printed below the tree; all are in --json. */
const MOST_REASONS = 40;
const MOST_MEMBERS = 8;

/** A machine, booted, with its groups. */
type Shown = {
  readonly machine: Machine;
  readonly view: GroupView;
  readonly system: PciSystemParts;
  /** who has a group open, by number; on a host */
  readonly users: ReadonlyMap<number, string[]>;
};

type Row = { readonly tree: string; readonly device: PciDevice };

/** The devices of a bus with what is behind them, drawn. */
function rowsOf(bus: PciBus, prefix: string, rows: Row[]): void {
  const devices = [...bus.devices.values()].sort((a, b) => a.devfn - b.devfn);
  for (const [index, device] of devices.entries()) {
    const last = index === devices.length - 1;
    rows.push({ tree: `${prefix}${last ? '└─ ' : '├─ '}`, device });
    if (device.subordinate !== undefined) {
      rowsOf(device.subordinate, `${prefix}${last ? '   ' : '│  '}`, rows);
    }
  }
}

function paintUse(use: DmaUse | 'in use', style: Style, width: number): string {
  const text = (use === 'none' ? '-' : use).padEnd(width);
  switch (use) {
    case 'kernel':
    case 'in use':
      return style.warn(text);
    case 'free':
    case 'user':
      return style.good(text);
    case 'none':
      return style.dim(text);
  }
}

/** Virtual buses hang below the bus of their physical functions. */
function drawnBuses(machine: Machine): PciBus[] {
  return [...machine.buses].filter((bus) => bus.isRoot || bus.isVirtual);
}

function tree({ machine, view, system, users }: Shown, style: Style): string[] {
  const lines: string[] = [];
  const sections = drawnBuses(machine).map((bus) => {
    const rows: Row[] = [];
    rowsOf(bus, '', rows);
    return { bus, rows };
  });
  const all = sections.flatMap(({ rows }) => rows);
  const width = all.reduce(
    (most, { tree: drawn, device }) => Math.max(most, drawn.length + device.name.length),
    7,
  );
  const driverWidth = all.reduce(
    (most, { device }) => Math.max(most, device.facts.driver?.length ?? 1),
    6,
  );
  lines.push(
    style.dim(
      `${'DEVICE'.padEnd(width)}  GROUP  DMA     ${'DRIVER'.padEnd(driverWidth)}  IDS        WHAT`,
    ),
  );
  for (const { bus, rows } of sections) {
    const title = bus.isVirtual ? `${bus.name} (virtual functions)` : bus.name;
    lines.push(style.bold(title));
    for (const { tree: drawn, device } of rows) {
      const id = view.idOf(device);
      const use = users.has(id ?? -1) ? 'in use' : dmaUse(system, device.name);
      const name = nameOf(device);
      const place = `${style.dim(drawn)}${device.name}${' '.repeat(Math.max(0, width - drawn.length - device.name.length))}`;
      const group = (id === undefined ? '-' : String(id)).padStart(5);
      const driver = (device.facts.driver ?? '-').padEnd(driverWidth);
      const label = device.facts.label === undefined ? '' : `  "${device.facts.label}"`;
      lines.push(
        `${place}  ${group}  ${paintUse(use, style, 6)}  ${driver}  ${style.dim(idsOf(device))}  ${whatIs(device)}${label}${name === undefined ? '' : `  ${style.dim(name)}`}`,
      );
    }
  }
  return lines;
}

function sharedGroups(view: GroupView, style: Style): string[] {
  const shared = view.groups.filter(({ members }) => members.length > 1);
  if (shared.length === 0) return [];
  const lines = ['', style.bold('Groups of more than one device')];
  for (const group of shared.slice(0, MOST_REASONS)) {
    const names = group.members.slice(0, MOST_MEMBERS).map(({ name }) => name);
    const more = group.members.length - names.length;
    lines.push(`group ${group.id}: ${names.join(' ')}${more > 0 ? ` and ${more} more` : ''}`);
    const reasons = groupReasons(view, group.members);
    for (const { sentence } of reasons.slice(0, 3)) lines.push(style.dim(`  ${sentence}`));
    if (reasons.length > 3) {
      lines.push(
        style.dim(`  and ${reasons.length - 3} more reasons: uiommu why ${names[1] ?? ''}`),
      );
    }
  }
  const rest = shared.length - MOST_REASONS;
  if (rest > 0) lines.push(style.dim(`and ${rest} more groups (--json has them all)`));
  return lines;
}

function vfioUsers(machine: Machine, view: GroupView): Map<number, string[]> {
  const users = new Map<number, string[]>();
  if (machine.source !== 'host') return users;
  const index = new HolderIndex();
  for (const group of view.groups) {
    const members = group.members.map(({ name }) => name);
    const open = members.flatMap(
      (name) => index.holdersOf({ name, group: group.id, members }).holders,
    );
    const sentences = [
      ...new Set(open.filter(({ kind }) => kind === 'vfio-user').map(({ sentence }) => sentence)),
    ];
    if (sentences.length > 0) users.set(group.id, sentences);
  }
  return users;
}

function disagreementLines(view: GroupView, style: Style): string[] {
  const found = view.disagreements();
  const [first] = found;
  if (first === undefined) return [];
  const computed = first.computed.map(({ name }) => name).join(' ');
  return [
    '',
    style.warn(
      `The kernel formed other groups than Linux 7.3's rules give for ${found.length} devices; first: ${first.device.name}, ` +
        `by the rules with ${computed}. (A patched kernel, ACS overridden at boot, or another version.)`,
    ),
  ];
}

function counted(count: number, what: string): string {
  return `${count === 0 ? 'no' : count} ${what}${count === 1 ? '' : 's'}`;
}

function textOutput(shown: Shown, style: Style): string {
  const { machine, view, users } = shown;
  const status = iommuStatus(machine);
  const groups = view.groups.length;
  const lines = [
    `${style.bold(machine.name)}: ${counted(machine.deviceCount, 'device')}, ${counted(groups, 'group')}` +
      (view.profile === 'linux' ? '' : ` (profile ${view.profile})`),
    status.sentence,
    '',
  ];
  if (machine.kind === 'selftest')
    lines.push('The mock devices of this machine are made by the program that runs on it.');
  else if (machine.deviceCount === 0) lines.push('There is no PCI device.');
  else lines.push(...tree(shown, style), ...sharedGroups(view, style));
  if (users.size > 0) lines.push('', style.bold('In use'));
  for (const [id, sentences] of users)
    lines.push(...sentences.map((sentence) => `group ${id}: ${sentence}`));
  const others = [...machine.recordedGroups.values()].filter(
    (group) => (group.others ?? []).length > 0,
  );
  if (others.length > 0) {
    lines.push('', style.bold('Not PCI'));
    lines.push(...others.map((group) => `group ${group.id}: ${(group.others ?? []).join(' ')}`));
  }
  lines.push(...disagreementLines(view, style));
  if (machine.remarks.length > 0) {
    lines.push('', ...machine.remarks.map((remark) => style.dim(`not read: ${remark}`)));
  }
  return `${lines.join('\n')}\n`;
}

function jsonOutput({ machine, view, system, users }: Shown): string {
  const groups = view.groups.map((group) => {
    const recorded = machine.recordedGroups.get(group.id);
    const [first] = group.members;
    return {
      id: group.id,
      type: recorded?.type === '' ? null : (recorded?.type ?? null),
      members: group.members.map(({ name }) => name),
      others: recorded?.others ?? [],
      dma: first === undefined ? 'free' : dmaUse(system, first.name),
      users: users.get(group.id) ?? [],
      merges: group.members.flatMap((member) => mergeJson(view, member)),
    };
  });
  const devices = [...machine.devices].map((device) => ({
    address: device.name,
    group: view.idOf(device) ?? null,
    dma: dmaUse(system, device.name),
    driver: device.facts.driver ?? null,
    ids: idsOf(device),
    class: device.classCode.toString(16).padStart(6, '0'),
    what: whatIs(device),
    name: nameOf(device) ?? null,
    role: roleOf(device),
    label: device.facts.label ?? null,
    behind: device.bus.self?.name ?? null,
    physfn: device.physfn?.name ?? null,
  }));
  const { state, sentence } = iommuStatus(machine);
  const head = {
    name: machine.name,
    source: machine.source,
    profile: view.profile,
    groupsFrom: view.source,
  };
  const iommu = {
    state,
    sentence,
    instances: machine.iommus.map(({ name, kind }) => ({ name, kind })),
  };
  return `${JSON.stringify({ ...head, iommu, groups, devices, notRead: machine.remarks }, null, 2)}\n`;
}

function mergeJson(view: GroupView, device: PciDevice): object[] {
  const merge = view.mergeOf(device);
  if (merge === undefined) return [];
  return [
    {
      device: device.name,
      with: merge.with.name,
      rule: merge.rule,
      culprits: merge.culprits.map((culprit) => culprit.device.name),
      because: reasonOf(device, merge),
    },
  ];
}

export const lsCommand: Command = {
  name: 'ls',
  summary: 'devices, groups and who may own their DMA, as a tree',
  help: HELP,
  run(args) {
    const { values, positionals } = parseOptions('ls', args, MACHINE_OPTIONS);
    if (positionals.length > 0) {
      throw new UsageError(
        `ls takes no "${positionals.join(' ')}"; for one device: uiommu why DEVICE`,
      );
    }
    const profile = chosenProfile(values.profile);
    const style = chosenStyle(values.color);
    const machine = chosenMachine(values);
    const system = pciSystem(machine, { profile });
    const view = new GroupView(machine, profile, system.pci.builder);
    const shown = { machine, view, system, users: vfioUsers(machine, view) };
    print(values.json === true ? jsonOutput(shown) : textOutput(shown, style));
    return 0;
  },
};
