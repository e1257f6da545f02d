/**
 * The machine code of uiommu, for x86-64: what must run where JavaScript cannot, between clone and exec, and after the
 * death of this process. An instruction a line, as GNU as writes it and as the processor reads it; a test assembles the one
 * and compares it with the other. What it does not do: decide. The calls and their order are data, made by TypeScript.
 */

/** An instruction with its bytes in hexadecimal, or a label alone. */
export type Line = readonly [instruction: string, bytes: string] | readonly [label: string];

export function machineCode(lines: readonly Line[]): Uint8Array {
  return Uint8Array.from(
    lines.flatMap(([, bytes]) => bytes?.split(' ').map((byte) => parseInt(byte, 16)) ?? []),
  );
}

/**
 * Runs a list of system calls, one after the other, until one does not return or an error that the list does not allow ends
 * the process. A call is eight words of 64 bits: number, five arguments, room for the answer, and a mask of errors:
 * bit E lets the list go on after errno E, bit 32+E does too, but without the call that follows.
 */
export const CALL_LIST: readonly Line[] = [
  // libc passes the address of the first call here
  ['mov rbx, rdi', '48 89 fb'],
  ['next:'],
  // number and arguments
  ['mov rax, [rbx]', '48 8b 03'],
  ['mov rdi, [rbx+8]', '48 8b 7b 08'],
  ['mov rsi, [rbx+16]', '48 8b 73 10'],
  ['mov rdx, [rbx+24]', '48 8b 53 18'],
  ['mov r10, [rbx+32]', '4c 8b 53 20'],
  ['mov r8, [rbx+40]', '4c 8b 43 28'],
  ['syscall', '0f 05'],
  // what the kernel answered
  ['mov [rbx+48], rax', '48 89 43 30'],
  // no error: next call
  ['neg rax', '48 f7 d8'],
  ['jle done', '7e 29'],
  // an error that stands in the lower half of the mask is none
  ['cmp rax, 31', '48 83 f8 1f'],
  ['ja stop', '77 17'],
  ['bt [rbx+56], rax', '48 0f a3 43 38'],
  ['jc done', '72 1c'],
  // one in the upper half: leave out the next call
  ['add eax, 32', '83 c0 20'],
  ['bt [rbx+56], rax', '48 0f a3 43 38'],
  ['jnc stop', '73 06'],
  ['add rbx, 64', '48 83 c3 40'],
  ['jmp done', 'eb 0c'],
  ['stop:'],
  // any other ends the list, and with it the process
  ['mov edi, 1', 'bf 01 00 00 00'],
  ['mov eax, 60', 'b8 3c 00 00 00'],
  ['syscall', '0f 05'],
  ['done:'],
  ['add rbx, 64', '48 83 c3 40'],
  ['jmp next', 'eb af'],
];

const LOAD_ADDRESS = 0x400000;
const EHDR_SIZE = 64;
const PHDR_SIZE = 56;
const DATA_OFFSET = EHDR_SIZE + PHDR_SIZE;
/** Where the data of a {@link smallProgram} lies when it runs. */
export const PROGRAM_DATA = LOAD_ADDRESS + DATA_OFFSET;

const ET_EXEC = 2;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PF_READ_EXECUTE = 5;

/**
 * An executable: an ELF header, one segment, and in it the data and then the code.
 * @param data a multiple of eight bytes
 */
export function smallProgram(data: Uint8Array, code: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(DATA_OFFSET + data.length + code.length);
  const view = new DataView(bytes.buffer);
  const word = (at: number, value: number): void => {
    view.setBigUint64(at, BigInt(value), true);
  };
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // ELF, 64 bits, little-endian, version 1
  view.setUint16(16, ET_EXEC, true);
  view.setUint16(18, EM_X86_64, true);
  view.setUint32(20, 1, true);
  word(24, PROGRAM_DATA + data.length); // entry
  word(32, EHDR_SIZE); // program headers
  view.setUint16(52, EHDR_SIZE, true);
  view.setUint16(54, PHDR_SIZE, true);
  view.setUint16(56, 1, true);
  view.setUint32(EHDR_SIZE, PT_LOAD, true);
  view.setUint32(EHDR_SIZE + 4, PF_READ_EXECUTE, true);
  word(EHDR_SIZE + 16, LOAD_ADDRESS); // virtual
  word(EHDR_SIZE + 24, LOAD_ADDRESS); // physical
  word(EHDR_SIZE + 32, bytes.length); // in the file
  word(EHDR_SIZE + 40, bytes.length); // in memory
  word(EHDR_SIZE + 48, 4096); // alignment
  bytes.set(data, DATA_OFFSET);
  bytes.set(code, DATA_OFFSET + data.length);
  return bytes;
}
