/** Operations of vfiofuzz that read, write and map regions. */
import { Errno } from '../../src/base/errno.ts';
import { PAGE_BYTES } from '../../src/base/position.ts';
import type { MmapGrant } from '../../src/base/task.ts';
import * as uapi from '../../src/uapi/vfio.ts';
import { CONFIG, hex, REGION_BYTES, u32s, type Opened, type Replay } from './replay.ts';

export function show(replay: Replay, v: Opened, offset: number, width: number): string {
  const low = offset & ~3;
  const count = Math.min(((offset + width + 3) & ~3) - low, 32);
  const outcome = replay.attempt(() => hex(replay.pread(v, CONFIG + low, count)));
  return ` | ${low.toString(16).padStart(3, '0')}=${outcome}`;
}

export function configRead(replay: Replay, line: string): string {
  const [, v = '', d = '', offset = '', width = ''] =
    /^cfgr (v\d+)\((d\d+)\) ([0-9a-f]+)\+(\d+)/.exec(line) ?? [];
  const outcome = replay.attempt(() => {
    const bytes = replay.pread(
      replay.device(v),
      CONFIG + Number.parseInt(offset, 16),
      Number(width),
    );
    return `${bytes.length} ${hex(bytes)}`;
  });
  return `cfgr ${v}(${d}) ${offset}+${width} -> ${outcome}`;
}

export function configWrite(replay: Replay, line: string): string {
  const match = /^cfgw (v\d+)\((d\d+)\) ([0-9a-f]+)\+(\d+) ([0-9a-f]+) -> \S+(.*)$/.exec(line);
  if (match === null) throw new Error(line);
  const [, v = '', d = '', offset = '', width = '', data = '', rest = ''] = match;
  const device = replay.device(v);
  const at = Number.parseInt(offset, 16);
  const outcome = replay.count(() => replay.pwrite(device, CONFIG + at, Buffer.from(data, 'hex')));
  let text = `cfgw ${v}(${d}) ${offset}+${width} ${data} -> ${outcome}`;
  const shows = rest.match(/ \| [^|]*?(?= \||$| pm)| pm -> \S+/g) ?? [];
  let pm = 0;
  shows.forEach((part, k) => {
    if (part.startsWith(' pm')) {
      pm = device.device.config.findCapability(1);
      text += ` pm -> ${replay.count(() => replay.pwrite(device, CONFIG + pm + 4, Uint8Array.of(0)))}`;
    } else if (k === 0) text += show(replay, device, at, Number(width));
    else if (pm !== 0) {
      text += show(replay, device, pm + 4, 4);
      pm = 0;
    } else text += show(replay, device, 4, 4);
  });
  return text;
}

export function readRegion(replay: Replay, line: string): string {
  const [, v = '', d = '', r = '', offset = '', width = ''] =
    /^read (v\d+)\((d\d+)\) r(\d+)\+([0-9a-f]+)\+(\d+)/.exec(line) ?? [];
  const outcome = replay.attempt(() => {
    const at = Number(r) * REGION_BYTES + Number.parseInt(offset, 16);
    const bytes = replay.pread(replay.device(v), at, Number(width));
    const shown = new Uint8Array(Number(width)).fill(0xcc);
    shown.set(bytes);
    return `${bytes.length} ${hex(shown.subarray(0, bytes.length))}`;
  });
  return `read ${v}(${d}) r${r}+${offset}+${width} -> ${outcome}`;
}

export function writeRegion(replay: Replay, line: string): string {
  const [head = '', v = '', , r = '', offset = '', width = '', data] =
    /^write (v\d+)\((d\d+)\) r(\d+)\+([0-9a-f]+)\+(\d+)(?: ([0-9a-f]*)(?= ->))?/.exec(line) ?? [];
  const bytes =
    data === undefined ? new Uint8Array(Number(width)).fill(0x5a) : Buffer.from(data, 'hex');
  const at = Number(r) * REGION_BYTES + Number.parseInt(offset, 16);
  return `${head} -> ${replay.count(() => replay.pwrite(replay.device(v), at, bytes))}`;
}

export function mmap(replay: Replay, line: string): string {
  const match = /^mmap (v\d+)\(d\d+\) r(\d+)\+([0-9a-f]+)\+([0-9a-f]+) prot=(\d) (\w+)/.exec(line);
  if (match === null) throw new Error(line);
  const [head, v = '', region = '', offset = '', length = '', protection = '', kind] = match;
  const device = replay.device(v);
  let grant: MmapGrant | undefined;
  const outcome = replay.outcome(() => {
    const at = BigInt(`0x${offset}`);
    if (length === '0' || at % BigInt(PAGE_BYTES) !== 0n) throw new Errno('EINVAL', 'mmap itself');
    grant = replay.file(device.fd).mmap?.(replay.client, {
      offset: (BigInt(region) << 40n) + at,
      length: BigInt(`0x${length}`),
      shared: kind === 'shared',
      write: (Number(protection) & 2) !== 0,
      execute: false,
    });
  });
  if (grant === undefined || protection !== '3' || offset !== '0') return `${head} -> ${outcome}`;
  if (hasRegisters(device)) device.map ??= grant;
  return `${head} -> ${outcome}${touchMapping(grant, line)}`;
}

/** The program keeps mappings of ivshmem and edu only. */
function hasRegisters({ device: { vendor, device } }: Opened): boolean {
  return (vendor === 0x1af4 && device === 0x1110) || (vendor === 0x1234 && device === 0x11e8);
}

function touchMapping(grant: MmapGrant, line: string): string {
  if (line.endsWith('untouched')) return ' untouched';
  if (grant.usable?.() === false) return ' signal 7';
  const [, , wrote] = / reads ([0-9a-f]{8})(?: ([0-9a-f]{8}))?$/.exec(line) ?? [];
  const word = (at: number): string => {
    const bytes = new Uint8Array(4);
    grant.backing.read(grant.page * PAGE_BYTES + at, bytes);
    return new DataView(bytes.buffer).getUint32(0, true).toString(16).padStart(8, '0');
  };
  const first = word(0);
  if (wrote === undefined) return ` reads ${first}`;
  grant.backing.write(grant.page * PAGE_BYTES + 4, u32s(Number.parseInt(wrote, 16)));
  return ` reads ${first} ${word(4)}`;
}

export function touch(replay: Replay, line: string): string {
  const [head = '', v = ''] = /^touch (v\d+)\(d\d+\) r\d+ ->/.exec(line) ?? [];
  const { map } = replay.device(v);
  if (map === undefined) throw new Error(`nothing is mapped: ${line}`);
  return `${head}${touchMapping(map, line)}`;
}

export function ioeventfd(replay: Replay, line: string): string {
  const match =
    /^(ioeventfd (v\d+)\((d\d+)\) r(\d+)\+([0-9a-f]+) flags=([0-9a-f]+) data=([0-9a-f]+) argsz=(\d+) (\S+)) -> /.exec(
      line,
    );
  if (match === null) throw new Error(line);
  const [
    ,
    head = '',
    v = '',
    ,
    r = '',
    offset = '',
    flags = '',
    data = '',
    argsz = '',
    target = '',
  ] = match;
  const bytes = new Uint8Array(32);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Number(argsz), true);
  view.setUint32(4, Number.parseInt(flags, 16), true);
  view.setBigUint64(8, (BigInt(r) << 40n) + BigInt(`0x${offset}`), true);
  view.setBigUint64(16, BigInt(`0x${data}`), true);
  view.setInt32(24, replay.fd(target), true);
  let text = `${head} -> ${replay.outcome(() => replay.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_IOEVENTFD, bytes))}`;
  if (!line.includes(' fire ->')) return text;
  replay.eventfds.get(target)?.eventfd.write(1n);
  const value = new Uint8Array(8);
  const outcome = replay.signedCount(() => {
    const read = replay.pread(
      replay.device(v),
      2 * REGION_BYTES + Number.parseInt(offset, 16),
      Number.parseInt(flags, 16),
    );
    value.set(read);
    return read.length;
  });
  text += ` fire -> ${outcome} ${new DataView(value.buffer).getBigUint64(0, true).toString(16)}${replay.counters()}`;
  return text;
}
