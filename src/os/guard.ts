/**
 * The guard: a process of a few hundred bytes that outlives its supervisor. Without one, programs under the filter would
 * get ENOSYS from every call that is looked at, and go on. While the supervisor lives the guard sleeps. When it has ended,
 * the guard kills the callers whose calls were being handled, and every process that makes another such call; it ends when no
 * process under the filter is left, or becomes the command that cleans up.
 *
 * What it does not do: reach processes that make no such call. The invariant: it holds the listener, so no call fails for
 * want of one, and holds nothing else of this process, so that no pipe stays open for its sake.
 *
 * Signals do not reach it (it inherits a mask that blocks all), except SIGKILL.
 */
import { allocate, type Block } from './arena.ts';
import { exitCall, startProcess, systemCall, type SystemCall } from './child.ts';
import { closeFile, createProgramFile } from './files.ts';
import { machineCode, PROGRAM_DATA, smallProgram, type Line } from './machine-code.ts';
import { AT_EMPTY_PATH, NR } from './numbers.ts';

/** The data lies at 0x400078: three descriptors (4 bytes each), 4 unused, a name of 16 bytes, argv of the last command. */
export const GUARD: readonly Line[] = [
  ['sub rsp, 96', '48 83 ec 60'],
  // prctl(PR_SET_NAME, name)
  ['mov edi, 15', 'bf 0f 00 00 00'],
  ['mov esi, 0x400088', 'be 88 00 40 00'],
  ['mov eax, 157', 'b8 9d 00 00 00'],
  ['syscall', '0f 05'],
  ['life:'],
  // poll(pidfd of the supervisor, until it has ended)
  ['mov eax, [0x400078]', '8b 04 25 78 00 40 00'],
  ['mov [rsp], eax', '89 04 24'],
  ['mov dword ptr [rsp+4], 1', 'c7 44 24 04 01 00 00 00'],
  ['mov rdi, rsp', '48 89 e7'],
  ['mov esi, 1', 'be 01 00 00 00'],
  ['mov rdx, -1', '48 c7 c2 ff ff ff ff'],
  ['mov eax, 7', 'b8 07 00 00 00'],
  ['syscall', '0f 05'],
  ['test eax, eax', '85 c0'],
  ['jle life', '7e d4'],
  ['xor ebx, ebx', '31 db'],
  ['waiting:'],
  // pread(the calls without an answer, 16 bytes from where rbx points: ID, thread)
  ['mov edi, [0x400080]', '8b 3c 25 80 00 40 00'],
  ['mov rsi, rsp', '48 89 e6'],
  ['mov edx, 16', 'ba 10 00 00 00'],
  ['mov r10, rbx', '49 89 da'],
  ['mov eax, 17', 'b8 11 00 00 00'],
  ['syscall', '0f 05'],
  // that was the last
  ['cmp eax, 16', '83 f8 10'],
  ['jne call', '75 30'],
  ['add rbx, 16', '48 83 c3 10'],
  // ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID): its caller still waits
  ['mov edi, [0x40007c]', '8b 3c 25 7c 00 40 00'],
  ['mov esi, 0x40082102', 'be 02 21 08 40'],
  ['mov rdx, rsp', '48 89 e2'],
  ['mov eax, 16', 'b8 10 00 00 00'],
  ['syscall', '0f 05'],
  ['test eax, eax', '85 c0'],
  ['jnz waiting', '75 c4'],
  // kill(the caller, SIGKILL)
  ['mov edi, [rsp+8]', '8b 7c 24 08'],
  ['mov esi, 9', 'be 09 00 00 00'],
  ['mov eax, 62', 'b8 3e 00 00 00'],
  ['syscall', '0f 05'],
  ['jmp waiting', 'eb b2'],
  ['call:'],
  // poll(listener, until there is a call, or no user of the filter any more)
  ['mov eax, [0x40007c]', '8b 04 25 7c 00 40 00'],
  ['mov [rsp], eax', '89 04 24'],
  ['mov dword ptr [rsp+4], 1', 'c7 44 24 04 01 00 00 00'],
  ['mov rdi, rsp', '48 89 e7'],
  ['mov esi, 1', 'be 01 00 00 00'],
  ['mov rdx, -1', '48 c7 c2 ff ff ff ff'],
  ['mov eax, 7', 'b8 07 00 00 00'],
  ['syscall', '0f 05'],
  ['test eax, eax', '85 c0'],
  ['jle call', '7e d4'],
  // POLLIN
  ['test byte ptr [rsp+6], 1', 'f6 44 24 06 01'],
  ['jz end', '74 39'],
  ['mov rdi, rsp', '48 89 e7'],
  // the kernel wants struct seccomp_notif zeroed
  ['mov ecx, 10', 'b9 0a 00 00 00'],
  ['xor eax, eax', '31 c0'],
  ['rep stosq', 'f3 48 ab'],
  // ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV)
  ['mov edi, [0x40007c]', '8b 3c 25 7c 00 40 00'],
  ['mov esi, 0xc0502100', 'be 00 21 50 c0'],
  ['mov rdx, rsp', '48 89 e2'],
  ['mov eax, 16', 'b8 10 00 00 00'],
  ['syscall', '0f 05'],
  ['test eax, eax', '85 c0'],
  ['jnz call', '75 a6'],
  // kill(the caller, SIGKILL)
  ['mov edi, [rsp+8]', '8b 7c 24 08'],
  ['mov esi, 9', 'be 09 00 00 00'],
  ['mov eax, 62', 'b8 3e 00 00 00'],
  ['syscall', '0f 05'],
  ['jmp call', 'eb 94'],
  ['end:'],
  // execve(what cleans up)
  ['mov edi, [0x400098]', '8b 3c 25 98 00 40 00'],
  ['mov esi, 0x400098', 'be 98 00 40 00'],
  ['xor edx, edx', '31 d2'],
  ['mov eax, 59', 'b8 3b 00 00 00'],
  ['syscall', '0f 05'],
  // exit_group(0): there is nothing to clean up
  ['mov edi, 0', 'bf 00 00 00 00'],
  ['mov eax, 231', 'b8 e7 00 00 00'],
  ['syscall', '0f 05'],
];

const NAME = 'uiommu-guard';
const NAME_OFFSET = 16;
const ARGV_OFFSET = 32;
const POINTER = 8;

/** What a guard is to hold. */
export type Guarded = {
  /** pidfd of the process whose end it waits for */
  readonly supervisor: number;
  readonly listener: number;
  /** file that says which calls have no answer (open-calls.ts) */
  readonly openCalls: number;
  /** program (absolute path) and arguments, run at the very end; [] for none */
  readonly cleanUp: readonly string[];
};

function guardData({ supervisor, listener, openCalls, cleanUp }: Guarded): Uint8Array {
  const encoded = cleanUp.map((text) => Buffer.from(`${text}\0`));
  const strings = ARGV_OFFSET + (cleanUp.length + 1) * POINTER;
  const length = strings + encoded.reduce((sum, { length: bytes }) => sum + bytes, 0);
  const data = new Uint8Array(Math.ceil(length / 8) * 8);
  const view = new DataView(data.buffer);
  [supervisor, listener, openCalls].forEach((fd, i) => {
    view.setInt32(4 * i, fd, true);
  });
  data.set(Buffer.from(NAME), NAME_OFFSET);
  let at = strings;
  encoded.forEach((bytes, i) => {
    view.setBigUint64(ARGV_OFFSET + i * POINTER, BigInt(PROGRAM_DATA + at), true);
    data.set(bytes, at);
    at += bytes.length;
  });
  return data;
}

const F_SETFD = 2;
const CLOSE_RANGE_UNSHARE_CLOEXEC = 6;
/** index of the call after which the guard has descriptors of its own */
const UNSHARED = 2;

/**
 * Starts a guard.
 * @returns its pid, or the negative errno
 */
export function startGuard(guarded: Guarded): number {
  const program = createProgramFile(NAME, smallProgram(guardData(guarded), machineCode(GUARD)));
  if (program < 0) return program;
  const empty: Block = allocate(1);
  const argv = allocate(2 * POINTER);
  const name = allocate(NAME.length + 1);
  name.bytes.set(Buffer.from(NAME));
  argv.view.setBigUint64(0, BigInt(name.address), true);
  const kept = [guarded.supervisor, guarded.listener, guarded.openCalls];
  const root = allocate(2);
  root.bytes.set(Buffer.from('/'));
  const calls: SystemCall[] = [
    // A session of its own: no signal of the terminal, and no stop.
    systemCall(NR.setsid, []),
    systemCall(NR.chdir, [root.address]),
    systemCall(NR.close_range, [0, 0xffff_ffff, CLOSE_RANGE_UNSHARE_CLOEXEC]),
    ...kept.map((fd) => systemCall(NR.fcntl, [fd, F_SETFD, 0])),
    systemCall(NR.execveat, [
      program,
      empty.address,
      argv.address,
      argv.address + POINTER,
      AT_EMPTY_PATH,
    ]),
    exitCall(1),
  ];
  const child = startProcess(calls);
  if (typeof child === 'number') return child;
  // Its table must be its own before the file is closed here.
  child.wait(UNSHARED);
  closeFile(program);
  return child.pid;
}
