/** The documents say what is there: links, scripts and files that they name exist, and the README is short. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'node:test';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const README_LINES = 200;

type Page = { name: string; text: string };

function pages(): Page[] {
  const docs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' });
  const names = [...readdirSync(ROOT), ...docs.map((name) => `docs/${name}`)];
  return names
    .filter((name) => name.endsWith('.md'))
    .map((name) => ({ name, text: readFileSync(join(ROOT, name), 'utf8') }));
}

const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  scripts: Record<string, string>;
};

/** Targets of links, relative ones only. */
function links({ name, text }: Page): string[] {
  return [...text.matchAll(/\]\(([^)#\s]+)[^)]*\)/g)]
    .map((match) => match[1] ?? '')
    .filter((target) => !/^[a-z]+:/.test(target))
    .filter((target) => !existsSync(join(ROOT, dirname(name), target)))
    .map((target) => `${name}: ${target}`);
}

/** `npm run X` and `npm test` that package.json does not have. */
function commands({ name, text }: Page): string[] {
  return [...text.matchAll(/\bnpm run ([\w:-]+)/g)]
    .map((match) => match[1] ?? '')
    .filter((script) => !(script in scripts))
    .map((script) => `${name}: npm run ${script}`);
}

/** Paths of the repository in code spans, `src/base/errno.ts` or `bench/`; not those with a placeholder. */
function paths({ name, text }: Page): string[] {
  return [...text.matchAll(/`((?:src|test|bench|scripts|examples|docs|schema)\/[\w./-]*)`/g)]
    .map((match) => match[1] ?? '')
    .filter((path) => !/[A-Z]{2}/.test(path) && !existsSync(join(ROOT, path)))
    .map((path) => `${name}: ${path}`);
}

test('documents: every relative link leads somewhere', () => {
  assert.ok(pages().length > 5);
  assert.deepEqual(pages().flatMap(links), []);
});

test('documents: every npm script that is named exists', () => {
  assert.deepEqual(pages().flatMap(commands), []);
});

test('documents: every file that is named exists', () => {
  assert.deepEqual(pages().flatMap(paths), []);
});

test(`README.md has fewer than ${README_LINES} lines`, () => {
  const lines = readFileSync(join(ROOT, 'README.md'), 'utf8').split('\n').length;
  assert.ok(lines < README_LINES, `${lines} lines`);
});

/** Blocks of README.md that show a command and its output; "…" stands for what is left out. */
function shownOutput(): { command: string; lines: string[] }[] {
  const text = readFileSync(join(ROOT, 'README.md'), 'utf8');
  return [...text.matchAll(/^ {4}\$ uiommu (why|ls|check)( .*)?\n((?: {4}.*\n)+)/gm)].map(
    ([, command = '', args = '', block = '']) => ({
      command: command + args,
      lines: block.split('\n').map((line) => line.slice(4)),
    }),
  );
}

test('README.md shows what the commands print', () => {
  const shown = shownOutput();
  assert.ok(shown.length > 0);
  for (const { command, lines } of shown) {
    const args = [join(ROOT, 'bin', 'uiommu.js'), ...command.split(' ')];
    const { stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    for (const line of lines.filter((each) => each !== '' && each !== '…')) {
      const pattern = line.split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
      assert.match(stdout, new RegExp(`^${pattern.join('.*')}$`, 'm'), command);
    }
  }
});

test('docs/tutorial.md shows what a shell on the machine prints', (t) => {
  const page = readFileSync(join(ROOT, 'docs', 'tutorial.md'), 'utf8');
  const lines = [...page.matchAll(/^ {4}(.*)$/gm)].map(([, line = '']) => line);
  const first = lines.findIndex((line) => line.startsWith('$ '));
  const shown = lines.slice(first).filter((line) => !line.startsWith('uiommu '));
  const commands = shown.filter((line) => line.startsWith('$ ')).map((line) => line.slice(2));
  assert.ok(commands.length > 5);
  const run = ['run', '-m', 'pc', '--', 'bash', '-s'];
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(ROOT, 'bin', 'uiommu.js'), ...run],
    { encoding: 'utf8', input: `exec 2>&1\n${commands.join('\n')}\n` },
  );
  if (status === 125) {
    t.skip(stderr);
    return;
  }
  assert.deepEqual(
    stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.replace(/^bash: line \d+: /, 'bash: ')),
    shown
      .filter((line) => !line.startsWith('$ '))
      .map((line) => line.replace(/^bash: line \d+: /, 'bash: ')),
  );
});

test('documents: what is wrong would be found', () => {
  const page = {
    name: 'x.md',
    text: '[a](nowhere.md) `npm run nothing` `src/none.ts` [b](https://x.example)',
  };
  assert.equal(links(page).length, 1);
  assert.equal(commands(page).length, 1);
  assert.equal(paths(page).length, 1);
});
