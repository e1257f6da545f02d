/** Colours for a terminal, plain text for everything else. */
import { UsageError } from './command.ts';

export type Style = {
  bold(text: string): string;
  dim(text: string): string;
  good(text: string): string;
  warn(text: string): string;
  bad(text: string): string;
};

/** Bold, dim, red, green, yellow, and the end of each. */
export const COLOURS = [0, 1, 2, 31, 32, 33] as const;

function paint(code: (typeof COLOURS)[number], on: boolean): (text: string) => string {
  return on ? (text) => `\u001b[${code}m${text}\u001b[0m` : (text) => text;
}

export function styleFor(coloured: boolean): Style {
  return {
    bold: paint(1, coloured),
    dim: paint(2, coloured),
    good: paint(32, coloured),
    warn: paint(33, coloured),
    bad: paint(31, coloured),
  };
}

/** @param wanted the value of --color: auto (a terminal, and NO_COLOR is not set), always, never */
export function chosenStyle(
  wanted: string | undefined,
  stream: NodeJS.WriteStream = process.stdout,
): Style {
  switch (wanted ?? 'auto') {
    case 'always':
      return styleFor(true);
    case 'never':
      return styleFor(false);
    case 'auto':
      return styleFor(stream.isTTY && !process.env['NO_COLOR']);
    default:
      throw new UsageError(`--color=${wanted ?? ''} is none; expected auto, always or never`);
  }
}
