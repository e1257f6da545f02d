/**
 * The text in which recorded machines come: what a real kernel showed of its devices and of the groups that it formed.
 *
 *     # qemu ARGS
 *     dev BDF path=P group=G driver=D physfn=F     P: sysfs path, which shows the bridges above; G, D, F may be empty
 *     cfg BDF HEX                                  configuration space
 *     group G type=T resv=FIRST LAST TYPE;…
 *     res BDF class=C irq=N reset=METHODS res=R    R: lines of sysfs `resource`, START,LAST,FLAGS;…
 *     iommu NAME version=V cap=C ecap=E            registers of the VT-d unit
 */
import { bytesOfHex } from '../hex.ts';
import { parseAddress } from '../pci/address.ts';
import { ConfigSpace } from '../pci/config-space.ts';
import { InputError } from '../../base/input-error.ts';
import {
  Machine,
  RECORDED_IOMMU,
  type DeviceDescription,
  type Iommu,
  type RecordedGroup,
} from '../machine.ts';
import {
  BAR_COUNT,
  barOfResource,
  parseResource,
  RESOURCE,
  resourceSize,
  type Bar,
} from '../pci/bar.ts';
import { EXT_SRIOV, SRIOV } from '../pci/capabilities.ts';
import type { DeviceFacts, ReservedRegion } from '../pci/device.ts';
import { parsePath } from '../sysfs-path.ts';

type Fields = ReadonlyMap<string, string>;

function fieldsOf(words: readonly string[]): Fields {
  return new Map(
    words.map((word) => {
      const equals = word.indexOf('=');
      return [word.slice(0, equals), word.slice(equals + 1)];
    }),
  );
}

function parseGroup(line: string): RecordedGroup | undefined {
  const match = /^group (\d+) type=(\S*) resv=(.*)$/.exec(line);
  if (match === null) return undefined;
  const reserved = (match[3] ?? '')
    .split(';')
    .map((region) => region.trim().split(/\s+/))
    .filter((words) => words.length === 3)
    .map(([start = '0', last = '0', type = 'reserved']) => ({
      start: BigInt(start),
      last: BigInt(last),
      type: type as ReservedRegion['type'],
    }));
  return { id: Number(match[1]), type: match[2] ?? '', reserved };
}

/** Lines of a device that are bytes, by their first word. */
const BYTES = ['cfg', 'raw', 'ones', 'zeros', 'rom'] as const;
type BytesWord = (typeof BYTES)[number];

type Recorded = {
  fields: Fields;
  resources?: Fields;
  readonly bytes: Map<BytesWord, Uint8Array>;
};

function parseLines(
  text: string,
  name: string,
): { devices: Map<string, Recorded>; groups: RecordedGroup[]; iommu: Iommu } {
  let iommu = RECORDED_IOMMU;
  const devices = new Map<string, Recorded>();
  const groups: RecordedGroup[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    const [word, bdf = '', ...rest] = line.split(' ');
    if (word === 'dev') devices.set(bdf, { fields: fieldsOf(rest), bytes: new Map() });
    if (word === 'group') {
      const group = parseGroup(line);
      if (group !== undefined) groups.push(group);
    }
    if (word === 'iommu') iommu = parseIommu(bdf, fieldsOf(rest));
    if (word === 'res') {
      const device = devices.get(bdf);
      if (device !== undefined) device.resources = fieldsOf(rest);
    }
    const kind = BYTES.find((each) => each === word);
    if (kind !== undefined) {
      const device = devices.get(bdf);
      const bytes = bytesOfHex(rest.join(''));
      if (device === undefined || bytes === undefined) {
        const where = `${name}:${index + 1}`;
        throw new InputError(`${where}: expected "${kind} BDF HEX" after the "dev" line of ${bdf}`);
      }
      device.bytes.set(kind, bytes);
    }
  }
  return { devices, groups, iommu };
}

function parseIommu(name: string, fields: Fields): Iommu {
  return {
    ...RECORDED_IOMMU,
    name,
    registers: {
      version: fields.get('version') ?? '',
      capabilities: BigInt(`0x${fields.get('cap') ?? '0'}`),
      extended: BigInt(`0x${fields.get('ecap') ?? '0'}`),
    },
  };
}

/** What the lines of `resource` say of registers: their sizes, for the addresses are in configuration space. */
function sizesOf(
  fields: Fields,
  config: ConfigSpace,
): Pick<DeviceFacts, 'bars' | 'romSize' | 'vfBars'> {
  const resources = (fields.get('res') ?? '').split(';').map(parseResource);
  const bars = (first: number): Bar[] =>
    Array.from({ length: BAR_COUNT }, (_, index) => {
      const resource = resources[first + index];
      return resource && barOfResource(index, resource);
    }).filter((bar) => bar !== undefined);
  const rom = resources[RESOURCE.ROM];
  const sriov = config.findExtendedCapability(EXT_SRIOV);
  const total = sriov === 0 ? 1n : BigInt(config.u16(sriov + SRIOV.TOTAL_VFS));
  return {
    bars: bars(0),
    romSize: rom === undefined || rom.last === 0n ? undefined : resourceSize(rom),
    vfBars: bars(RESOURCE.IOV).map((bar) => ({ ...bar, size: bar.size / total })),
  };
}

function describe(
  bdf: string,
  { fields, bytes, resources }: Recorded,
  name: string,
): DeviceDescription {
  const address = parseAddress(bdf);
  const path = parsePath(fields.get('path') ?? '');
  const found = bytes.get('raw') ?? bytes.get('cfg');
  if (address === undefined || path === undefined || found === undefined) {
    throw new InputError(`${name}: ${bdf} needs a "dev" line with its path and a "cfg" line`);
  }
  const config = new ConfigSpace(found);
  const [ones, zeros] = [bytes.get('ones'), bytes.get('zeros')];
  const group = fields.get('group') ?? '';
  const driver = fields.get('driver') ?? '';
  return {
    address,
    parent: path.parent,
    dmaDevice: path.dmaDevice,
    config,
    physfn: parseAddress(fields.get('physfn') ?? ''),
    facts: {
      driver: driver === '' ? undefined : driver,
      recordedGroup: group === '' ? undefined : Number(group),
      rom: bytes.get('rom'),
      registers: ones === undefined || zeros === undefined ? undefined : { ones, zeros },
      ...(resources === undefined
        ? {}
        : { ...sizesOf(resources, config), irq: Number(resources.get('irq') ?? 0) }),
    },
  };
}

/**
 * The order in which Linux came upon the devices: as listed, but virtual functions only exist once a driver or an
 * administrator switched them on, when everything else had its group already.
 */
export function inFindingOrder(descriptions: readonly DeviceDescription[]): DeviceDescription[] {
  return [
    ...descriptions.filter(({ physfn }) => physfn === undefined),
    ...descriptions.filter(({ physfn }) => physfn !== undefined),
  ];
}

/**
 * Reads a recorded machine.
 * @param text the recording, decompressed
 * @param name for messages, usually the file's name
 * @returns the machine, its devices in the order in which Linux found them, configuration space as recorded
 */
export function parseDump(text: string, name: string): Machine {
  const { devices, groups, iommu } = parseLines(text, name);
  const machine = new Machine({
    kind: 'pc',
    name,
    source: 'recording',
    acs: 'as-is',
    iommus: [iommu],
  });
  const descriptions = [...devices].map(([bdf, recorded]) => describe(bdf, recorded, name));
  for (const description of inFindingOrder(descriptions)) machine.add(description);
  for (const group of groups) machine.recordedGroups.set(group.id, group);
  return machine;
}
