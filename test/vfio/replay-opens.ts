/** Operations of vfiofuzz that open, bind, attach and close, and calls that are not meant for the file. */
import { Errno } from '../../src/base/errno.ts';
import type { PciDevice } from '../../src/machine/pci/device.ts';
import { VFIO_DEVICE_QUERY_GFX_PLANE } from '../../src/uapi/vfio-other.ts';
import * as uapi from '../../src/uapi/vfio.ts';
import { ContainerFile } from '../../src/vfio/container-file.ts';
import { CONFIG, hex, REGION_BYTES, u32s, type Replay } from './replay.ts';

const IOMMU_IOAS_ALLOC = 0x3b81;

export function open(replay: Replay, line: string): string {
  const [, name = ''] = /-> ([ki]\d+)/.exec(line) ?? [];
  if (name.startsWith('k')) {
    const file = new ContainerFile();
    replay.contexts.set(name, { fd: replay.client.install(file), ioas: 0 });
    return `open -> ${name}`;
  }
  const fd = replay.client.install(replay.system.iommufd.open(replay.client));
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setUint32(0, 12, true);
  replay.ioctl(fd, IOMMU_IOAS_ALLOC, bytes);
  const ioas = new DataView(replay.after(12).buffer).getUint32(8, true);
  replay.contexts.set(name, { fd, ioas });
  return `open -> ${name} ioas=${ioas}`;
}

export function openGroup(replay: Replay, line: string): string {
  const [, g = '', f] = /^open_group g(\d+)(?: -> (f\d+))?/.exec(line) ?? [];
  const outcome = replay.attempt(() => {
    const group = replay.system.vfio.group(g);
    if (group === undefined) throw new Errno('ENOENT', `no group ${g}`);
    const fd = replay.client.install(replay.system.vfio.openGroup(group));
    replay.groups.set(f ?? '?', { fd });
    return f ?? '?';
  });
  return `open_group g${g} -> ${outcome}`;
}

export function setContainer(replay: Replay, line: string): string {
  const [, f = '', g = '', c = ''] = /^set_container (f\d+)\(g(\d+)\) (\w+)/.exec(line) ?? [];
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, replay.contexts.get(c)?.fd ?? -1, true);
  const outcome = replay.outcome(() =>
    replay.ioctl(replay.groups.get(f)?.fd ?? -1, uapi.VFIO_GROUP_SET_CONTAINER, bytes),
  );
  return `set_container ${f}(g${g}) ${c} -> ${outcome}`;
}

export function setIommu(replay: Replay, line: string): string {
  const [, c = '', t = ''] = /^set_iommu (\w+) (\d+)/.exec(line) ?? [];
  const outcome = replay.outcome(() =>
    replay.client.ioctl(replay.contexts.get(c)?.fd ?? -1, uapi.VFIO_SET_IOMMU, BigInt(t)),
  );
  return `set_iommu ${c} ${t} -> ${outcome}`;
}

export function getDevice(replay: Replay, line: string): string {
  const [, f = '', g = '', d = '', as, v] =
    /^get_device (f\d+)\(g(\d+)\) d(\d+)(?: as (.*?))? -> (v\d+)?/.exec(line) ?? [];
  const name = as ?? replay.devices[Number(d)]?.name ?? '';
  const bytes = new Uint8Array(name.length + 1);
  bytes.set(new TextEncoder().encode(name));
  const outcome = replay.attempt(() => {
    const fd = replay.ioctl(replay.groups.get(f)?.fd ?? -1, uapi.VFIO_GROUP_GET_DEVICE_FD, bytes);
    const device = replay.devices.find((pci) => name.startsWith(pci.name));
    if (device === undefined) throw new Error(name);
    replay.opened.set(v ?? '?', { fd, device, context: undefined, map: undefined });
    return v ?? '?';
  });
  const alias = as === undefined ? '' : ` as ${as}`;
  return `get_device ${f}(g${g}) d${d}${alias} -> ${outcome}`;
}

export function openCdev(replay: Replay, line: string): string {
  const [, d = ''] = /^open_cdev d(\d+)/.exec(line) ?? [];
  const device = replay.devices[Number(d)];
  if (device === undefined) throw new Error(line);
  const outcome = replay.outcome(() => {
    const known = replay.system.pci.function(device.name);
    const vfio = known && replay.system.vfio.deviceOf(known.device.iommu);
    if (vfio === undefined) throw new Errno('ENOENT', 'no node');
    if (replay.pendingCdev !== undefined) replay.client.close(replay.pendingCdev.fd);
    replay.pendingCdev = { fd: replay.client.install(replay.system.vfio.openDevice(vfio)), device };
  });
  return `open_cdev d${d} -> ${outcome}`;
}

export function early(replay: Replay, line: string): string {
  const [, d = ''] = /^early d(\d+)/.exec(line) ?? [];
  const { fd, device } = replay.pendingCdev ?? { fd: -1, device: undefined };
  if (device === undefined) throw new Error(line);
  const v = { fd, device, context: undefined, map: undefined };
  const info = replay.outcome(() =>
    replay.ioctl(fd, uapi.VFIO_DEVICE_GET_INFO, u32s(24, 0, 0, 0, 0, 0)),
  );
  const read = replay.outcome(() => replay.pread(v, CONFIG, 4));
  return `early d${d} info -> ${info} read -> ${read}`;
}

export function bindIommufd(replay: Replay, line: string): string {
  const [, d = '', c = '', v] = /^bind_iommufd d(\d+) (i\d+) ->(?:.* (v\d+))?/.exec(line) ?? [];
  const pending = replay.pendingCdev;
  const context = replay.contexts.get(c);
  if (pending === undefined || context === undefined) throw new Error(line);
  replay.pendingCdev = undefined;
  const outcome = replay.attempt(() => {
    replay.ioctl(pending.fd, uapi.VFIO_DEVICE_BIND_IOMMUFD, u32s(24, 0, context.fd, 0, 0, 0));
    const id = new DataView(replay.after(16).buffer).getUint32(12, true);
    replay.opened.set(v ?? '?', { ...pending, context, map: undefined });
    return `devid=${id} ${v ?? '?'}`;
  });
  if (outcome.startsWith('E')) replay.client.close(pending.fd);
  return `bind_iommufd d${d} ${c} -> ${outcome}`;
}

export function attach(replay: Replay, line: string): string {
  const pt = /^attach (v\d+)\((d\d+)\) pt=(\d+) -> /.exec(line);
  if (pt === null) return unexpected(replay, line);
  const [, v = '', d = '', id = ''] = pt;
  const outcome = replay.attempt(() => {
    const struct = u32s(16, 0, Number(id), 0);
    replay.ioctl(replay.device(v).fd, uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, struct);
    return `pt=${new DataView(replay.after(16).buffer).getUint32(8, true)}`;
  });
  return `attach ${v}(${d}) pt=${id} -> ${outcome}`;
}

export function dump(replay: Replay, line: string): string {
  const [, v = '', d = ''] = /^dump (v\d+)\((d\d+)\)/.exec(line) ?? [];
  const device = replay.device(v);
  const size = device.device.config.bytes.length;
  const rows: string[] = [];
  const outcome = replay.count(() => {
    const bytes = replay.pread(device, CONFIG, size);
    for (let i = 0; i < bytes.length; i += 16) {
      const row = bytes.subarray(i, i + 16);
      if (row.some((byte) => byte !== 0))
        rows.push(`  ${i.toString(16).padStart(3, '0')} ${hex(row)}`);
    }
    return bytes.length;
  });
  return [`dump ${v}(${d}) -> ${outcome}`, ...rows].join('\n');
}

export function clear(replay: Replay, line: string): string {
  const [, v = '', d = ''] = /^clear (v\d+)\((d\d+)\)/.exec(line) ?? [];
  const device = replay.device(v);
  const outcome = replay.signedCount(() =>
    replay.pwrite(device, 2 * REGION_BYTES, new Uint8Array(8192)),
  );
  return `clear ${v}(${d}) -> ${outcome}`;
}

export function close(replay: Replay, line: string): string {
  const [, name = '', last, now] =
    /^close ([vf]\d+)\(\w+\)(?:, ([vf]\d+) is now ([vf]\d+))?/.exec(line) ?? [];
  if (name.startsWith('v')) {
    const { device } = replay.device(name);
    closeOne(replay, replay.opened, { name, last, now });
    afterClose(replay, device);
  } else {
    closeOne(replay, replay.groups, { name, last, now });
  }
  return line;
}

// The program keeps its files in an array: the last one takes the place of the closed one.
function closeOne<File extends { readonly fd: number }>(
  replay: Replay,
  files: Map<string, File>,
  { name, last, now }: Readonly<Record<'last' | 'now', string | undefined>> & { name: string },
): void {
  const closed = files.get(name);
  if (closed === undefined) throw new Error(`${name} is not open in the replay`);
  replay.client.close(closed.fd);
  files.delete(name);
  const moved = last === undefined ? undefined : files.get(last);
  if (last === undefined || now === undefined || moved === undefined) return;
  files.delete(last);
  files.set(now, moved);
}

export function afterClose(replay: Replay, device: PciDevice): void {
  if ([...replay.opened.values()].some((each) => each.device === device)) return;
  if (replay.usedMsi.delete(device)) replay.restore(device, false);
}

export function status(replay: Replay, line: string): string {
  const [, f = '', g = ''] = /^status (f\d+)\((g\d+)\)/.exec(line) ?? [];
  const outcome = replay.attempt(() => {
    replay.ioctl(replay.groups.get(f)?.fd ?? -1, uapi.VFIO_GROUP_GET_STATUS, u32s(8, 0));
    return `flags=${new DataView(replay.after(8).buffer).getUint32(4, true).toString(16)}`;
  });
  return `status ${f}(${g}) -> ${outcome}`;
}

export function unsetContainer(replay: Replay, line: string): string {
  const [, f = '', g = ''] = /^unset_container (f\d+)\((g\d+)\)/.exec(line) ?? [];
  const outcome = replay.outcome(() =>
    replay.client.ioctl(replay.groups.get(f)?.fd ?? -1, uapi.VFIO_GROUP_UNSET_CONTAINER, 0n),
  );
  return `unset_container ${f}(${g}) -> ${outcome}`;
}

/** Calls that are not meant for the file. */
export function unexpected(replay: Replay, line: string): string {
  const [head = '', word = '', v = '', number = ''] =
    /^(\w+) (v\d+)\(d\d+\) ([0-9a-f]+)/.exec(line) ?? [];
  const device = replay.device(v);
  const { command, struct } = strayCall(replay, line, { word, value: Number.parseInt(number, 16) });
  const outcome = replay.outcome(() => replay.ioctl(device.fd, command, struct));
  if (word !== 'attach') return `${head} -> ${outcome}`;
  const id = new DataView(replay.after(12).buffer).getUint32(8, true);
  return `${head.slice(0, head.length - number.length)}${id.toString(16)} -> ${outcome}`;
}

// What the line does not tell is chosen so that it could have been what the program passed.
function strayCall(
  replay: Replay,
  line: string,
  { word, value }: { readonly word: string; readonly value: number },
): { command: number; struct: Uint8Array } {
  const base = uapi.VFIO_DEVICE_GET_INFO & ~0xff;
  switch (word) {
    case 'bind': {
      const fd = replay.contexts.values().next().value?.fd ?? -1;
      return { command: base | value, struct: u32s(24, 0, fd, 0, 0, 0) };
    }
    case 'attach': {
      const [, v = ''] = /^attach (v\d+)/.exec(line) ?? [];
      const known = replay.device(v).context?.ioas ?? 0;
      const pt = line.endsWith('-> ok') ? known : value;
      return { command: uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT, struct: u32s(16, 0, pt, 0) };
    }
    case 'detach':
      return { command: base | value, struct: u32s(line.endsWith('E22') ? 7 : 8, 0, 0, 0) };
    case 'gfx':
      return { command: VFIO_DEVICE_QUERY_GFX_PLANE, struct: u32s(64, ...ZEROS) };
    default:
      return { command: base | value, struct: u32s(64, ...ZEROS) };
  }
}

const ZEROS: readonly number[] = Array.from({ length: 15 }, () => 0);
