/** The assembler, checked by running what it makes: a tiny interpreter of the instructions that seccomp knows. */
import assert from 'node:assert/strict';
import test from 'node:test';

import { assemble, type Instruction } from './bpf.ts';

/** Runs a program over a struct seccomp_data; opcodes as in include/uapi/linux/bpf_common.h. */
function execute(program: Uint8Array, data: DataView): number {
  const view = new DataView(program.buffer);
  let accumulator = 0;
  for (let at = 0; at < program.length; at += 8) {
    const [code, yes, no] = [
      view.getUint16(at, true),
      view.getUint8(at + 2),
      view.getUint8(at + 3),
    ];
    const operand = view.getUint32(at + 4, true);
    const jump = (condition: boolean): void => {
      at += 8 * (condition ? yes : no);
    };
    switch (code) {
      case 0x20: // BPF_LD | BPF_W | BPF_ABS
        accumulator = data.getUint32(operand, true);
        break;
      case 0x54: // BPF_ALU | BPF_AND | BPF_K
        accumulator = (accumulator & operand) >>> 0;
        break;
      case 0x05: // BPF_JMP | BPF_JA
        at += 8 * operand;
        break;
      case 0x15: // BPF_JMP | BPF_JEQ | BPF_K
        jump(accumulator === operand);
        break;
      case 0x25: // BPF_JGT
        jump(accumulator > operand);
        break;
      case 0x35: // BPF_JGE
        jump(accumulator >= operand);
        break;
      case 0x45: // BPF_JSET
        jump((accumulator & operand) !== 0);
        break;
      case 0x06: // BPF_RET | BPF_K
        return operand;
      default:
        throw new Error(`unknown opcode ${code}`);
    }
  }
  throw new Error('ran off the end');
}

const bytes = new DataView(new ArrayBuffer(64));

test('assemble refuses a jump to a label that is missing or behind', () => {
  const loop: (Instruction | string)[] = ['again:', ['load', 0], ['jump', 'again']];
  assert.throws(() => assemble(loop), RangeError);
  assert.throws(() => assemble([['equal', 1, 'nowhere']]), RangeError);
});

test('assemble refuses a conditional jump that is too long', () => {
  const long: Instruction[] = Array.from({ length: 300 }, () => ['load', 0] as const);
  assert.throws(() => assemble([['equal', 1, 'far'], ...long, 'far:', ['return', 0]]), RangeError);
});

test('assemble: conditions, masks and jumps do what they say', () => {
  const program = assemble([
    ['load', 0],
    ['and', 0xff00],
    ['equal', 0x3b00, 'match'],
    ['greater', 0x8000, 'big'],
    ['atLeast', 0x8000, 'edge'],
    ['anyBit', 0x0100, 'odd', 'none'],
    'match:',
    ['return', 1],
    'big:',
    ['return', 2],
    'edge:',
    ['jump', 'end'],
    'odd:',
    ['return', 4],
    'none:',
    ['return', 5],
    'end:',
    ['return', 3],
  ]);
  for (const [value, expected] of [
    [0x12343b85, 1],
    [0x9000, 2],
    [0x8000, 3],
    [0x0100, 4],
    [0x0200, 5],
  ] as const) {
    bytes.setUint32(0, value, true);
    assert.equal(execute(program, bytes), expected, `0x${value.toString(16)}`);
  }
});
