/**
 * Sockets that uevents come to: socket(AF_NETLINK, …, NETLINK_KOBJECT_UEVENT) of a client whose machine has uevents, and the calls
 * on it that a file cannot answer.
 *
 * After net/socket.c, net/netlink/af_netlink.c; struct sockaddr_nl and struct msghdr of include/uapi/linux.
 */
import { Errno } from '../../base/errno.ts';
import { openFlags } from '../../os/files.ts';
import { O_CLOEXEC, O_NONBLOCK } from '../../os/numbers.ts';
import { beginCall, type Call } from '../call.ts';
import { CONTINUE, type Context } from '../context.ts';
import { UeventSocket } from '../fds/uevent-socket.ts';
import { callerAndFile } from './caller.ts';

const AF_NETLINK = 16;
const SOCKET_TYPES = 0xf;
const SOCK_RAW = 3;
const SOCK_DGRAM = 2;
const SOL_SOCKET = 1;
const SO_PASSCRED = 16;
const SCM_CREDENTIALS = 2;
const MSG_PEEK = 0x02;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const ADDRESS_BYTES = 12;
const CREDENTIAL_BYTES = 12;
const HEADER_BYTES = 16;
const CONTROL_BYTES = 32;

export function socket(context: Context): number {
  const { listener, names } = context;
  if (!names.hasUevents) return CONTINUE;
  const type = listener.uint(1);
  if (![SOCK_RAW, SOCK_DGRAM].includes(type & SOCKET_TYPES)) return CONTINUE;
  const call = beginCall(context, undefined, () => ['AF_NETLINK', 'NETLINK_KOBJECT_UEVENT']);
  const file = new UeventSocket(names.uevents, (type & O_NONBLOCK) !== 0);
  return call.install(file, { cloexec: (type & O_CLOEXEC) !== 0 });
}

type Asked = { readonly file: UeventSocket; readonly call: Call };

function asked(context: Context): Asked | undefined {
  const fd = context.listener.int(0);
  const found = callerAndFile(context, fd);
  const file = found?.entry.file;
  if (found === undefined || !(file instanceof UeventSocket)) return undefined;
  return { file, call: beginCall(context, found.thread, () => [`${fd}<${found.entry.link}>`]) };
}

/** sockaddr_nl: family, pad, port, groups. */
function address(port: number, groups: number): Uint8Array {
  const bytes = new Uint8Array(ADDRESS_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_NETLINK, true);
  view.setUint32(4, port, true);
  view.setUint32(8, groups, true);
  return bytes;
}

export function bind(context: Context): number {
  const found = asked(context);
  if (found === undefined) return CONTINUE;
  const { file, call } = found;
  const bytes = new Uint8Array(ADDRESS_BYTES);
  if (context.listener.uint(2) < ADDRESS_BYTES) {
    throw new Errno('EINVAL', `an address of AF_NETLINK has ${ADDRESS_BYTES} bytes`);
  }
  call.memory.copyIn(context.listener.word(1), bytes);
  const view = new DataView(bytes.buffer);
  if (view.getUint16(0, true) !== AF_NETLINK)
    throw new Errno('EINVAL', 'not an address of AF_NETLINK');
  const port = view.getUint32(4, true);
  file.port = port === 0 ? call.pid : port;
  file.groups = view.getUint32(8, true);
  return 0;
}

export function socketName(context: Context): number {
  const found = asked(context);
  if (found === undefined) return CONTINUE;
  putAddress(found.call, address(found.file.port, found.file.groups), {
    at: context.listener.word(1),
    lengthAt: context.listener.word(2),
  });
  return 0;
}

type AddressPlace = { readonly at: bigint; readonly lengthAt: bigint };

// As much as there is room for; the length says how much there would have been.
function putAddress({ memory }: Call, bytes: Uint8Array, { at, lengthAt }: AddressPlace): void {
  const length = new Uint8Array(4);
  memory.copyIn(lengthAt, length);
  const room = new DataView(length.buffer).getUint32(0, true);
  memory.copyOut(at, bytes.subarray(0, room));
  new DataView(length.buffer).setUint32(0, bytes.length, true);
  memory.copyOut(lengthAt, length);
}

/** Sizes of buffers and filters of the client are of no account: a queue of ours is as long as it is. */
export function setOption(context: Context): number {
  const found = asked(context);
  if (found === undefined) return CONTINUE;
  const { listener } = context;
  if (listener.int(1) !== SOL_SOCKET || listener.int(2) !== SO_PASSCRED) return 0;
  const bytes = new Uint8Array(4);
  found.call.memory.copyIn(listener.word(3), bytes);
  found.file.passesCredentials = bytes.some((byte) => byte !== 0);
  return 0;
}

/** The message to deliver. Leaves the call until one comes, where it may wait. */
function message(context: Context, { file, call }: Asked, flags: number): Uint8Array {
  const found = file.receive((flags & MSG_PEEK) !== 0);
  if (found !== undefined) return found;
  // Clients change it (fcntl, FIONBIO) without our being told.
  const status = openFlags(call.tid, context.listener.int(0)) ?? 0;
  if ((status & O_NONBLOCK) !== 0 || (flags & MSG_DONTWAIT) !== 0) {
    throw new Errno('EAGAIN', 'no uevent waits to be received');
  }
  return context.current.turn.leave(file.message());
}

export function receiveFrom(context: Context): number {
  const found = asked(context);
  if (found === undefined) return CONTINUE;
  const { listener } = context;
  const flags = listener.uint(3);
  const bytes = message(context, found, flags);
  const { memory } = found.call;
  const part = bytes.subarray(0, Number(listener.word(2)));
  memory.copyOut(listener.word(1), part);
  const at = listener.word(4);
  if (at !== 0n) putAddress(found.call, address(0, 1), { at, lengthAt: listener.word(5) });
  return (flags & MSG_TRUNC) === 0 ? part.length : bytes.length;
}

/** recvmsg: name, pieces, credentials. */
export function receiveMessage(context: Context): number {
  const found = asked(context);
  if (found === undefined) return CONTINUE;
  const { listener } = context;
  const flags = listener.uint(2);
  const { memory } = found.call;
  const header = new Uint8Array(56);
  memory.copyIn(listener.word(1), header);
  const view = new DataView(header.buffer);
  const bytes = message(context, found, flags);
  const moved = scatter(found.call, bytes, {
    at: view.getBigUint64(16, true),
    count: Number(view.getBigUint64(24, true)),
  });
  const name = view.getBigUint64(0, true);
  if (name !== 0n) {
    memory.copyOut(name, address(0, 1).subarray(0, view.getUint32(8, true)));
    view.setUint32(8, ADDRESS_BYTES, true);
  }
  putCredentials(found, view);
  view.setUint32(48, moved < bytes.length ? MSG_TRUNC : 0, true);
  memory.copyOut(listener.word(1), header);
  return (flags & MSG_TRUNC) === 0 ? moved : bytes.length;
}

// The kernel's own: process 0, user 0, group 0.
function putCredentials({ file, call }: Asked, header: DataView): void {
  const control = header.getBigUint64(32, true);
  const room = header.getBigUint64(40, true);
  const fits = file.passesCredentials && control !== 0n && room >= BigInt(CONTROL_BYTES);
  header.setBigUint64(40, fits ? BigInt(CONTROL_BYTES) : 0n, true);
  if (!fits) return;
  const bytes = new Uint8Array(CONTROL_BYTES);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, BigInt(HEADER_BYTES + CREDENTIAL_BYTES), true);
  view.setUint32(8, SOL_SOCKET, true);
  view.setUint32(12, SCM_CREDENTIALS, true);
  call.memory.copyOut(control, bytes);
}

const MOST_PIECES = 1024;

function scatter(
  { memory }: Call,
  bytes: Uint8Array,
  { at, count }: { readonly at: bigint; readonly count: number },
): number {
  if (count > MOST_PIECES) throw new Errno('EMSGSIZE', `${count} pieces; at most ${MOST_PIECES}`);
  const list = new Uint8Array(16 * count);
  memory.copyIn(at, list);
  const view = new DataView(list.buffer);
  let done = 0;
  for (let i = 0; i < count && done < bytes.length; i++) {
    const length = Number(view.getBigUint64(16 * i + 8, true));
    const piece = bytes.subarray(done, done + length);
    memory.copyOut(view.getBigUint64(16 * i, true), piece);
    done += piece.length;
  }
  return done;
}
