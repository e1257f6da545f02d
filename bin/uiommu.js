#!/usr/bin/env node
// The command `uiommu`. A clone runs what tsc compiled; the package has one bundle (scripts/bundle.mjs).
import { existsSync } from 'node:fs';

// Without a handler Node opens its debugger.
process.once('SIGUSR1', () => process.kill(process.pid, 'SIGUSR1'));

const compiled = new URL('../dist/src/cli/main.js', import.meta.url);
const bundled = new URL('../dist/lib/cli.js', import.meta.url);
const { main } = await import((existsSync(compiled) ? compiled : bundled).href);

process.exitCode = await main(process.argv.slice(2));
