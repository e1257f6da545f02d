/** Recordings of vfiofuzz and type1fuzz: what the machine is, then what the program printed on it, seed by seed. */
import { parseRecording, type Recording } from './recording.ts';

export type FuzzRecording = {
  /** the head of the recording, a machine as `uiommu run -m` takes it */
  readonly machine: string;
  /** arguments of the program */
  readonly first: number;
  readonly last: number;
  readonly steps: number;
  readonly seeds: Recording;
};

/**
 * Takes a recording apart: the line `PROGRAM FIRST LAST STEPS` parts machine and output, the line `end` closes it.
 * @throws Error for a text that is not a recording of the program
 */
export function parseFuzzRecording(text: string, program: string): FuzzRecording {
  const lines = text.split('\n');
  const at = lines.findIndex((line) => line.startsWith(`${program} `));
  const [, first, last, steps] = /^\S+ (\d+) (\d+) (\d+)$/.exec(lines[at] ?? '') ?? [];
  if (first === undefined || last === undefined || steps === undefined) {
    throw new Error(`the recording has no line "${program} FIRST LAST STEPS"`);
  }
  const output = lines.slice(at + 1).filter((line) => line !== 'end');
  return {
    machine: `${lines.slice(0, at).join('\n')}\n`,
    first: Number(first),
    last: Number(last),
    steps: Number(steps),
    seeds: parseRecording(output.join('\n')),
  };
}
