// Replays recorded ownership programs: node scripts/ownership.mjs [DIR] [-v]. Exit status 0 if every line is the kernel's.
import { main } from '../dist/scripts/ownership-replay.js';

process.exitCode = main(process.argv.slice(2));
