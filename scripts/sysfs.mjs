// Compares /sys and /dev with recordings of a real kernel: node scripts/sysfs.mjs [DIR].
import { main } from '../dist/scripts/sysfs.js';

process.exitCode = main(process.argv.slice(2));
