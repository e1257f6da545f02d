// Makes a fresh clone ready: installs the locked packages when they are missing, then compiles. Nothing else to do by hand.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const installed = join(root, 'node_modules', '.package-lock.json');
const lock = join(root, 'package-lock.json');

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

if (!existsSync(installed) || statSync(installed).mtimeMs < statSync(lock).mtimeMs - 1000) {
  console.error('setup: installing packages (once)');
  run('npm', ['ci', '--loglevel=error']);
}
run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-b']);

// Examples and tests of the package import the library as its users do.
const built = join(root, 'dist', 'tsconfig.tsbuildinfo');
const library = join(root, 'dist', 'lib', 'index.js');
if (!existsSync(library) || statSync(library).mtimeMs < statSync(built).mtimeMs) {
  const { makePackage } = await import('./package.mjs');
  await makePackage();
}
