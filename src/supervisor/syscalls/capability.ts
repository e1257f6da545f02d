/**
 * capget and capset of clients that count as root on the machine: they hold all capabilities until they drop some.
 *
 * After kernel/capability.c; only a process's own capabilities, in the two-word format that libcap uses.
 */
import { Errno } from '../../base/errno.ts';
import { NR } from '../../os/numbers.ts';
import { beginCall, type Call } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import { ALL_CAPABILITIES } from '../process-table.ts';

const VERSION_3 = 0x20080522;
const HEADER_SIZE = 8;
const DATA_SIZE = 24;
const PERMITTED = 4;
const WORD = 0xffff_ffffn;

export function capability(context: Context): number {
  const { listener, asRoot } = context;
  if (!asRoot) return CONTINUE;
  const [header, data] = [listener.word(0), listener.word(1)];
  const call = beginCall(context, undefined, () => []);
  const bytes = new Uint8Array(HEADER_SIZE);
  call.memory.copyIn(header, bytes);
  const view = new DataView(bytes.buffer);
  const pid = view.getInt32(4, true);
  // Questions about the format, or about other processes, are the kernel's own.
  if (view.getUint32(0, true) !== VERSION_3 || data === 0n || (pid !== 0 && pid !== call.pid)) {
    return CONTINUE;
  }
  return listener.nr === NR.capget ? get(call, data) : set(call, data);
}

function get(call: Call, address: bigint): number {
  const bytes = new Uint8Array(DATA_SIZE);
  const view = new DataView(bytes.buffer);
  const { rootCapabilities } = call.thread.process;
  for (const word of [0, 1]) {
    const shift = BigInt(word * 32);
    view.setUint32(word * 12, Number((rootCapabilities >> shift) & WORD), true);
    view.setUint32(word * 12 + PERMITTED, Number((ALL_CAPABILITIES >> shift) & WORD), true);
  }
  call.memory.copyOut(address, bytes);
  return 0;
}

function set(call: Call, address: bigint): number {
  const bytes = new Uint8Array(DATA_SIZE);
  call.memory.copyIn(address, bytes);
  const view = new DataView(bytes.buffer);
  const effective = BigInt(view.getUint32(0, true)) | (BigInt(view.getUint32(12, true)) << 32n);
  if ((effective & ~ALL_CAPABILITIES) !== 0n) {
    throw new Errno('EPERM', 'capabilities beyond those that there are cannot be raised');
  }
  call.thread.process.rootCapabilities = effective;
  return 0;
}
