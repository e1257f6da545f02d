/** YAML as a tree of texts with their places: what the reader works on, whichever way it was parsed. */

/** First line and column are 1. */
export type Place = { readonly line: number; readonly column: number };

export type TreePair = { readonly name: string; readonly at: Place; readonly value: Tree };

/** Scalars are what is written, without quotes; `quoted` says that it can only be meant as text. */
export type Tree =
  | { readonly kind: 'scalar'; readonly at: Place; readonly text: string; readonly quoted: boolean }
  | { readonly kind: 'list'; readonly at: Place; readonly items: readonly Tree[] }
  | { readonly kind: 'map'; readonly at: Place; readonly pairs: readonly TreePair[] };

export class YamlError extends Error {
  override readonly name = 'YamlError';
  readonly at: Place;

  constructor(at: Place, message: string) {
    super(message);
    this.at = at;
  }
}
