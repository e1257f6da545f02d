import { UiommuError } from '../base/error.ts';

/** This computer cannot do what was asked, such as run programs under a filter; the message says why and what would help. */
export class UnsupportedError extends UiommuError {
  override readonly name = 'UnsupportedError';
  readonly code = 'UNSUPPORTED';
}
