/**
 * `npm run sysfs -- [DIR]`: every recorded machine in process. What sysdump shows of it and what sysfuzz does with it is
 * compared with what a real kernel answered, line by line; at the end `sysdump: I of M lines identical` and
 * `sysfuzz: I of M programs identical`. DIR defaults to ../shared/sysfs, or $UIOMMU_SHARED/sysfs.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { LINUX_DRIVERS } from '../src/kernel/linux-drivers.ts';
import type { PciSystem } from '../src/kernel/pci-system.ts';
import { pciSystem } from '../src/kernel/system.ts';
import type { SysfsContext } from '../src/kernel/vfs/context.ts';
import { pciNames } from '../src/kernel/vfs/sysfs.ts';
import { NameChanges, type Directory } from '../src/kernel/vfs/tree.ts';
import { Uevents } from '../src/kernel/vfs/uevent.ts';
import { parseDump } from '../src/machine/file/recording.ts';
import { SysFuzz } from './sysfs-fuzz.ts';
import { dump } from './sysfs-walk.ts';

const STEPS = 120;

/** Where recordings are by default; undefined where there are none. */
export function recordingsDirectory(): string | undefined {
  const directory = join(process.env['UIOMMU_SHARED'] ?? join('..', 'shared'), 'sysfs');
  return existsSync(directory) ? directory : undefined;
}

export type Outcome = { readonly total: number; readonly identical: number };

/** One line or program that came out otherwise. */
export type Tell = (text: string) => void;

type Booted = { readonly root: Directory; readonly context: SysfsContext };

/** The kernel of the recordings has its drivers built in and finds devices for them by itself. */
function boot(header: string, name: string): Booted {
  const machine = parseDump(header, name);
  const { pci, iommufd, parameters } = pciSystem(machine, {
    drivers: LINUX_DRIVERS,
    boot: 'autoprobe',
    check: true,
  });
  const context: SysfsContext = {
    system: pci,
    changes: new NameChanges(),
    uevents: new Uevents(),
    cpus: 1,
  };
  return { root: pciNames(context, { iommufd, parameters }), context };
}

export function readRecording(path: string): string {
  const bytes = readFileSync(path);
  return (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
}

/** The path that a line of sysdump is about. */
function pathOf(line: string): string {
  const words = line.split(' ');
  const place: Readonly<Record<string, number>> = { D: 2, L: 1, F: 3, C: 3, '?': 1 };
  return words[place[words[0] ?? ''] ?? 0] ?? '';
}

/** Directories that the recorder named; those that were not there have a line of their own only in our output. */
function dumpPaths({ machine }: PciSystem): string[] {
  const roots = [...machine.buses].filter((bus) => bus.isRoot && bus.dmaDevice === undefined);
  return [
    '/sys/bus/pci',
    ...roots.map(({ name }) => `/sys/devices/pci${name}`),
    '/sys/kernel/iommu_groups',
    ...['iommu', 'vfio', 'vfio-dev', 'pci_bus'].map((name) => `/sys/class/${name}`),
    ...['vfio', 'iommu'].map((name) => `/sys/devices/virtual/${name}`),
    ...['vfio', 'vfio_pci', 'vfio_iommu_type1', 'iommufd'].map((name) => `/sys/module/${name}`),
    '/dev/vfio',
    '/dev/iommu',
  ];
}

/** Compares the lines of a section, in whatever order; names that only we have count as one difference each. */
function compareSection(recorded: readonly string[], own: readonly string[], tell: Tell): Outcome {
  const ours = new Map(
    own.filter((line) => !line.startsWith('?')).map((line) => [pathOf(line), line]),
  );
  let identical = 0;
  let total = 0;
  for (const line of recorded) {
    total++;
    const path = pathOf(line);
    const mine = ours.get(path);
    ours.delete(path);
    if (mine === line) identical++;
    else tell(`  kernel  ${line}\n  uiommu  ${mine ?? '(no such name)'}\n`);
  }
  for (const line of ours.values()) {
    total++;
    tell(`  kernel  (no such name)\n  uiommu  ${line}\n`);
  }
  return { total, identical };
}

/** Endpoints that the recorder gave to vfio-pci, in its order. */
function endpoints(header: string): string[] {
  return [...header.matchAll(/^raw (\S+)/gm)].map(([, name = '']) => name);
}

function ignore(): void {
  // Outcomes show in the tree.
}

export function compareDump(path: string, tell: Tell): Outcome {
  const text = readRecording(path);
  const [header = '', booted = '', vfio = ''] = text.split(/^== .*\n/m);
  const { root, context } = boot(header, path);
  const { core } = context.system;
  const names = endpoints(header);
  // Their configuration space was recorded without a driver, before the dump.
  for (const name of names) {
    const driver = core.device(name)?.driver;
    if (driver !== undefined) core.unbind(driver.name, name, ignore);
  }
  const lines = (section: string): string[] =>
    section.split('\n').filter((line) => /^[DLFC] /.test(line));
  const paths = dumpPaths(context.system);
  const first = compareSection(lines(booted), dump(root, paths), tell);
  for (const name of names) {
    const device = core.device(name);
    if (device === undefined) continue;
    core.setOverride(device, 'vfio-pci');
    core.driversProbe(name, ignore);
  }
  const second = compareSection(lines(vfio), dump(root, paths), tell);
  return {
    total: first.total + second.total,
    identical: first.identical + second.identical,
  };
}

type Program = { readonly seed: number; readonly lines: readonly string[] };

function programsOf(text: string): Program[] {
  return text
    .split(/^== seed /m)
    .slice(1)
    .map((part) => {
      const [seed = '', ...lines] = part.trimEnd().split('\n');
      return { seed: Number(seed), lines: lines.filter((line) => line !== 'end') };
    });
}

export function compareFuzz(path: string, tell: Tell): Outcome {
  const text = readRecording(path);
  const { root, context } = boot(text.slice(0, text.indexOf('\nsysfuzz ')), path);
  const fuzz = new SysFuzz(root, context.uevents);
  let identical = 0;
  const programs = programsOf(text);
  for (const { seed, lines } of programs) {
    const own = fuzz.run(seed, STEPS);
    const at = lines.findIndex((line, place) => line !== own[place]);
    if (at < 0 && own.length === lines.length) {
      identical++;
      continue;
    }
    tell(
      `${path}: program ${seed}, line ${at + 1}\n  kernel  ${lines[at] ?? '(ends)'}\n` +
        `  uiommu  ${own[at] ?? '(ends)'}\n  reason  ${fuzz.reasons.get(at) ?? '(not refused)'}\n`,
    );
  }
  return { total: programs.length, identical };
}

export function main(args: readonly string[]): number {
  const directory = args[0] ?? recordingsDirectory();
  if (directory === undefined) {
    process.stdout.write('skipped: no recordings (../shared/sysfs, or name a directory)\n');
    return 0;
  }
  const tell = (text: string): boolean => process.stdout.write(text);
  const sum = (pattern: RegExp, compare: (path: string, told: Tell) => Outcome): Outcome =>
    readdirSync(directory)
      .sort()
      .filter((name) => pattern.test(name))
      .map((name) => compare(join(directory, name), tell))
      .reduce(
        (all, each) => ({
          total: all.total + each.total,
          identical: all.identical + each.identical,
        }),
        { total: 0, identical: 0 },
      );
  const lines = sum(/^sysfs-\d+\.txt(\.gz)?$/, compareDump);
  const programs = sum(/^sysfuzz-\d+\.txt(\.gz)?$/, compareFuzz);
  process.stdout.write(`sysdump: ${lines.identical} of ${lines.total} lines identical\n`);
  process.stdout.write(`sysfuzz: ${programs.identical} of ${programs.total} programs identical\n`);
  return programs.identical === programs.total ? 0 : 1;
}
