/**
 * Structs as people read them: flags and values by name, addresses in hexadecimal, what is always 0 left out. Pure; the
 * result is what a CallRecord carries, and JSON can hold it (64-bit numbers without a meaning stay bigint).
 */
import type { ArrayType, Fields, FieldType, Meaning, Static, Struct } from '../base/struct.ts';
import { Union } from '../base/struct.ts';
import type { CallRecord, TraceValue } from '../base/trace.ts';
import { TEST_OPS } from './iommufd-test.ts';

export type Direction = 'input' | 'output';

// The size is checked before anything is decoded and appears in the reason if it is wrong.
const UNINTERESTING = new Set(['size', 'argsz']);
const RESERVED = /^(_*reserved\d*|pad|last)$/;

/** Which member of a struct's union counts; undefined where nothing says so, and then the bytes are shown. */
function memberOf(struct: string, value: Readonly<Record<string, unknown>>, direction: Direction) {
  switch (struct) {
    case 'iommu_test_cmd':
      return TEST_OPS.get(value['op'] as number);
    case 'iommu_hw_info':
      return direction === 'input' ? 'in_data_type' : 'out_data_type';
    case 'vfio_pci_dependent_device':
      return 'devid';
    default:
      return undefined;
  }
}

/**
 * The fields of a decoded struct for a trace.
 * @param direction what the client gave, or what it got back: decides how an in/out union is read
 */
export function describe<F extends Fields>(
  struct: Struct<F>,
  value: Static<Struct<F>>,
  direction: Direction = 'input',
): Record<string, TraceValue> {
  const described: Record<string, TraceValue> = {};
  for (const [field, type] of Object.entries(struct.fields)) {
    const raw = value[field];
    if (UNINTERESTING.has(field)) continue;
    if (raw instanceof Union) {
      const member = memberOf(struct.name, value, direction);
      if (member === undefined) described[field] = bytesText(raw.bytes);
      else described[member] = describeMember(raw, member, direction);
    } else {
      const shown = describeField(type, raw, direction);
      if (!(RESERVED.test(field) && isZero(raw))) described[field] = shown;
    }
  }
  return described;
}

function describeMember(union: Union, member: string, direction: Direction): TraceValue {
  const type = union.members[member];
  return type === undefined
    ? bytesText(union.bytes)
    : describeField(type, union.read(member), direction);
}

function describeField(type: FieldType<unknown>, value: unknown, direction: Direction): TraceValue {
  if (type.kind === 'struct') return describe(type as Struct, value as Static<Struct>, direction);
  if (type.meaning?.show === 'text') return value as string;
  if (type.kind === 'array') {
    const { element } = type as ArrayType<unknown>;
    return (value as unknown[]).map((each) => describeField(element, each, direction));
  }
  const scalar = value as number | bigint;
  return type.meaning === undefined ? scalar : describeScalar(type.meaning, scalar);
}

function describeScalar(meaning: Meaning, value: number | bigint): TraceValue {
  switch (meaning.show) {
    case 'pointer':
      return BigInt(value) === 0n ? 'NULL' : hexText(value);
    case 'hex':
      return hexText(value);
    case 'fd':
    case 'text':
      return value;
    case 'flags':
      return flagsText(meaning, BigInt(value));
    case 'enum': {
      const name = Object.keys(meaning.values).find((key) => meaning.values[key] === Number(value));
      return name === undefined ? hexText(value) : short(name, meaning.prefix);
    }
  }
}

type Names = Extract<Meaning, { show: 'flags' | 'enum' }>;

function flagsText({ values, prefix }: Names, value: bigint): string {
  let rest = value;
  const names: string[] = [];
  for (const [name, flag] of Object.entries(values)) {
    if ((value & BigInt(flag)) === 0n) continue;
    names.push(short(name, prefix));
    rest &= ~BigInt(flag);
  }
  if (rest !== 0n || names.length === 0) names.push(hexText(rest));
  return names.join('|');
}

/** IOMMU_HWPT_ALLOC_PASID with the prefix IOMMU_HWPT_ is ALLOC_PASID. */
function short(name: string, prefix: string): string {
  return name.startsWith(prefix) ? name.slice(prefix.length) : name;
}

function hexText(value: number | bigint): string {
  return value < 10 && value >= 0 ? value.toString() : `0x${value.toString(16)}`;
}

function bytesText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

function isZero(value: unknown): boolean {
  return Array.isArray(value) ? value.every(isZero) : Number(value) === 0;
}

/** `{flags=READABLE, iova=0x1000}`, the way strace prints a struct. */
export function fieldsText(fields: Readonly<Record<string, TraceValue>>): string {
  const parts = Object.entries(fields).map(([name, value]) => `${name}=${valueText(value)}`);
  return `{${parts.join(', ')}}`;
}

function valueText(value: TraceValue): string {
  if (Array.isArray(value)) return `[${value.map(valueText).join(', ')}]`;
  return typeof value === 'object'
    ? fieldsText(value as Readonly<Record<string, TraceValue>>)
    : String(value);
}

/** Decoded argument before and after a call; what the call did not change is left out of the latter. */
export type Decoded = {
  readonly input?: Readonly<Record<string, TraceValue>>;
  readonly output?: Readonly<Record<string, TraceValue>>;
};

/** Decodes the bytes that a call left. */
export function describeCall({ struct, input, output }: CallRecord): Decoded {
  if (struct === undefined || input === undefined) return {};
  // The client may have given less than the struct has: what is missing counts as 0.
  const whole = (bytes: Uint8Array): Uint8Array => {
    const padded = new Uint8Array(Math.max(struct.size, bytes.length));
    padded.set(bytes);
    return padded;
  };
  const given = describe(struct, struct.decode(whole(input)), 'input');
  // What the kernel fills in says nothing before the call.
  const before = Object.fromEntries(
    Object.entries(given).filter(([field]) => !field.startsWith('out_')),
  );
  if (output === undefined) return { input: before };
  const after = describe(struct, struct.decode(whole(output)), 'output');
  const changed = Object.entries(after).filter(
    ([field, value]) => field.startsWith('out_') || valueKey(value) !== valueKey(before[field]),
  );
  return { input: before, output: Object.fromEntries(changed) };
}

function valueKey(value: TraceValue | undefined): string {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'bigint' ? `${each}n` : each,
  );
}
