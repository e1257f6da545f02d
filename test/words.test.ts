/**
 * The words that people read: README, docs, help and every message in the source use the terms of the IOMMU mailing list, and
 * the glossary names only what exists in the code.
 */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'node:test';
import ts from 'typescript';

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** What must be translated before it is understood, and the term to use instead. */
const TRANSLATED: readonly (readonly [word: RegExp, instead: string])[] = [
  [/\btold\b|\btells?\b|\btelling\b/, 'says, reports, distinguishes'],
  [/\b(?:look|looks|looked|looking) (?:at|in each)\b/, 'checks, reads, traps'],
  [/\bof ours\b/, 'emulated, of uiommu'],
  [/\bdoors?\b/, 'interface'],
  [/\b[Nn]obody\b|\b[Ss]omebody\b/, 'no process, no one, another owner'],
  [/\bfile numbers?\b/, 'fd'],
  [/\bgiven? away\b|\bgives? away\b/, 'assign'],
  [/\bparts? them\b|\bpart them\b/, 'split the group'],
  [/\bbehind (?:its|the IOMMU's) back\b/, 'bypasses the IOMMU'],
  [/(?<!\b[Tt]here )\bis no (?!longer\b|more\b)[a-z]/, 'is not a'],
  [
    /\bare not known\b|\bis not possible\b|\bbeyond every address space\b/,
    'unknown, must be, exceeds',
  ],
  [/\btakes no further file\b/, 'fd table is full'],
  [/\bin user hands\b/, 'owned by user space'],
  [/\bmachine made of software\b|\bthe judge is\b/i, 'simulated machine; is the reference'],
  [/\bnothing was left behind\b|\bwhat happened\b/, 'no leaks; summary'],
  [/\bcounts as root\b/, 'run as root on the simulated machine'],
];

type Text = { readonly where: string; readonly text: string };

function documents(): Text[] {
  const docs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' });
  return ['README.md', ...docs.map((name) => `docs/${name}`)]
    .filter((name) => name.endsWith('.md'))
    .flatMap((name) =>
      readFileSync(join(ROOT, name), 'utf8')
        .split('\n')
        .map((text, i) => ({ where: `${name}:${i + 1}`, text })),
    );
}

function sources(): string[] {
  return readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
    .filter((name) => !name.startsWith('testing/'))
    .map((name) => `src/${name}`);
}

/** Texts in the code: strings and the fixed parts of templates, which is what messages and help are made of. */
function literals(name: string, text: string): Text[] {
  const source = ts.createSourceFile(name, text, ts.ScriptTarget.Latest);
  const found: Text[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteralLike(node) || ts.isTemplateLiteralToken(node)) {
      const { line } = source.getLineAndCharacterOfPosition(node.getStart(source));
      found.push({ where: `${name}:${line + 1}`, text: node.text });
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

function wrong({ where, text }: Text): string[] {
  return TRANSLATED.flatMap(([word, instead]) => {
    const hit = word.exec(text)?.[0];
    return hit === undefined
      ? []
      : [`${where}: "${hit}" (${instead}): ${text.trim().slice(0, 100)}`];
  });
}

test('words: documents and messages need no translation', () => {
  const messages = sources().flatMap((name) =>
    literals(name, readFileSync(join(ROOT, name), 'utf8')),
  );
  assert.ok(messages.length > 1000, 'no messages found');
  const found = [...documents(), ...messages].flatMap(wrong);
  assert.ok(found.length === 0, `\n${found.join('\n')}`);
});

test('words: a word that must be translated is found in a document and in a template', () => {
  const planted = literals('x.ts', 'throw new Errno("EINVAL", `${name} is no device of ours`);');
  const found = planted.flatMap(wrong).map((line) => line.split(' (')[0]);
  assert.deepEqual(found.sort(), ['x.ts:1: "is no d"', 'x.ts:1: "of ours"']);
});

/** Words in the column "in code" of the glossary. */
function glossaryWords(): string[] {
  const page = readFileSync(join(ROOT, 'docs', 'glossary.md'), 'utf8');
  return page
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .flatMap((line) => [...(line.split('|').at(-2) ?? '').matchAll(/`([^`]+)`/g)])
    .map(([, word = '']) => word)
    .filter((word) => !word.includes('/') && !word.includes('*'));
}

test('glossary: every name that it gives exists in the code', () => {
  const code = sources()
    .map((name) => readFileSync(join(ROOT, name), 'utf8'))
    .join('\n');
  const words = glossaryWords();
  assert.ok(words.length > 30, 'the glossary has lost its column of names');
  const missing = words.filter((word) => {
    const [name = ''] = /[\w.]+/.exec(word) ?? [];
    const last = name.split('.').at(-1) ?? name;
    return !new RegExp(`\\b${last}\\b`).test(code);
  });
  assert.deepEqual(missing, []);
});
