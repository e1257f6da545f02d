/** The manual page uiommu(1), in man(7) macros, from the help pages of the commands. */
import type { Command } from './command.ts';
import { pageOf, type Page } from './page.ts';

/** Text as roff takes it: no line may begin with a control character, hyphens stay hyphens. */
function roff(text: string): string {
  return text
    .replace(/\\/g, '\\e')
    .replace(/-/g, '\\-')
    .split('\n')
    .map((line) => line.replace(/^([.'])/, '\\&$1'))
    .join('\n');
}

/** Lines that keep their breaks: usage, tables, examples. */
function verbatim(lines: readonly string[]): string[] {
  return ['.PP', '.nf', '.RS 4', ...lines.map(roff), '.RE', '.fi'];
}

function paragraph(text: string): string[] {
  return /^ {2}/m.test(text) ? verbatim(text.split('\n')) : ['.PP', roff(text)];
}

function commandLines({ name, summary }: Command, page: Page): string[] {
  return [
    `.SS "uiommu ${roff(name)}"`,
    roff(`${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`),
    ...verbatim(page.usage),
    ...page.paragraphs.flatMap(paragraph),
    ...page.options.flatMap(({ names, value = '', about }) => {
      const shown = names.map((each) => `\\fB${roff(each)}\\fR`).join(', ');
      const gap = value === '' || value.startsWith('[') || value.startsWith('=') ? '' : ' ';
      return ['.TP', `${shown}${gap}\\fI${roff(value)}\\fR`, roff(about)];
    }),
    ...(page.examples.length === 0 ? [] : ['.PP', 'Examples:', ...verbatim(page.examples)]),
  ];
}

/** @param version of the package */
export function manPage(commands: readonly Command[], version: string): string {
  return [
    `.TH UIOMMU 1 "" "uiommu ${version}" "User Commands"`,
    '.SH NAME',
    "uiommu \\- Linux's device assignment (IOMMU groups, IOMMUFD, VFIO) in user space",
    '.SH SYNOPSIS',
    '.B uiommu',
    '.I COMMAND',
    '.RI [ ARGUMENTS ]',
    '.SH COMMANDS',
    ...commands.flatMap((command) => commandLines(command, pageOf(command))),
    '.SH "EXIT STATUS"',
    roff(
      '0 done, or the answer is yes; 1 the answer is no; 2 wrong usage or input. uiommu run exits with the status of the program, 128+N if signal N ended it, 125 if uiommu itself failed.',
    ),
    '',
  ].join('\n');
}
