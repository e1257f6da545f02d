/**
 * `uiommu run` with the stub device: node stub-run.js [--trace] PROGRAM [ARGUMENTS]. Leaks go to standard error, and with
 * --trace the calls.
 */
import { startLauncher } from '../../src/supervisor/launch.ts';
import { Supervisor } from '../../src/supervisor/supervisor.ts';
import { eventText, waitingText } from '../../src/supervisor/trace/format.ts';
import type { Observer } from '../../src/supervisor/trace/observer.ts';
import { stubKernel } from './stub-device.ts';

try {
  const [first, ...rest] = process.argv.slice(2);
  const trace: Observer = {
    call: (event) => process.stderr.write(`${eventText(event, false)}\n`),
    waiting: (event) => process.stderr.write(`${waitingText(event, false)}\n`),
    released: () => undefined,
  };
  const options =
    first === '--trace'
      ? { argv: rest, kernel: stubKernel(), observer: trace }
      : { argv: process.argv.slice(2), kernel: stubKernel() };
  const { status, leaks } = await Supervisor.run(options, startLauncher());
  for (const leak of leaks) process.stderr.write(`LEAK ${leak}\n`);
  process.exitCode = status;
} catch (error) {
  process.stderr.write(`${(error as Error).name}: ${(error as Error).message}\n`);
  process.exitCode = 125;
}
