/**
 * C layouts from lists of fields: natural alignment as the System V ABI has it, little-endian whatever the host is.
 *
 * A struct is declared once; size, offsets, codec, trace decoding and the comparison with the C compiler come from that
 * declaration. A decoded struct is a plain mutable object with the C field names; encoding writes the fields and leaves
 * padding bytes as they are, so that what a client left in the gaps comes back to it unchanged, as from the kernel.
 *
 * Invariant: offsets grow in declaration order, every offset is a multiple of its field's alignment, and the size is a
 * multiple of the struct's alignment.
 */

/** Bytes to read from or write to. A DataView saves the construction of one (about 100 ns). */
export type Bytes = Uint8Array | DataView;

type ScalarKind = 'u8' | 'u16' | 'u32' | 's32' | 'u64' | 's64';

/** How a person wants to see a field; says nothing about its bytes. */
export type Meaning =
  | { readonly show: 'pointer' | 'hex' | 'fd' | 'text' }
  | {
      readonly show: 'flags' | 'enum';
      /** what all names have in common and a reader of the struct does not need */
      readonly prefix: string;
      readonly values: Readonly<Record<string, number>>;
    };

/** What a field can be. Shapes of `T`: number up to 32 bits, bigint for 64, arrays, strings, objects of structs, {@link Union}. */
export type FieldType<T> = {
  readonly kind: ScalarKind | 'array' | 'struct' | 'union';
  /** in bytes */
  readonly size: number;
  /** in bytes, a power of two */
  readonly align: number;
  readonly meaning?: Meaning;
  read(view: DataView, offset: number): T;
  write(value: T, view: DataView, offset: number): void;
  /** The value whose bytes are all 0. */
  zero(): T;
};

/** The TypeScript type of a declared struct or field type. */
export type Static<F> = F extends { read(view: DataView, offset: number): infer T } ? T : never;

export type Fields = Readonly<Record<string, FieldType<unknown>>>;
type Values<F extends Fields> = { -readonly [K in keyof F]: Static<F[K]> };

const GETTERS = {
  u8: 'Uint8',
  u16: 'Uint16',
  u32: 'Uint32',
  s32: 'Int32',
  u64: 'BigUint64',
  s64: 'BigInt64',
} as const satisfies Record<ScalarKind, string>;

function small(kind: 'u8' | 'u16' | 'u32' | 's32', size: number): FieldType<number> {
  const name = GETTERS[kind];
  return {
    kind,
    size,
    align: size,
    read: (view, offset) => view[`get${name}`](offset, true),
    write: (value, view, offset) => {
      view[`set${name}`](offset, value, true);
    },
    zero: () => 0,
  };
}

function large(kind: 'u64' | 's64'): FieldType<bigint> {
  const name = GETTERS[kind];
  return {
    kind,
    size: 8,
    align: 8,
    read: (view, offset) => view[`get${name}`](offset, true),
    write: (value, view, offset) => {
      view[`set${name}`](offset, value, true);
    },
    zero: () => 0n,
  };
}

export const u8 = small('u8', 1);
export const u16 = small('u16', 2);
export const u32 = small('u32', 4);
export const s32 = small('s32', 4);
/** `__u64`, `__aligned_u64` and `__aligned_le64` alike: on the machines we run on they are one type. */
export const u64 = large('u64');
export const s64 = large('s64');
export type ArrayType<T> = FieldType<T[]> & {
  readonly kind: 'array';
  readonly element: FieldType<T>;
  readonly count: number;
};

/** `T name[count]`; a count of 0 is a flexible array, which adds its alignment but no size and decodes to []. */
export function array<T>(element: FieldType<T>, count: number): ArrayType<T> {
  return {
    kind: 'array',
    element,
    count,
    size: element.size * count,
    align: element.align,
    read: (view, offset) =>
      Array.from({ length: count }, (_, i) => element.read(view, offset + i * element.size)),
    write: (value, view, offset) => {
      for (let i = 0; i < count; i++) {
        element.write(value[i] as T, view, offset + i * element.size);
      }
    },
    zero: () => Array.from({ length: count }, () => element.zero()),
  };
}

/**
 * The bytes of a union, decoded only when somebody says which member they are. It is a window on the bytes that it was
 * decoded from: what is written to it is written there.
 */
export class Union<M extends Fields = Fields> {
  readonly members: M;
  readonly #view: DataView;
  readonly #offset: number;
  readonly #size: number;

  constructor(members: M, view: DataView, { offset, size }: { offset: number; size: number }) {
    this.members = members;
    this.#view = view;
    this.#offset = offset;
    this.#size = size;
  }

  /** The bytes themselves, not a copy. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + this.#offset, this.#size);
  }

  /** The bytes read as `member`. */
  read<K extends keyof M & string>(member: K): Static<M[K]> {
    return this.#type(member).read(this.#view, this.#offset) as Static<M[K]>;
  }

  /** Makes `member` the content; bytes beyond the member stay. */
  write<K extends keyof M & string>(member: K, value: Static<M[K]>): void {
    this.#type(member).write(value, this.#view, this.#offset);
  }

  /** Copies the bytes into a struct that is encoded; nothing to do where they are its own. */
  copyTo(view: DataView, offset: number): void {
    const from = this.#view;
    const at = view.byteOffset + offset;
    if (view.buffer === from.buffer && at === from.byteOffset + this.#offset) return;
    new Uint8Array(view.buffer, at, this.#size).set(this.bytes);
  }

  #type(member: string): FieldType<unknown> {
    const type = this.members[member];
    if (type === undefined) throw new RangeError(`the union has no member ${member}`);
    return type;
  }
}

export type UnionType<M extends Fields> = FieldType<Union<M>> & {
  readonly kind: 'union';
  readonly members: M;
};

/** An anonymous union. Decodes to a {@link Union}. */
export function union<M extends Fields>(members: M): UnionType<M> {
  const types = Object.values(members);
  const align = Math.max(...types.map((type) => type.align));
  const size = roundUp(Math.max(...types.map((type) => type.size)), align);
  return {
    kind: 'union',
    members,
    size,
    align,
    read: (view, offset) => new Union(members, view, { offset, size }),
    write: (value, view, offset) => {
      value.copyTo(view, offset);
    },
    zero: () => new Union(members, new DataView(new ArrayBuffer(size)), { offset: 0, size }),
  };
}

export type Struct<F extends Fields = Fields> = FieldType<Values<F>> & {
  readonly kind: 'struct';
  readonly name: string;
  readonly fields: F;
  /** In bytes from the start of the struct. */
  offsetOf(field: keyof F & string): number;
  /** First byte after `field`: the smallest struct that holds it. */
  endOf(field: keyof F & string): number;
  /** @param offset of the struct within `bytes`, which must hold all of it */
  decode(bytes: Bytes, offset?: number): Values<F>;
  encode(value: Values<F>, bytes: Bytes, offset?: number): void;
  /** All fields 0 save those given; a first field named `size` or `argsz` is the size of the struct unless given. */
  make(given?: Partial<Values<F>>): Values<F>;
};

/**
 * Declares a struct.
 * @param name the C name, without the word struct
 * @param fields C names and types in the order of the header; padding is implied, never listed
 */
export function struct<F extends Fields>(name: string, fields: F): Struct<F> {
  const { offsets, size, align } = layOut(fields);
  const codec = generate(fields, offsets);
  const offsetOf = (field: string): number => {
    const offset = offsets.get(field);
    if (offset === undefined) throw new RangeError(`struct ${name} has no field ${field}`);
    return offset;
  };
  const zero = (): Values<F> =>
    Object.fromEntries(
      Object.entries(fields).map(([field, type]) => [field, type.zero()]),
    ) as Values<F>;
  return {
    kind: 'struct',
    name,
    fields,
    size,
    align,
    offsetOf,
    endOf: (field) => offsetOf(field) + (fields[field]?.size ?? 0),
    read: codec.read as (view: DataView, offset: number) => Values<F>,
    write: codec.write,
    decode: (bytes, offset = 0) => codec.read(viewOf(bytes), offset) as Values<F>,
    encode: (value, bytes, offset = 0) => {
      codec.write(value, viewOf(bytes), offset);
    },
    zero,
    make: (given) => {
      // VFIO's structs have an `argsz` in front, and some a `size` of something else behind.
      const [first = ''] = Object.keys(fields);
      const own = first === 'size' || first === 'argsz' ? { [first]: size } : {};
      return { ...zero(), ...own, ...given };
    },
  };
}

function layOut(fields: Fields): { offsets: Map<string, number>; size: number; align: number } {
  const offsets = new Map<string, number>();
  let end = 0;
  let align = 1;
  for (const [field, type] of Object.entries(fields)) {
    const offset = roundUp(end, type.align);
    offsets.set(field, offset);
    end = offset + type.size;
    align = Math.max(align, type.align);
  }
  return { offsets, size: roundUp(end, align), align };
}

type Codec = {
  read: (view: DataView, offset: number) => unknown;
  write: (value: unknown, view: DataView, offset: number) => void;
};

/**
 * One function each way per struct, written out field by field. A loop over a table costs 280 ns for seven fields, because
 * every `object[name]` in it is megamorphic; these cost 55 (Node 20, this is what each emulated call pays twice).
 */
function generate(fields: Fields, offsets: ReadonlyMap<string, number>): Codec {
  const rows = Object.entries(fields).map(([field, type]) => {
    const key = JSON.stringify(field);
    const at = `offset + ${offsets.get(field) ?? 0}`;
    const scalar = type.kind in GETTERS ? GETTERS[type.kind as ScalarKind] : undefined;
    return scalar === undefined
      ? {
          read: `${key}: types[${key}].read(view, ${at})`,
          write: `types[${key}].write(value[${key}], view, ${at});`,
        }
      : {
          read: `${key}: view.get${scalar}(${at}, true)`,
          write: `view.set${scalar}(${at}, value[${key}], true);`,
        };
  });
  const body = `return {
    read: (view, offset) => ({ ${rows.map((row) => row.read).join(', ')} }),
    write: (value, view, offset) => { ${rows.map((row) => row.write).join(' ')} },
  };`;
  // The text is made of this repository's own declarations, never of input; five times faster than a loop (above).
  // eslint-disable-next-line @typescript-eslint/no-implied-eval
  return (new Function('types', body) as (types: Fields) => Codec)(fields);
}

function viewOf(bytes: Bytes): DataView {
  return bytes instanceof DataView
    ? bytes
    : new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
