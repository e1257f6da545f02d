#!/usr/bin/env node
// The command `uiommu`. A clone runs what tsc compiled; the package has one bundle (scripts/bundle.mjs).
import { existsSync } from 'node:fs';

// Without a handler Node opens its debugger.
process.once('SIGUSR1', () => process.kill(process.pid, 'SIGUSR1'));

const compiled = new URL('../dist/src/cli/main.js', import.meta.url);
const bundled = new URL('../dist/lib/cli.js', import.meta.url);
try {
  const { main } = await import((existsSync(compiled) ? compiled : bundled).href);
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  // Node reads the files of a program at once, and fails where it may not have as many open.
  if (error?.code !== 'EMFILE') throw error;
  console.error(
    'uiommu: the limit of open files (ulimit -n) is too low to start; expected at least 64',
  );
  process.exitCode = 125;
}
