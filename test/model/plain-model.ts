/**
 * A plain model of /dev/iommu: lists of what there is, and rules that read like the specification. Nothing is counted or
 * kept up to date: who holds an object, which pages are pinned, who pays for them is found by looking at everything. Slow,
 * and meant to be obviously right.
 *
 * It covers what the commands of commands.ts do: one machine with the mock driver, contexts, processes, all object kinds.
 * Addresses are bigint. After the kernel's behaviour as ARCHITECTURE.md names it, not after src/iommufd.
 */
import {
  PAGE,
  MAX,
  HUGE,
  APERTURE,
  MOCK_GRANULE,
  Refused,
  refuse,
  joined,
  overlap,
  isMultiple,
  pagesBehind,
} from './plain-objects.ts';
import type {
  Range,
  PlainProcess,
  PageSet,
  PlainArea,
  Held,
  PlainIoas,
  PlainHwpt,
  PlainNested,
  PlainDevice,
  PlainViommu,
  PlainAccess,
  PlainQueue,
  PlainObject,
  Kind,
  OfKind,
} from './plain-objects.ts';
import type { PlainMachine } from './plain-machine.ts';

export class PlainContext {
  readonly machine: PlainMachine;
  /** by id; a string for an id that stays taken without an object */
  readonly objects = new Map<number, PlainObject | 'tombstone'>();
  vfioIoas: PlainIoas | undefined;

  constructor(machine: PlainMachine) {
    this.machine = machine;
  }

  all<K extends Kind>(kind: K): OfKind<K>[] {
    return [...this.objects.entries()]
      .sort(([a], [b]) => a - b)
      .map(([, object]) => object)
      .filter((object): object is OfKind<K> => object !== 'tombstone' && object.kind === kind);
  }

  /** The ids of a kind, ascending. */
  ids(kind: Kind): number[] {
    return this.all(kind).map((object) => this.idOf(object));
  }

  idOf(object: PlainObject): number {
    for (const [id, candidate] of this.objects) if (candidate === object) return id;
    throw new Error('the object is not in the table');
  }

  #get<K extends Kind>(kind: K, id: number): OfKind<K> {
    const object = this.objects.get(id);
    if (object === undefined || object === 'tombstone' || object.kind !== kind) {
      throw new Refused('ENOENT');
    }
    return object as OfKind<K>;
  }

  #add(object: PlainObject): number {
    let id = 1;
    while (this.objects.has(id)) id++;
    this.objects.set(id, object);
    return id;
  }

  #remove(object: PlainObject): void {
    this.objects.delete(this.idOf(object));
  }

  /** Runs all of `act` or nothing. */
  #atomic<T>(act: () => T): T {
    return this.machine.atomic(act);
  }

  domains(ioas: PlainIoas): PlainHwpt[] {
    return this.all('HWPT_PAGING').filter((hwpt) => hwpt.ioas === ioas);
  }

  #accesses(ioas: PlainIoas): PlainAccess[] {
    return this.all('ACCESS').filter((access) => access.ioas === ioas);
  }

  alignment(ioas: PlainIoas): bigint {
    if (ioas.smallPages || this.#accesses(ioas).some(({ pins }) => pins)) return PAGE;
    return this.domains(ioas).length > 0 ? MOCK_GRANULE : 1n;
  }

  #held(object: PlainObject): boolean {
    const values = [...this.objects.values()].filter((other) => other !== 'tombstone');
    switch (object.kind) {
      case 'DEVICE':
      case 'ACCESS':
        return true;
      case 'IOAS':
        return this.domains(object).length > 0 || this.#accesses(object).length > 0;
      case 'HWPT_PAGING':
        return values.some(
          (other) =>
            (other.kind === 'DEVICE' && other.hwpt === object) ||
            (other.kind === 'VIOMMU' && other.hwpt === object) ||
            (other.kind === 'HWPT_NESTED' && other.parent === object && other.viommu === undefined),
        );
      case 'HWPT_NESTED':
        return values.some((other) => other.kind === 'DEVICE' && other.hwpt === object);
      case 'FAULT':
        return (
          object.open ||
          values.some((other) => other.kind === 'HWPT_PAGING' && other.fault === object)
        );
      case 'VIOMMU':
        return values.some((other) => 'viommu' in other && other.viommu === object);
      case 'VEVENTQ':
        return object.open;
      case 'HW_QUEUE':
        return values.some((other) => other.kind === 'HW_QUEUE' && other.previous === object);
      case 'VDEVICE':
      case 'SELFTEST':
        return false;
    }
  }

  ioasAlloc(): number {
    const ioas = { areas: [], reserved: [], allowed: [], smallPages: false };
    return this.#add({ kind: 'IOAS', ...ioas });
  }

  destroy(id: number): void {
    const object = this.objects.get(id);
    if (object === undefined || object === 'tombstone') throw new Refused('ENOENT');
    refuse('EBUSY', this.#held(object));
    this.#take(object);
  }

  #take(object: PlainObject): void {
    if (object === this.vfioIoas) this.vfioIoas = undefined;
    this.#remove(object);
    if (object.kind === 'HWPT_PAGING') this.#unreserve(object);
    if (object.kind === 'HW_QUEUE') {
      this.#remove(object.access);
      object.viommu.queues[0] = undefined;
    }
    if (object.kind !== 'SELFTEST') return;
    const { device } = object;
    const vdevice = this.all('VDEVICE').find((candidate) => candidate.device === device);
    if (vdevice !== undefined) this.objects.set(this.idOf(vdevice), 'tombstone');
    const { hwpt } = device;
    this.#remove(device);
    this.#putAutomatic(hwpt);
  }

  #putAutomatic(hwpt: PlainHwpt | PlainNested): void {
    if (hwpt.kind === 'HWPT_PAGING' && hwpt.automatic && !this.#held(hwpt)) this.#take(hwpt);
  }

  #unreserve(hwpt: PlainHwpt): void {
    hwpt.ioas.reserved = hwpt.ioas.reserved.filter(({ owner }) => owner !== hwpt);
  }

  map(
    ioasId: number,
    process: PlainProcess,
    request: {
      readonly address: bigint;
      readonly length: bigint;
      readonly iova: bigint | undefined;
      readonly read: boolean;
      readonly write: boolean;
    },
  ): bigint {
    const { address, length, iova, read, write } = request;
    refuse('EINVAL', !read && !write);
    const ioas = this.#get('IOAS', ioasId);
    refuse('EINVAL', length === 0n);
    const set = { process, address: (address / PAGE) * PAGE, writable: write };
    const slice = { set, from: address, length };
    return this.#place(ioas, [slice], { iova, read, write });
  }

  copy(
    from: { readonly ioas: number; readonly iova: bigint },
    to: { readonly ioas: number; readonly iova: bigint | undefined },
    what: { readonly length: bigint; readonly read: boolean; readonly write: boolean },
  ): bigint {
    const { length, read, write } = what;
    refuse('EINVAL', !read && !write);
    const source = this.#get('IOAS', from.ioas);
    refuse('EINVAL', length === 0n);
    const last = from.iova + length - 1n;
    const parts = this.#contiguous(source, { first: from.iova, last });
    refuse('ENOENT', parts.at(-1)?.last !== last);
    const slices = parts.map(({ area, first, last: end }) => ({
      set: area.set,
      from: area.from + (first - area.first),
      length: end - first + 1n,
    }));
    const target = this.#get('IOAS', to.ioas);
    return this.#place(target, slices, { iova: to.iova, read, write });
  }

  /** Parts of areas from the first address on, up to the first hole. */
  #contiguous(ioas: PlainIoas, { first, last }: Range): Held[] {
    const parts: Held[] = [];
    for (let at = first; at <= last;) {
      const area = ioas.areas.find((candidate) => candidate.first <= at && at <= candidate.last);
      if (area === undefined) break;
      const end = area.last < last ? area.last : last;
      parts.push({ area, first: at, last: end });
      at = end + 1n;
    }
    return parts;
  }

  #place(
    ioas: PlainIoas,
    slices: readonly { readonly set: PageSet; readonly from: bigint; readonly length: bigint }[],
    how: { readonly iova: bigint | undefined; readonly read: boolean; readonly write: boolean },
  ): bigint {
    return this.#atomic(() => {
      const alignment = this.alignment(ioas);
      const length = slices.reduce((sum, slice) => sum + slice.length, 0n);
      refuse('EINVAL', !isMultiple(length, alignment));
      const iova = how.iova ?? this.#choose(ioas, slices[0]?.from ?? 0n, length);
      const range = { first: iova, last: iova + length - 1n };
      refuse('EINVAL', !isMultiple(iova, alignment));
      refuse('EOVERFLOW', range.last > MAX);
      refuse(
        'EINVAL',
        ioas.reserved.some((reserved) => overlap(reserved, range)),
      );
      refuse(
        'EEXIST',
        ioas.areas.some((area) => overlap(area, range)),
      );
      let next = iova;
      const made: PlainArea[] = [];
      for (const { set, from, length: part } of slices) {
        refuse('EPERM', how.write && !set.writable);
        refuse('EINVAL', !isMultiple(from % PAGE, alignment));
        const { read, write } = how;
        made.push({ first: next, last: next + part - 1n, set, from, read, write });
        next += part;
      }
      for (const area of made) {
        ioas.areas.push(area);
        if (this.domains(ioas).length > 0) this.machine.show([area]);
      }
      return iova;
    });
  }

  /** First fit. */
  #choose(ioas: PlainIoas, address: bigint, length: bigint): bigint {
    let natural = 1n;
    while (natural < length) natural *= 2n;
    let align = natural < HUGE ? natural : HUGE;
    if (address !== 0n) while (!isMultiple(address, align)) align /= 2n;
    refuse('EINVAL', align < this.alignment(ioas));
    const window = { first: PAGE, last: MAX - PAGE };
    const allowed = joined(ioas.allowed);
    const used = [...ioas.areas, ...ioas.reserved].sort((a, b) => (a.first < b.first ? -1 : 1));
    for (const range of allowed.length > 0 ? allowed : [window]) {
      const low = range.first > window.first ? range.first : window.first;
      const high = range.last < window.last ? range.last : window.last;
      let at = low;
      for (const next of [...used, { first: high + 1n, last: MAX }]) {
        const end = next.first - 1n < high ? next.first - 1n : high;
        const start = (((at + align - 1n) / align) * align) | (address % PAGE);
        if (at <= end && start < end && end - start >= length - 1n) return start;
        if (next.last >= at) at = next.last + 1n;
      }
    }
    throw new Refused('ENOSPC');
  }

  unmap(ioasId: number, range: Range): bigint {
    const ioas = this.#get('IOAS', ioasId);
    refuse('EINVAL', range.last < range.first);
    refuse('ENOENT', !ioas.areas.some((area) => overlap(area, range)));
    return this.#unmap(ioas, range);
  }

  unmapAll(ioasId: number): bigint {
    return this.#unmap(this.#get('IOAS', ioasId), { first: 0n, last: MAX });
  }

  #unmap(ioas: PlainIoas, range: Range): bigint {
    const found = ioas.areas
      .filter((area) => overlap(area, range))
      .sort((a, b) => (a.first < b.first ? -1 : 1));
    let removed = 0n;
    for (const area of found) {
      const queues = this.all('ACCESS').filter(({ internal }) => internal);
      const isUsed = ({ items }: PlainAccess): boolean =>
        items.some(({ held }) => held.some((part) => part.area === area));
      refuse('EBUSY', queues.some(isUsed));
      refuse('ENOENT', area.first < range.first || area.last > range.last);
      // Accesses are told, and give back every pin that touches the area.
      for (const access of this.#accesses(ioas)) {
        access.items = access.items.filter((item) => !overlap(item.range, area));
      }
      ioas.areas = ioas.areas.filter((other) => other !== area);
      removed += area.last - area.first + 1n;
    }
    return removed;
  }

  allow(ioasId: number, ranges: readonly Range[]): void {
    const ioas = this.#get('IOAS', ioasId);
    ranges.forEach((range, i) => {
      refuse('EINVAL', range.first >= range.last);
      refuse(
        'EINVAL',
        ranges.slice(0, i).some((earlier) => overlap(earlier, range)),
      );
    });
    const taken = ranges.some((range) => ioas.reserved.some((other) => overlap(other, range)));
    refuse('EADDRINUSE', taken);
    ioas.allowed = [...ranges];
  }

  #reserve(ioas: PlainIoas, range: Range, owner: object | undefined): void {
    refuse(
      'EADDRINUSE',
      [...ioas.areas, ...ioas.allowed].some((other) => overlap(other, range)),
    );
    ioas.reserved.push({ ...range, owner });
  }

  reserve(ioasId: number, first: bigint, length: bigint): void {
    refuse('EINVAL', length === 0n);
    this.#reserve(this.#get('IOAS', ioasId), { first, last: first + length - 1n }, undefined);
  }

  /** Ranges that nothing reserves. */
  holes(ioas: PlainIoas): Range[] {
    const holes: Range[] = [];
    let next = 0n;
    for (const { first, last } of [...ioas.reserved].sort((a, b) => (a.first < b.first ? -1 : 1))) {
      if (first > next) holes.push({ first: next, last: first - 1n });
      if (last >= next) next = last + 1n;
    }
    if (next <= MAX) holes.push({ first: next, last: MAX });
    return holes;
  }

  smallPages(ioasId: number, on: boolean): void {
    const ioas = this.#get('IOAS', ioasId);
    if (on && !ioas.smallPages) {
      refuse('EINVAL', this.domains(ioas).length > 0 && ioas.areas.length > 0);
      this.#refuseMisaligned(ioas, PAGE);
    }
    ioas.smallPages = on;
  }

  #refuseMisaligned(ioas: PlainIoas, alignment: bigint): void {
    if (alignment <= this.alignment(ioas)) return;
    const fits = ({ first, last, from }: PlainArea): boolean =>
      [first, last + 1n, from % PAGE].every((value) => isMultiple(value, alignment));
    refuse('EADDRINUSE', !ioas.areas.every(fits));
  }

  /** A new page table begins to show an IOAS. */
  #join(ioas: PlainIoas, hwpt: PlainHwpt): void {
    this.#refuseMisaligned(ioas, MOCK_GRANULE);
    this.#reserve(ioas, { first: 0n, last: APERTURE.first - 1n }, hwpt);
    this.#reserve(ioas, { first: APERTURE.last + 1n, last: MAX }, hwpt);
    const isFirst = this.domains(ioas).length === 0;
    this.#add(hwpt);
    if (!isFirst) return;
    this.machine.show([...ioas.areas].sort((a, b) => (a.first < b.first ? -1 : 1)));
  }

  #automatic(ioas: PlainIoas): PlainHwpt {
    const known = this.machine.created.find(
      (hwpt) => hwpt.automatic && hwpt.ioas === ioas && this.domains(ioas).includes(hwpt),
    );
    if (known !== undefined) return known;
    const made = { kind: 'HWPT_PAGING' as const, ioas, nestParent: false, fault: undefined };
    const hwpt: PlainHwpt = { ...made, automatic: true };
    this.#join(ioas, hwpt);
    this.machine.created.push(hwpt);
    return hwpt;
  }

  /** What a device that is attached to an id gets. */
  #target(id: number, device: PlainDevice | undefined): PlainHwpt | PlainNested {
    const object = this.objects.get(id);
    if (object === undefined || object === 'tombstone') throw new Refused('ENOENT');
    if (object.kind === 'IOAS') return this.#automatic(object);
    refuse('EINVAL', object.kind !== 'HWPT_PAGING' && object.kind !== 'HWPT_NESTED');
    const hwpt = object as PlainHwpt | PlainNested;
    if (hwpt.kind === 'HWPT_NESTED' && hwpt.viommu !== undefined && device?.hwpt !== hwpt) {
      const { viommu } = hwpt;
      const mine = this.all('VDEVICE').some(
        (vdevice) => vdevice.viommu === viommu && vdevice.device === device,
      );
      refuse('ENOENT', !mine);
    }
    return hwpt;
  }

  /** @returns ids of the test object, the device and the HWPT */
  mockDevice(ptId: number): number[] {
    return this.#atomic(() => {
      const device = { kind: 'DEVICE' } as PlainDevice;
      const test = this.#add({ kind: 'SELFTEST', device });
      const id = this.#add(device);
      device.hwpt = this.#target(ptId, undefined);
      return [test, id, this.idOf(device.hwpt)];
    });
  }

  /** @returns the id of the HWPT to which the device came */
  replace(testId: number, ptId: number): number {
    return this.#atomic(() => {
      const { device } = this.#get('SELFTEST', testId);
      const old = device.hwpt;
      const hwpt = this.#target(ptId, device);
      device.hwpt = hwpt;
      if (old !== hwpt) this.#putAutomatic(old);
      return this.idOf(hwpt);
    });
  }

  hwptAlloc(
    deviceId: number,
    ptId: number,
    how: {
      readonly nestParent: boolean;
      readonly faultId: number | undefined;
      readonly data: boolean;
    },
  ): number {
    return this.#atomic(() => {
      this.#get('DEVICE', deviceId);
      const pt = this.objects.get(ptId);
      if (pt === undefined || pt === 'tombstone') throw new Refused('EINVAL');
      if (pt.kind !== 'IOAS') return this.#nestedAlloc(pt, how);
      refuse('EOPNOTSUPP', how.faultId !== undefined && how.nestParent);
      // The object exists before the queue is looked for, so that what filling refuses comes first.
      const found = how.faultId === undefined ? undefined : this.objects.get(how.faultId);
      const fault = found !== 'tombstone' && found?.kind === 'FAULT' ? found : undefined;
      const { nestParent } = how;
      const hwpt: PlainHwpt = {
        kind: 'HWPT_PAGING',
        ioas: pt,
        automatic: false,
        nestParent,
        fault,
      };
      this.#join(pt, hwpt);
      refuse('ENOENT', how.faultId !== undefined && fault === undefined);
      this.machine.created.push(hwpt);
      return this.idOf(hwpt);
    });
  }

  #nestedAlloc(
    pt: PlainObject,
    how: { readonly nestParent: boolean; readonly data: boolean },
  ): number {
    const isParent = pt.kind === 'HWPT_PAGING';
    refuse('EINVAL', !isParent && pt.kind !== 'VIOMMU');
    refuse('EOPNOTSUPP', how.nestParent || !how.data);
    refuse('EINVAL', isParent && (pt.automatic || !pt.nestParent));
    const kind = 'HWPT_NESTED';
    if (isParent) return this.#add({ kind, parent: pt, viommu: undefined });
    const viommu = pt as PlainViommu;
    return this.#add({ kind, parent: viommu.hwpt, viommu });
  }

  faultAlloc(): number {
    return this.#add({ kind: 'FAULT', open: true });
  }

  viommuAlloc(deviceId: number, hwptId: number): number {
    this.#get('DEVICE', deviceId);
    const hwpt = this.#get('HWPT_PAGING', hwptId);
    refuse('EINVAL', !hwpt.nestParent);
    return this.#add({ kind: 'VIOMMU', hwpt, queues: [] });
  }

  vdeviceAlloc(viommuId: number, deviceId: number, virtId: bigint): number {
    const viommu = this.#get('VIOMMU', viommuId);
    const device = this.#get('DEVICE', deviceId);
    const others = this.all('VDEVICE');
    refuse(
      'EEXIST',
      others.some((other) => other.device === device),
    );
    const taken = others.some((other) => other.viommu === viommu && other.virtId === virtId);
    refuse('EEXIST', taken);
    return this.#add({ kind: 'VDEVICE', viommu, device, virtId });
  }

  veventqAlloc(viommuId: number): number {
    const viommu = this.#get('VIOMMU', viommuId);
    refuse(
      'EEXIST',
      this.all('VEVENTQ').some((other) => other.viommu === viommu),
    );
    return this.#add({ kind: 'VEVENTQ', viommu, open: true });
  }

  queueAlloc(viommuId: number, index: number, iova: bigint): number {
    return this.#atomic(() => {
      const viommu = this.#get('VIOMMU', viommuId);
      const { ioas } = viommu.hwpt;
      const access: PlainAccess = {
        kind: 'ACCESS',
        ioas,
        pins: true,
        internal: true,
        items: [],
        nextItem: 0,
      };
      const previous = index === 1 ? viommu.queues[0] : undefined;
      const queue: PlainQueue = { kind: 'HW_QUEUE', viommu, previous, access };
      const id = this.#add(queue);
      this.#refuseMisaligned(ioas, PAGE);
      this.#add(access);
      this.#pin(access, { first: iova, last: iova + PAGE - 1n }, false);
      refuse('EEXIST', viommu.queues[index] !== undefined);
      refuse('EIO', index === 1 && previous === undefined);
      viommu.queues[index] = queue;
      return id;
    });
  }

  accessCreate(ioasId: number, pins: boolean): number {
    return this.#atomic(() => {
      const ioas = this.#get('IOAS', ioasId);
      if (pins) this.#refuseMisaligned(ioas, PAGE);
      const made = { ioas, pins, internal: false, items: [], nextItem: 0 };
      return this.#add({ kind: 'ACCESS', ...made });
    });
  }

  accessReplace(accessId: number, ioasId: number): void {
    const access = this.#get('ACCESS', accessId);
    const ioas = this.#get('IOAS', ioasId);
    if (ioas === access.ioas) return;
    if (access.pins) this.#refuseMisaligned(ioas, PAGE);
    access.ioas = ioas;
    access.items = [];
  }

  accessPin(accessId: number, range: Range, write: boolean): number {
    const access = this.#get('ACCESS', accessId);
    refuse('EOPNOTSUPP', !access.pins);
    refuse('EINVAL', range.last < range.first);
    return this.#atomic(() => this.#pin(access, range, write));
  }

  #pin(access: PlainAccess, range: Range, write: boolean): number {
    const held = this.#contiguous(access.ioas, range);
    const taken: Held[] = [];
    const item = { number: access.nextItem, range, held: taken };
    access.items.push(item);
    for (const part of held) {
      const { area, first } = part;
      const begins = isMultiple(area.from + (first - area.first), PAGE);
      const ends =
        range.last <= area.last || isMultiple(area.from + (area.last - area.first) + 1n, PAGE);
      refuse('EINVAL', !begins || !ends);
      refuse('EPERM', write ? !area.write : !area.read);
      this.machine.pin(area.set, pagesBehind(area, part));
      taken.push(part);
    }
    refuse('ENOENT', held.at(-1)?.last !== range.last);
    access.nextItem++;
    return item.number;
  }

  accessUnpin(accessId: number, number: number): void {
    const access = this.#get('ACCESS', accessId);
    refuse('ENOENT', !access.items.some((item) => item.number === number));
    access.items = access.items.filter((item) => item.number !== number);
  }

  accessClose(accessId: number): void {
    this.#remove(this.#get('ACCESS', accessId));
  }

  /** The fd of a fault queue or event queue is closed. */
  queueClose(id: number): void {
    const object = this.objects.get(id);
    if (object === undefined || object === 'tombstone' || !('open' in object))
      throw new Error('no queue');
    object.open = false;
  }

  vfioSet(ioasId: number): void {
    this.vfioIoas = this.#get('IOAS', ioasId);
  }

  vfioGet(): number {
    if (this.vfioIoas === undefined) throw new Refused('ENODEV');
    return this.idOf(this.vfioIoas);
  }
}
