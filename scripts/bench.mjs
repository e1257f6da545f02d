// npm run bench [-- NAME…] [--json]: runs the benchmarks of bench/ (those of files whose name contains a NAME), each in a
// process of its own, because what one leaves behind (compiled code, the heap) changes what the next one measures, and
// prints each figure beside its promise. Exit status 1 when a promise is missed.
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const folder = join(dirname(fileURLToPath(import.meta.url)), '..', 'dist', 'bench');
const json = process.argv.includes('--json');
const one = process.argv.indexOf('--one');

if (one === -1) await runAll();
else await runOne(process.argv[one + 1], Number(process.argv[one + 2]));

async function runAll() {
  const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
  const files = readdirSync(folder)
    .filter((name) => name.endsWith('.js') && !name.endsWith('.test.js') && name !== 'measure.js')
    .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
    .sort();
  if (files.length === 0) {
    console.error(`no benchmark's file name contains ${wanted.join(' or ')}`);
    process.exit(2);
  }
  const rows = [];
  let broken = false;
  for (const file of files) {
    const path = join(folder, file);
    for (const index of (await benchesOf(path)).keys()) {
      const child = spawnSync(
        process.execPath,
        ['--expose-gc', fileURLToPath(import.meta.url), '--one', path, String(index)],
        { stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 2 ** 26 },
      );
      const lines = child.stdout.split('\n').filter((line) => line.startsWith('{'));
      rows.push(...lines.map((line) => ({ file: basename(file, '.js'), ...JSON.parse(line) })));
      if (child.status !== 0) {
        broken = true;
        console.error(
          `${basename(file, '.js')}: the benchmark ended with ${child.status ?? child.signal}`,
        );
      }
      if (!json) for (const line of lines) print(JSON.parse(line));
    }
  }
  if (json) console.log(JSON.stringify(rows, undefined, 2));
  const missed = rows.filter(isMissed);
  if (!json) console.log(`${rows.length} figures, ${missed.length} promises missed`);
  process.exit(missed.length > 0 || broken ? 1 : 0);
}

async function benchesOf(path) {
  const { benches } = await import(pathToFileURL(path).href);
  return Array.isArray(benches) ? benches : [];
}

async function runOne(path, index) {
  const bench = (await benchesOf(path))[index];
  const result = await bench.run();
  const rows = Array.isArray(result) ? result : [{ name: bench.name, skip: result.skip }];
  for (const row of rows) console.log(JSON.stringify(row));
}

function isMissed(row) {
  return row.atMost !== undefined && !(row.value <= row.atMost);
}

function print(row) {
  if (row.skip !== undefined) {
    console.log(`skipped  ${row.name}: ${row.skip}`);
    return;
  }
  const verdict = row.atMost === undefined ? '-' : isMissed(row) ? 'MISSED' : 'ok';
  const promise = row.atMost === undefined ? '' : `, promised at most ${row.atMost}`;
  const detail = row.detail === undefined ? '' : ` (${row.detail})`;
  console.log(
    `${verdict.padEnd(6)} ${row.name}: ${Number(row.value.toPrecision(3))} ${row.unit}${promise}${detail}`,
  );
}
