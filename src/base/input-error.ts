import { UiommuError } from './error.ts';

/**
 * Input from a person that cannot be used: a file, an argument. The message is complete: where, what was expected, what to
 * do about it; no stack is shown with it.
 */
export class InputError extends UiommuError {
  override readonly name: string = 'InputError';
  readonly code: string = 'INPUT';
}
