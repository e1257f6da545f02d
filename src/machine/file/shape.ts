/**
 * Shapes: what a YAML file may contain, declared once. The reader (reader.ts), its messages, and the JSON Schema for editors
 * are all made from the same declaration, so they cannot disagree.
 */

/** One line for people: what belongs here. */
type About = { readonly about: string };

export type TextShape = About & {
  readonly kind: 'text';
  /** the whole text must match; undefined for any */
  readonly pattern: RegExp | undefined;
  /** how to say it: "a device address like 01:00.0" */
  readonly what: string;
};
export type WordShape = About & { readonly kind: 'word'; readonly words: readonly string[] };
export type NumberShape = About & {
  readonly kind: 'number';
  readonly min: number;
  readonly max: number;
};
export type FlagShape = About & { readonly kind: 'flag' };
export type ListShape = About & { readonly kind: 'list'; readonly of: Shape };
export type MapShape = About & {
  readonly kind: 'map';
  readonly fields: Readonly<Record<string, Shape>>;
  readonly required: readonly string[];
};
/** Shapes that the kind of YAML node tells apart: a scalar, a list, a map. */
export type EitherShape = About & { readonly kind: 'either'; readonly options: readonly Shape[] };

export type Shape =
  TextShape | WordShape | NumberShape | FlagShape | ListShape | MapShape | EitherShape;

export function text(what: string, pattern: RegExp | undefined, about: string): TextShape {
  return { kind: 'text', what, pattern, about };
}

export function word(words: readonly string[], about: string): WordShape {
  return { kind: 'word', words, about };
}

export function number(min: number, max: number, about: string): NumberShape {
  return { kind: 'number', min, max, about };
}

export function flag(about: string): FlagShape {
  return { kind: 'flag', about };
}

export function list(of: Shape, about: string): ListShape {
  return { kind: 'list', of, about };
}

export function map(
  fields: Readonly<Record<string, Shape>>,
  required: readonly string[],
  about: string,
): MapShape {
  return { kind: 'map', fields, required, about };
}

export function either(options: readonly Shape[], about: string): EitherShape {
  return { kind: 'either', options, about };
}

/** What was expected, in words. */
export function expectation(shape: Shape): string {
  switch (shape.kind) {
    case 'text':
      return shape.what;
    case 'word':
      return `one of ${shape.words.join(', ')}`;
    case 'number':
      return `a whole number from ${shape.min} to ${shape.max}`;
    case 'flag':
      return 'true or false';
    case 'list':
      return `a list (${expectation(shape.of)} each)`;
    case 'map':
      return `a map with ${Object.keys(shape.fields).join(', ')}`;
    case 'either':
      return shape.options.map(expectation).join(', or ');
  }
}

type Json = string | number | boolean | readonly Json[] | { readonly [key: string]: Json };

/** The same shape as a JSON Schema (draft 2020-12). */
export function jsonSchema(shape: Shape): Record<string, Json> {
  const description = shape.about;
  switch (shape.kind) {
    case 'text':
      // Editors see 10 as a number where the reader sees the two characters.
      return shape.pattern === undefined
        ? { type: ['string', 'number', 'boolean'], minLength: 1, description }
        : { type: ['string', 'integer'], pattern: shape.pattern.source, description };
    case 'word':
      return { enum: shape.words, description };
    case 'number':
      return { type: 'integer', minimum: shape.min, maximum: shape.max, description };
    case 'flag':
      return { type: 'boolean', description };
    case 'list':
      return { type: 'array', items: jsonSchema(shape.of), description };
    case 'map':
      return {
        type: 'object',
        properties: Object.fromEntries(
          Object.entries(shape.fields).map(([name, field]) => [name, jsonSchema(field)]),
        ),
        ...(shape.required.length > 0 ? { required: shape.required } : {}),
        additionalProperties: false,
        description,
      };
    case 'either':
      return { anyOf: shape.options.map(jsonSchema), description };
  }
}
