/**
 * What a subcommand of `uiommu` is. One file in commands/ each; main.ts lists them. Exit status: 0 done, 1 the answer is
 * no (not assignable, differs), 2 wrong usage or input, and for `run` the client's own.
 */
import { UiommuError } from '../base/error.ts';

export type Command = {
  readonly name: string;
  /** one line for `uiommu help` */
  readonly summary: string;
  /** the whole page for `uiommu help NAME` and `uiommu NAME --help`; starts with usage, ends with examples */
  readonly help: string;
  /** @returns the exit status */
  run(args: readonly string[]): Promise<number> | number;
};

/** Wrong arguments or input, told to a person in one message: where, what was expected, what to do. Exit status 2. */
export class UsageError extends UiommuError {
  override readonly name = 'UsageError';
  readonly code = 'USAGE';
}
