/**
 * A small assembler for classic BPF as seccomp takes it (include/uapi/linux/filter.h, seccomp.h). A program is a list of
 * instructions and labels (`'name:'`); jumps go forward to a label, an absent target falls through.
 */

export type Instruction =
  | readonly ['load', offset: number]
  | readonly ['and', mask: number]
  | readonly [
      'equal' | 'greater' | 'atLeast' | 'anyBit',
      value: number,
      yes?: string | undefined,
      no?: string,
    ]
  | readonly ['jump', label: string]
  | readonly ['return', action: number];

export const SECCOMP_RET_USER_NOTIF = 0x7fc00000;
export const SECCOMP_RET_ALLOW = 0x7fff0000;
export const AUDIT_ARCH_X86_64 = 0xc000003e;

// struct seccomp_data
export const DATA_NR = 0;
export const DATA_ARCH = 4;
/** Offset of the low half of argument `index`. */
export const dataLow = (index: number): number => 16 + 8 * index;
/** Offset of the high half of argument `index`. */
export const dataHigh = (index: number): number => 20 + 8 * index;

const OPCODE = {
  load: 0x20,
  and: 0x54,
  equal: 0x15,
  greater: 0x25,
  atLeast: 0x35,
  anyBit: 0x45,
  jump: 0x05,
  return: 0x06,
} as const;
const FILTER_SIZE = 8;
const LONGEST_JUMP = 255;

/**
 * Assembles a program.
 * @param source instructions, and labels ending in a colon
 * @returns an array of struct sock_filter
 */
export function assemble(source: readonly (Instruction | string)[]): Uint8Array {
  const labels = new Map<string, number>();
  const program: Instruction[] = [];
  for (const item of source) {
    if (typeof item === 'string') labels.set(item.slice(0, -1), program.length);
    else program.push(item);
  }
  const bytes = new Uint8Array(program.length * FILTER_SIZE);
  const view = new DataView(bytes.buffer);
  program.forEach((instruction, index) => {
    const jump = (label: string | undefined): number => {
      if (label === undefined) return 0;
      const target = labels.get(label);
      const distance = target === undefined ? -1 : target - index - 1;
      if (distance < 0 || (distance > LONGEST_JUMP && instruction[0] !== 'jump')) {
        throw new RangeError(`no jump from instruction ${index} to ${label}`);
      }
      return distance;
    };
    const at = index * FILTER_SIZE;
    const [operation, operand] = instruction;
    view.setUint16(at, OPCODE[operation], true);
    view.setUint8(at + 2, jump(instruction[2]));
    view.setUint8(at + 3, jump(instruction[3]));
    view.setUint32(at + 4, operation === 'jump' ? jump(operand) : operand, true);
  });
  return bytes;
}
