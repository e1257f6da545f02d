/**
 * npm run topologies -- [DIR] [-v]: forms the groups of every recorded machine in DIR (default ../shared/topologies beside
 * the repository; UIOMMU_SHARED names another place) and compares them with those of the kernel, twice: all devices there
 * before the first group is formed, as at boot, and devices added one at a time in the recorded order. Virtual functions
 * come after everything else both times: they only exist once somebody switched them on.
 *
 * Prints every difference with our reason and closes with `I of M identical`. Exit status 0 if all are.
 */
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { formGroups, GroupBuilder } from '../src/iommu/group-builder.ts';
import { explainMerge } from '../src/iommu/group-reasons.ts';
import { parseDump } from '../src/machine/file/recording.ts';
import { Machine } from '../src/machine/machine.ts';
import type { PciDevice } from '../src/machine/pci/device.ts';

/** Devices of the machine whose group is not the kernel's, each told with our reason. */
function differences(devices: Iterable<PciDevice>, builder: GroupBuilder): string[] {
  const lines: string[] = [];
  for (const device of devices) {
    const ours = builder.groupOf(device);
    const kernel = device.facts.recordedGroup;
    if (ours?.id === kernel) continue;
    const merge = builder.mergeOf(device);
    const reason =
      merge === undefined
        ? `${device.name} made a group of its own: nothing ties it to a device that came before`
        : explainMerge(device, merge);
    lines.push(`${device.name}: kernel ${kernel ?? '-'}, uiommu ${ours?.id ?? '-'} (${reason})`);
  }
  return lines;
}

/** The same machine again, its groups formed while it grows. */
function oneAtATime(recorded: Machine): { machine: Machine; builder: GroupBuilder } {
  const machine = new Machine({
    kind: recorded.kind,
    name: recorded.name,
    source: 'recording',
    acs: 'as-is',
    iommus: recorded.iommus,
  });
  const builder = new GroupBuilder();
  for (const device of recorded.devices) builder.add(machine.add(recorded.describe(device)));
  return { machine, builder: builder };
}

/** Compares one recording both ways; the lines say what is different. */
export function compare(text: string, name: string): string[] {
  const machine = parseDump(text, name);
  const atOnce = differences(machine.devices, formGroups(machine));
  const grown = oneAtATime(machine);
  const inTurn = differences(grown.machine.devices, grown.builder);
  return [
    ...atOnce.map((line) => `all at once: ${line}`),
    ...inTurn.map((line) => `one at a time: ${line}`),
  ];
}

function defaultFolder(): string {
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  return join(process.env['UIOMMU_SHARED'] ?? join(root, '..', 'shared'), 'topologies');
}

/** Recordings in a folder, sorted; a single file is itself. */
function recordings(place: string): string[] {
  if (!existsSync(place)) return [];
  if (!statSync(place).isDirectory()) return [place];
  return readdirSync(place)
    .filter((name) => /\.txt(?:\.gz)?$/.test(name) && !name.startsWith('README'))
    .sort()
    .map((name) => join(place, name));
}

export function main(args: readonly string[]): number {
  const verbose = args.includes('-v');
  const place = args.find((argument) => !argument.startsWith('-')) ?? defaultFolder();
  const files = recordings(place);
  if (files.length === 0) {
    console.log(`skipped: topologies (there are no recorded machines in ${place})`);
    return 0;
  }
  let identical = 0;
  for (const file of files) {
    const bytes = readFileSync(file);
    const lines = compare(
      (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString(),
      basename(file),
    );
    if (lines.length === 0) identical += 1;
    if (lines.length > 0 || verbose)
      console.log(`${basename(file)}: ${lines.length === 0 ? 'identical' : 'differs'}`);
    for (const line of lines) console.log(`  ${line}`);
  }
  console.log(`${identical} of ${files.length} identical`);
  return identical === files.length ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  process.exitCode = main(process.argv.slice(2));
