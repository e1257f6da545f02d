/** `uiommu run` with the stub device: node stub-run.js PROGRAM [ARGUMENTS]; leaks go to standard error. */
import { startLauncher } from '../../src/supervisor/launch.ts';
import { Supervisor } from '../../src/supervisor/supervisor.ts';
import { stubKernel } from './stub-device.ts';

try {
  const options = { argv: process.argv.slice(2), kernel: stubKernel() };
  const { status, leaks } = await Supervisor.run(options, startLauncher());
  for (const leak of leaks) process.stderr.write(`LEAK ${leak}\n`);
  process.exitCode = status;
} catch (error) {
  process.stderr.write(`${(error as Error).name}: ${(error as Error).message}\n`);
  process.exitCode = 125;
}
