#!/usr/bin/env node
// The command `uiommu`: everything is in dist/src/cli, made by `npm run build`.
import { main } from '../dist/src/cli/main.js';

process.exitCode = await main(process.argv.slice(2));
