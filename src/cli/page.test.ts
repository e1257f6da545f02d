/** Man page and completions come from the help pages: every option that a command takes is on its page, and completes. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import test from 'node:test';
import { allCommands, main } from './main.ts';
import { manPage } from './man.ts';
import { pageOf } from './page.ts';

/** What a command prints. */
async function printed(...args: string[]): Promise<string> {
  let output = '';
  const write = process.stdout.write.bind(process.stdout);
  process.stdout.write = (text: string | Uint8Array): boolean => {
    output += text.toString();
    return true;
  };
  try {
    assert.equal(await main(args), 0, args.join(' '));
  } finally {
    process.stdout.write = write;
  }
  return output;
}

test('pageOf: usage, options with values and continued texts, examples', () => {
  const help = `usage: uiommu x [-m NAME]

Does something.

  -m, --machine NAME   the machine:
                       a file
      --trace[=FILE]   print calls
      --json           as JSON

Exit status: 0.

examples:
  uiommu x -m pc
`;
  const { usage, options, examples, paragraphs } = pageOf({ help });
  assert.deepEqual(usage, ['uiommu x [-m NAME]']);
  assert.deepEqual(options, [
    { names: ['-m', '--machine'], value: 'NAME', about: 'the machine: a file' },
    { names: ['--trace'], value: '[=FILE]', about: 'print calls' },
    { names: ['--json'], value: undefined, about: 'as JSON' },
  ]);
  assert.deepEqual(paragraphs, ['Does something.', 'Exit status: 0.']);
  assert.deepEqual(examples, ['  uiommu x -m pc']);
});

test('every command has a page with usage, options or none, exit status and examples', async () => {
  for (const command of await allCommands()) {
    const { usage, examples } = pageOf(command);
    assert.ok(usage[0]?.startsWith(`uiommu ${command.name}`), command.name);
    assert.ok(examples.length > 0, `${command.name} has no examples`);
    assert.match(command.help, /[Ee]xit\s+status/, command.name);
  }
});

test('uiommu --version prints the version of the package', async () => {
  assert.match(await printed('--version'), /^uiommu \d+\.\d+\.\d+\n$/);
});

test('the man page has every command and option, and man reads it', async (t) => {
  const page = manPage(await allCommands(), '1.2.3');
  for (const command of await allCommands()) {
    assert.ok(page.includes(`.SS "uiommu ${command.name}"`), command.name);
    for (const { names } of pageOf(command).options) {
      for (const name of names) assert.ok(page.includes(name.replace(/-/g, '\\-')), name);
    }
  }
  const man = spawnSync('man', ['--warnings', '-l', '-'], { input: page, encoding: 'utf8' });
  if (man.error !== undefined || man.status !== 0) {
    t.diagnostic('not read: there is no man that reads standard input');
    return;
  }
  assert.equal(man.stderr, '');
  assert.match(man.stdout, /uiommu run/);
});

for (const [line, expected] of [
  ['uiommu ch', ['check']],
  ['uiommu ls --pro', ['--profile']],
  ['uiommu ls --profile sub', ['subgroup']],
  ['uiommu help w', ['why']],
] as const) {
  test(`bash completes "${line}"`, async (t) => {
    const script = await printed('completion', 'bash');
    const words = line.split(' ');
    const run = `${script}
COMP_WORDS=(${words.join(' ')}); COMP_CWORD=${words.length - 1}
_uiommu; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout, stderr, error } = spawnSync('bash', ['--norc', '-c', run], {
      encoding: 'utf8',
    });
    if (error !== undefined) {
      t.skip('there is no bash');
      return;
    }
    assert.equal(stderr, '');
    assert.deepEqual(stdout.trim().split('\n'), expected);
  });
}

test('completion scripts of zsh and fish name every command and option', async () => {
  for (const shell of ['zsh', 'fish']) {
    const script = await printed('completion', shell);
    for (const command of await allCommands()) {
      assert.ok(script.includes(command.name), `${shell}: ${command.name}`);
      for (const { names } of pageOf(command).options) {
        for (const name of names) {
          const shown = shell === 'fish' ? name.replace(/^--?/, '') : name;
          assert.ok(script.includes(shown), `${shell}: ${name}`);
        }
      }
    }
  }
});
