/**
 * What the bytes of a field mean to a reader, attached to the field's type where the struct is declared. Codec and layout
 * do not depend on it; traces do.
 */
import { s32, u64, type FieldType } from '../base/struct.ts';

type Names = Readonly<Record<string, number>>;

/** A set of flags. @param prefix of all names, left out in traces: IOMMU_IOAS_MAP_READABLE is shown as READABLE */
export function flags<T>(type: FieldType<T>, prefix: string, values: Names): FieldType<T> {
  return { ...type, meaning: { show: 'flags', prefix, values } };
}

/** One of several values. */
export function oneOf<T>(type: FieldType<T>, prefix: string, values: Names): FieldType<T> {
  return { ...type, meaning: { show: 'enum', prefix, values } };
}

/** A number that people read in hexadecimal: an address, a length, a register. */
export function hex<T>(type: FieldType<T>): FieldType<T> {
  return { ...type, meaning: { show: 'hex' } };
}

/** An address in the memory of the client. */
export const pointer: FieldType<bigint> = { ...u64, meaning: { show: 'pointer' } };
/** A 64-bit IOVA, length or page size. */
export const iova: FieldType<bigint> = hex(u64);
/** A file descriptor of the client. */
export const fd: FieldType<number> = { ...s32, meaning: { show: 'fd' } };

/** `char name[size]`: ends at the first 0, or with the array. Bytes above 0x7f are read one by one. */
export function text(size: number): FieldType<string> {
  return {
    kind: 'array',
    size,
    align: 1,
    meaning: { show: 'text' },
    read: (view, offset) => {
      const bytes = new Uint8Array(view.buffer, view.byteOffset + offset, size);
      const end = bytes.indexOf(0);
      return String.fromCharCode(...(end < 0 ? bytes : bytes.subarray(0, end)));
    },
    write: (value, view, offset) => {
      for (let i = 0; i < size; i++) view.setUint8(offset + i, value.charCodeAt(i) || 0);
    },
    zero: () => '',
  };
}
