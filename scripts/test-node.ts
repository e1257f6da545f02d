/**
 * `npm run test:node -- VERSION [PART…]`: the tests on another Node than the one that is installed, such as 22, 24 or 26.10.0.
 *
 * The Node comes from the npm registry as a package that contains the binary and runs no script, into the cache folder. Parts
 * choose test files as for `npm test`. Exit status: that of the tests; 1 where that Node cannot be had; 2 for wrong arguments.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  constants,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { refuse } from './arguments.ts';
import { cacheFolder } from './kernel-source.ts';
import { ROOT } from './run-client.ts';

const SCRIPT = 'test:node';
const [version, ...parts] = process.argv.slice(2);
if (version === undefined || !/^\d+(\.\d+){0,2}$/.test(version)) {
  refuse(SCRIPT, `expected a version of Node such as 26 or 24.21.0, not "${version ?? ''}"`);
}

/** @returns the path of the binary; undefined, with npm's own words on standard error, where it cannot be had */
function nodeBinary(wanted: string): string | undefined {
  const folder = join(cacheFolder(), `node-${wanted}`);
  const binary = join(folder, 'node_modules', `node-linux-${process.arch}`, 'bin', 'node');
  if (existsSync(binary)) return binary;
  mkdirSync(folder, { recursive: true });
  console.error(`${SCRIPT}: installing Node ${wanted} from the npm registry (once; some 200 MB)`);
  const wish = `node-linux-${process.arch}@${wanted}`;
  const options = ['--ignore-scripts', '--no-save', '--loglevel=error', '--prefix', folder];
  spawnSync('npm', ['install', ...options, wish], { stdio: ['ignore', 2, 2] });
  return existsSync(binary) ? binary : undefined;
}

const node = nodeBinary(version);
if (node === undefined) {
  console.error(`${SCRIPT}: npm could not install Node ${version} for ${process.arch}`);
  process.exit(1);
}
// Some tests go on as an ordinary user, who may not reach the cache folder.
const reachable = mkdtempSync(join(tmpdir(), 'uiommu-node-'));
chmodSync(reachable, 0o755);
const copy = join(reachable, 'node');
copyFileSync(node, copy, constants.COPYFILE_FICLONE);
spawnSync(copy, ['--version'], { stdio: ['ignore', 2, 2] });
const { status } = spawnSync(copy, [join(ROOT, 'scripts', 'test.mjs'), ...parts], {
  stdio: ['ignore', 'inherit', 'inherit'],
});
rmSync(reachable, { recursive: true, force: true });
process.exit(status ?? 1);
