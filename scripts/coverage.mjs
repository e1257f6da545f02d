// npm run coverage [-- PART…]: the tests, then the lines of .c8rc.json's folders that they reached; fails below its floor.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const folder = mkdtempSync(join(tmpdir(), 'uiommu-coverage-'));
// Some tests go on as another user, whose processes leave their part here too.
chmodSync(folder, 0o777);
const c8 = join(root, 'node_modules', 'c8', 'bin', 'c8.js');
const tests = [process.execPath, join(root, 'scripts', 'test.mjs'), ...process.argv.slice(2)];
const { status } = spawnSync(
  process.execPath,
  [c8, '--clean=false', '--temp-directory', folder, ...tests],
  {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  },
);
rmSync(folder, { recursive: true, force: true });
process.exit(status ?? 1);
