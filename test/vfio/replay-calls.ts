/** Operations of vfiofuzz that are ioctls of a device: info, interrupts, resets, features. */
import { ERRNO } from '../../src/base/errno.ts';
import * as uapi from '../../src/uapi/vfio.ts';
import { CONFIG, hex, u32s, type Opened, type Replay } from './replay.ts';

export function info(replay: Replay, line: string): string {
  const [, v = '', d = '', size = ''] = /^info (v\d+)\((d\d+)\) argsz=(\d+)/.exec(line) ?? [];
  const bytes = new Uint8Array(128);
  new DataView(bytes.buffer).setUint32(0, Number(size), true);
  const outcome = replay.attempt(() => {
    replay.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_GET_INFO, bytes);
    const after = replay.after(128);
    const at = (offset: number): number => new DataView(after.buffer).getUint32(offset, true);
    const text = `argsz=${at(0)} flags=${at(4).toString(16)} regions=${at(8)} irqs=${at(12)} cap=${at(16)}`;
    return text + chain(after, at(16), Math.min(at(0), 128));
  });
  return `info ${v}(${d}) argsz=${size} -> ${outcome}`;
}

export function region(replay: Replay, line: string): string {
  const [, v = '', d = '', i = '', size = ''] =
    /^region (v\d+)\((d\d+)\) (\d+) argsz=(\d+)/.exec(line) ?? [];
  const bytes = new Uint8Array(256);
  const given = new DataView(bytes.buffer);
  given.setUint32(0, Number(size), true);
  given.setUint32(8, Number(i), true);
  const outcome = replay.attempt(() => {
    replay.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_GET_REGION_INFO, bytes);
    const after = replay.after(256);
    const view = new DataView(after.buffer);
    const at = (offset: number): number => view.getUint32(offset, true);
    const long = (offset: number): string => view.getBigUint64(offset, true).toString(16);
    const text = `argsz=${at(0)} flags=${at(4).toString(16)} size=${long(16)} offset=${long(24)} cap=${at(12)}`;
    return text + chain(after, at(12), Math.min(at(0), 256));
  });
  return `region ${v}(${d}) ${i} argsz=${size} -> ${outcome}`;
}

export function irq(replay: Replay, line: string): string {
  const [, v = '', d = '', i = '', size = ''] =
    /^irq (v\d+)\((d\d+)\) (\d+) argsz=(\d+)/.exec(line) ?? [];
  const outcome = replay.attempt(() => {
    replay.ioctl(
      replay.device(v).fd,
      uapi.VFIO_DEVICE_GET_IRQ_INFO,
      u32s(Number(size), 0, Number(i), 0),
    );
    const view = new DataView(replay.after(16).buffer);
    return `argsz=${view.getUint32(0, true)} flags=${view.getUint32(4, true).toString(16)} count=${view.getUint32(12, true)}`;
  });
  return `irq ${v}(${d}) ${i} argsz=${size} -> ${outcome}`;
}

export function setIrqs(replay: Replay, line: string): string {
  const match =
    /^set_irqs (v\d+)\((d\d+)\) idx=(\d+) flags=([0-9a-f]+) start=(\d+) count=(\d+) argsz=(-?\d+)((?: [^- >]\S*| -\d+)*) -> /.exec(
      line,
    );
  if (match === null) throw new Error(line);
  const [, v = '', d = '', idx = '', flags = '', start = '', count = '', argsz = '', data = ''] =
    match;
  const values = data.trim() === '' ? [] : data.trim().split(' ');
  const bytes = new Uint8Array(20 + 256);
  const view = new DataView(bytes.buffer);
  [argsz, String(Number.parseInt(flags, 16)), idx, start, count].forEach((value, k) => {
    view.setUint32(4 * k, Number(value) >>> 0, true);
  });
  const wide = (Number.parseInt(flags, 16) & 4) !== 0;
  values.forEach((value, k) => {
    if (!wide) bytes[20 + k] = Number(value);
    else view.setInt32(20 + 4 * k, replay.fd(value), true);
  });
  const outcome = replay.outcome(() =>
    replay.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_SET_IRQS, bytes),
  );
  if (idx === '1') replay.usedMsi.add(replay.device(v).device);
  return `set_irqs ${v}(${d}) idx=${idx} flags=${flags} start=${start} count=${count} argsz=${argsz}${data} -> ${outcome}${replay.counters()}`;
}

export function access(
  replay: Replay,
  v: Opened,
  offset: number,
  value: number | undefined,
): { result: string; word: number } {
  let word = 0;
  const result = replay.signedCount(() => {
    if (value !== undefined) return replay.pwrite(v, offset, u32s(value));
    const bytes = replay.pread(v, offset, 4);
    word = new DataView(bytes.slice().buffer).getUint32(0, true);
    return bytes.length;
  });
  return { result, word };
}

export function edu(replay: Replay, line: string): string {
  const [, v = '', d = ''] = /^edu (v\d+)\((d\d+)\)/.exec(line) ?? [];
  const device = replay.device(v);
  const live = / live ([0-9a-f]{8}) ->/.exec(line);
  if (live !== null) {
    const x = Number.parseInt(live[1] ?? '', 16);
    const id = access(replay, device, 0, undefined);
    const set = access(replay, device, 4, x);
    const get = access(replay, device, 4, undefined);
    const shown = ({ result, word }: { result: string; word: number }): string =>
      Number(result) > 0 ? ` ${word.toString(16).padStart(8, '0')}` : '';
    return `edu ${v}(${d}) id -> ${id.result}${shown(id)} live ${live[1]} -> ${set.result} ${get.result}${shown(get)}`;
  }
  const status = / status ([0-9a-f]{2}) ack/.exec(line);
  const raised = access(
    replay,
    device,
    0x60,
    status === null ? 1 : Number.parseInt(status[1] ?? '', 16),
  );
  let text = `edu ${v}(${d}) raise -> ${raised.result}${replay.counters()}`;
  if (Number(raised.result) < 0) return text;
  const parts = line.split(' | ').slice(1);
  for (const part of parts) {
    if (part.startsWith('status')) {
      const now = access(replay, device, 0x24, undefined);
      const ack = access(replay, device, 0x64, 0xffff_ffff);
      text += ` | status ${now.word.toString(16).padStart(2, '0')} ack -> ${ack.result}${replay.counters()}`;
    } else if (part.startsWith('unmask')) {
      const outcome = replay.outcome(() =>
        replay.ioctl(device.fd, uapi.VFIO_DEVICE_SET_IRQS, u32s(20, 0x11, 0, 0, 1)),
      );
      text += ` | unmask -> ${outcome}${replay.counters()}`;
    } else {
      const words = replay.pread(device, CONFIG + 4, 4);
      const word = (at: number): string =>
        ((words[at + 1] ?? 0) * 256 + (words[at] ?? 0)).toString(16).padStart(4, '0');
      text += ` | command ${word(0)} status ${word(2)}`;
    }
  }
  return text;
}

export function signal(replay: Replay, line: string): string {
  const [, e = ''] = /^signal (\w+)/.exec(line) ?? [];
  replay.eventfds.get(e)?.eventfd.write(1n);
  return `signal ${e} ->${replay.counters()}`;
}

export function reset(replay: Replay, line: string): string {
  const [, v = '', d = ''] = /^reset (v\d+)\((d\d+)\)/.exec(line) ?? [];
  const outcome = replay.outcome(() =>
    replay.client.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_RESET, 0n),
  );
  return `reset ${v}(${d}) -> ${outcome}`;
}

export function hotInfo(replay: Replay, line: string): string {
  const [, v = '', d = '', size = ''] = /^hot_info (v\d+)\((d\d+)\) argsz=(\d+)/.exec(line) ?? [];
  const bytes = new Uint8Array(12 + 64 * 8);
  new DataView(bytes.buffer).setUint32(0, Number(size), true);
  let text = `hot_info ${v}(${d}) argsz=${size}`;
  const outcome = replay.outcome(() =>
    replay.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, bytes),
  );
  if (outcome !== 'ok') text += ` -> ${outcome}`;
  if (outcome !== 'ok' && outcome !== `E${ERRNO.ENOSPC}`) return text;
  const view = new DataView(replay.after(bytes.length).buffer);
  const count = view.getUint32(8, true);
  text += ` -> argsz=${view.getUint32(0, true)} flags=${view.getUint32(4, true).toString(16)} count=${count}`;
  if (outcome !== 'ok') return text;
  for (let i = 0; i < count; i++) {
    const at = 12 + 8 * i;
    const devfn = view.getUint8(at + 7);
    const h = (value: number, digits: number): string => value.toString(16).padStart(digits, '0');
    text += ` [${view.getInt32(at, true)} ${h(view.getUint16(at + 4, true), 4)}:${h(view.getUint8(at + 6), 2)}:${h(devfn >> 3, 2)}.${devfn & 7}]`;
  }
  return text;
}

export function hotReset(replay: Replay, line: string): string {
  const match = /^hot_reset (v\d+)\((d\d+)\) argsz=(\d+) flags=(\d) fds((?: \S+)*?) -> /.exec(line);
  if (match === null) throw new Error(line);
  const [, v = '', d = '', argsz = '', flags = '', list = ''] = match;
  const fds =
    list.trim() === ''
      ? []
      : list
          .trim()
          .split(' ')
          .map((each) => {
            const name = each.replace(/\(.*/, '');
            if (name === 'bad') return -1;
            return (
              (name.startsWith('f') ? replay.groups.get(name)?.fd : replay.device(name).fd) ?? -1
            );
          });
  const struct = u32s(Number(argsz), Number(flags), fds.length, ...fds.map((fd) => fd >>> 0));
  const outcome = replay.outcome(() =>
    replay.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_PCI_HOT_RESET, struct),
  );
  return `hot_reset ${v}(${d}) argsz=${argsz} flags=${flags} fds${list} -> ${outcome}`;
}

export function feature(replay: Replay, line: string): string {
  return line.includes(' dma_buf ') ? dmaBuf(replay, line) : plainFeature(replay, line);
}

const DMA_BUF = 11;

function dmaBuf(replay: Replay, line: string): string {
  const match =
    /^(feature (v\d+)\(d\d+\) dma_buf) region=(\d+) open=([0-9a-f]+) flags=(\d+) n=(\d+) range=([0-9a-f]+)\+([0-9a-f]+) op=([0-9a-f]+) argsz=(\d+)/.exec(
      line,
    );
  if (match === null) throw new Error(line);
  const [head, , v = '', ...values] = match;
  const [region = 0, open = 0, flags = 0, count = 0, offset = 0, length = 0, op = 0, argsz = 0] =
    values.map((value, i) => Number.parseInt(value, [1, 4, 5, 6].includes(i) ? 16 : 10));
  const operation = (DMA_BUF | op) >>> 0;
  const struct = u32s(argsz, operation, region, open, flags, count, offset, 0, length, 0);
  const outcome = replay.attempt(() => {
    const result = replay.ioctl(
      replay.device(v).fd,
      uapi.VFIO_DEVICE_FEATURE,
      padded(struct, FEATURE_BYTES),
    );
    if (op !== uapi.VFIO_DEVICE_FEATURE_GET) return String(result);
    replay.client.close(result);
    return 'fd';
  });
  return `${head} -> ${outcome}`;
}

const FEATURE_BYTES = 8 + 96;

function padded(bytes: Uint8Array, length: number): Uint8Array {
  const all = new Uint8Array(length);
  all.set(bytes);
  return all;
}

function plainFeature(replay: Replay, line: string): string {
  const match = /^feature (v\d+)\(d\d+\) (\d+) op=([0-9a-f]+) argsz=(\d+) data=(\w+)/.exec(line);
  if (match === null) throw new Error(line);
  const [head, v = '', index = '', op = '', argsz = '', data = ''] = match;
  const start = u32s(Number(argsz), Number(index) | Number.parseInt(op, 16));
  const payload = data === 'x3' ? u32s(replay.fd('x3')) : Buffer.from(data, 'hex');
  const bytes = padded(Buffer.concat([start, payload]), FEATURE_BYTES);
  const outcome = replay.count(() =>
    replay.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_FEATURE, bytes),
  );
  const after = replay.after(bytes.length).subarray(8);
  const changed = !outcome.startsWith('E') && hex(after) !== hex(bytes.subarray(8));
  return `${head} -> ${outcome}${changed ? ` data=${hex(after.subarray(0, 24))}` : ''}`;
}

function chain(bytes: Uint8Array, start: number, end: number): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let text = '';
  for (let at = start; at !== 0 && at + 8 <= end;) {
    const next = view.getUint32(at + 4, true);
    const stop = Math.min(next > at ? next : end, end);
    text += ` cap${view.getUint16(at, true)}@${at}=${hex(bytes.subarray(at, stop))}`;
    at = next;
  }
  return text;
}
