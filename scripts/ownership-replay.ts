/**
 * `npm run ownership -- [DIR]`: every recorded machine and program in process, the first difference of each program with our
 * reason, and at the end `I of M programs identical`. DIR defaults to ../shared/ownership, or $UIOMMU_SHARED/ownership.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { parseRecording, Replay, type ReplayedIommufd } from '../src/check/replay.ts';
import type { Iommufd } from '../src/iommufd/iommufd.ts';
import { ClientFile, InProcessClient } from '../src/client/in-process.ts';
import { LINUX_DRIVERS } from '../src/kernel/linux-drivers.ts';
import { pciSystem } from '../src/kernel/system.ts';
import { parseDump } from '../src/machine/file/recording.ts';
import { vfioView } from '../src/vfio/iommufd.ts';

/** Where recordings are by default; undefined where there are none. */
export function recordingsDirectory(): string | undefined {
  const shared = process.env['UIOMMU_SHARED'] ?? join('..', 'shared');
  const directory = join(shared, 'ownership');
  return existsSync(directory) ? directory : undefined;
}

export type Outcome = { readonly programs: number; readonly identical: number };

/** How a program opens the machine's /dev/iommu. */
function opener(iommufd: Iommufd): () => ReplayedIommufd {
  return () => {
    const client = new InProcessClient();
    const file = iommufd.open(client);
    const session = new ClientFile(client, client.install(file));
    return {
      context: vfioView(file.context),
      allocIoas: () => session.ioctl('IOMMU_IOAS_ALLOC').out_ioas_id,
      close: () => {
        client.exit();
      },
    };
  };
}

/** Replays one file. @param tell is given a text for each program that differs */
export function replayFile(path: string, tell: (text: string) => void): Outcome {
  const bytes = readFileSync(path);
  const text = (path.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
  const recording = parseRecording(text);
  const machine = parseDump(recording.machine, path);
  const boot = { drivers: LINUX_DRIVERS, boot: 'autoprobe', check: true } as const;
  const { pci, iommufd } = pciSystem(machine, boot);
  const replay = new Replay(pci, recording.devices, opener(iommufd));
  let identical = 0;
  for (const program of recording.programs) {
    const difference = replay.run(program);
    if (difference === undefined) {
      identical++;
      continue;
    }
    const { line, recorded, replayed, reason } = difference;
    tell(
      `${path}: program ${program.seed}, line ${line}\n  kernel  ${recorded}\n  uiommu  ${replayed}\n` +
        `  reason  ${reason ?? '(not refused)'}\n`,
    );
  }
  return { programs: recording.programs.length, identical };
}

export function main(args: readonly string[]): number {
  const directory = args[0] ?? recordingsDirectory();
  if (directory === undefined) {
    process.stdout.write('skipped: no recordings (../shared/ownership, or name a directory)\n');
    return 0;
  }
  let programs = 0;
  let identical = 0;
  for (const name of readdirSync(directory).sort()) {
    if (!/^ownership-.*\.txt(\.gz)?$/.test(name)) continue;
    const outcome = replayFile(join(directory, name), (text) => process.stdout.write(text));
    programs += outcome.programs;
    identical += outcome.identical;
  }
  process.stdout.write(`${identical} of ${programs} programs identical\n`);
  return programs > 0 && identical === programs ? 0 : 1;
}
