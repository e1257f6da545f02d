/**
 * A command's help page as data. The page that `uiommu help` prints is the one place where options are described; man page and
 * shell completions are made from it, and so cannot differ.
 *
 * Form of a page: "usage:" lines, paragraphs, option lines (two spaces, the names, at least two spaces, the text, continued
 * further in), sections that begin with "word:", "Exit status: …", and "examples:" at the end.
 */
import type { Command } from './command.ts';

/** One line of options. */
export type PageOption = {
  /** "-m", "--machine" */
  readonly names: readonly string[];
  /** "NAME", "[=FILE]"; undefined for a flag */
  readonly value: string | undefined;
  readonly about: string;
};

export type Page = {
  readonly usage: readonly string[];
  readonly paragraphs: readonly string[];
  readonly options: readonly PageOption[];
  readonly examples: readonly string[];
};

const OPTION = /^ {2,6}(-{1,2}\S.*?)(?: {2,}(.*))?$/;
const CONTINUED = /^ {10,}(\S.*)$/;

/** Reads the options of one line, such as "-m, --machine NAME". */
function optionOf(written: string, about: string): PageOption {
  const parts = written.split(', ');
  const names = parts.map((part) => /^-{1,2}[\w-]+/.exec(part)?.[0] ?? part);
  const value = parts.map((part) => part.replace(/^-{1,2}[\w-]+/, '').trim()).find(Boolean);
  return { names, value, about };
}

export function pageOf({ help }: Pick<Command, 'help'>): Page {
  const [body = '', examples = ''] = help.split('\nexamples:\n');
  const usage: string[] = [];
  const paragraphs: string[] = [];
  const options: PageOption[] = [];
  for (const block of body.split('\n\n')) {
    const lines = block.split('\n').filter((line) => line !== '');
    if (lines[0]?.startsWith('usage:') === true) {
      usage.push(...lines.map((line) => line.replace(/^usage: | {7}/, '')));
      continue;
    }
    if (!lines.some((line) => OPTION.test(line))) {
      if (lines.length > 0) paragraphs.push(lines.join('\n'));
      continue;
    }
    for (const line of lines) {
      const [, written, about = ''] = OPTION.exec(line) ?? [];
      const last = options.at(-1);
      const more = CONTINUED.exec(line)?.[1];
      if (written !== undefined) options.push(optionOf(written, about));
      else if (more !== undefined && last !== undefined) {
        options[options.length - 1] = { ...last, about: `${last.about} ${more}`.trim() };
      }
    }
  }
  return { usage, paragraphs, options, examples: examples.split('\n').filter(Boolean) };
}
