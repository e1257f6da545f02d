/** `uiommu capture`: the machine file of this computer, to look at elsewhere or to send to somebody. */
import { release } from 'node:os';
import { captureText } from '../../host/capture.ts';
import { readHost } from '../../host/read-host.ts';
import { UsageError, type Command } from '../command.ts';
import { parseOptions } from '../options.ts';
import { complain, print } from '../output.ts';

const HELP = `usage: uiommu capture [--serials] > FILE

Writes what this computer shows of its PCI devices, groups and IOMMUs as a machine file: uiommu ls -m FILE, why, diff and
run take it. Needs no root; what only root may read (capabilities, so also the reasons for groups) is then missing, and the
file and standard error say so.

Serial numbers of devices are left out.

  --serials        keep them

Exit status: 0, or 2 on wrong usage.

examples:
  uiommu capture > host.json
  sudo uiommu capture > host.json    with everything
  uiommu diff before.json host.json  what a firmware update moved
`;

export const captureCommand: Command = {
  name: 'capture',
  summary: 'write this computer down as a machine file',
  help: HELP,
  run(args) {
    const { values, positionals } = parseOptions('capture', args, { serials: { type: 'boolean' } });
    if (positionals.length > 0) {
      throw new UsageError(
        `capture writes to standard output; expected > ${positionals.join(' ')}`,
      );
    }
    const machine = readHost();
    const root = process.getuid?.() === 0;
    for (const remark of machine.remarks) complain(`uiommu: not read: ${remark}\n`);
    print(captureText(machine, { serials: values.serials === true, kernel: release(), root }));
    return 0;
  },
};
