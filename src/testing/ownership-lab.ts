/**
 * OwnershipLab: Linux on a small machine whose devices A, B (and C, not yet plugged) share a group, with its real doors: driver core,
 * device nodes, group files, containers, /dev/iommu. Calls answer "ok" or the errno, as a program would see them; `reason`
 * is what a person would be told.
 */
import assert from 'node:assert/strict';
import type { Errno } from '../base/errno.ts';
import type { Faults } from '../base/faults.ts';
import type { ProfileName } from '../iommu/profile.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import type { IommuDevice, IommuOps } from '../iommu/domain.ts';
import type { IommuGroup } from '../iommu/group.ts';
import type { Iommufd } from '../iommufd/iommufd.ts';
import type { IommufdFile } from '../iommufd/file.ts';
import { ClientFile, InProcessClient } from '../client/in-process.ts';
import type { PciSystem } from '../kernel/pci-system.ts';
import { pciSystem } from '../kernel/system.ts';
import type { DeviceFile } from '../vfio/device-file.ts';
import type { GroupFile } from '../vfio/group-file.ts';
import { vfioView } from '../vfio/iommufd.ts';
import { newContainer } from '../vfio/state.ts';
import { attempt } from './attempt.ts';

const FUNCTIONS = { A: '0000:02:00.0', B: '0000:02:00.1', C: '0000:02:00.2' } as const;
const OTHER = '0000:03:00.0';
/** The root port above A, B and C, in the same group where it has no ACS. */
const PORT = '0000:00:02.0';

export type Letter = keyof typeof FUNCTIONS;

export type LabOptions = {
  readonly profile?: ProfileName;
  /** the port above has no ACS: it is in the group too */
  readonly portInGroup?: boolean;
  /** firmware wants this device mapped one to one */
  readonly direct?: Letter;
  /** the probe of K fails */
  readonly failProbe?: boolean;
  readonly ops?: IommuOps;
};

function machineText({ portInGroup, direct, failProbe }: LabOptions): string {
  const functions = Object.entries(FUNCTIONS).map(
    ([letter, address]) => `  - address: ${address}
    ids: 1234:0001
    label: ${letter}${letter === direct ? '\n    reserved: [{ start: 0x1000, last: 0x1fff, type: direct }]' : ''}`,
  );
  return `kind: pc
name: lab
drivers:
  - name: K
    ids: ['1234:0001']
    dma: true${failProbe === true ? '\n    fail-probe: EIO' : ''}
  - name: liar
    ids: ['1234:0001']
    user-dma: true
    dma: true
devices:
  - address: ${PORT}
    type: root-port
    secondary: 0000:02
    driver: pcieport${portInGroup === true ? '\n    acs: none' : ''}
${functions.join('\n')}
  - address: 0000:00:03.0
    type: root-port
    secondary: 0000:03
    driver: pcieport
  - address: ${OTHER}
    ids: 1234:0001
    label: other
`;
}

/** One program: a /dev/iommu with one IOAS and, if it wants, a container. */
export class LabUser {
  readonly client = new InProcessClient();
  readonly file: IommufdFile;
  readonly ioas: number;
  readonly container = newContainer();
  readonly #session: ClientFile;

  constructor(iommufd: Iommufd) {
    this.file = iommufd.open(this.client);
    this.#session = new ClientFile(this.client, this.client.install(this.file));
    this.ioas = this.allocIoas();
  }

  allocIoas(): number {
    return this.#session.ioctl('IOMMU_IOAS_ALLOC').out_ioas_id;
  }
}

export class OwnershipLab {
  readonly system: PciSystem;
  readonly iommufd: Iommufd;
  readonly faults: Faults;
  readonly other = OTHER;
  readonly port = PORT;
  /** why the last call was refused */
  reason = '';

  constructor(options: LabOptions = {}) {
    const machine = loadMachine(machineText(options), 'lab');
    const { pci, iommufd, faults } = pciSystem(machine, { ...options, check: true });
    this.system = pci;
    this.iommufd = iommufd;
    this.faults = faults;
    this.remove('C');
  }

  user(): LabUser {
    return new LabUser(this.iommufd);
  }

  name(letter: Letter): string {
    return FUNCTIONS[letter];
  }

  iommu(letter: Letter): IommuDevice {
    const device = this.system.core.device(this.name(letter));
    assert.ok(device, `${letter} is not plugged`);
    return device.iommu;
  }

  get group(): IommuGroup {
    return this.iommu('A').requireGroup();
  }

  driver(letter: Letter): string {
    const device = this.system.core.device(this.name(letter));
    return device?.bound === true ? (device.driver?.name ?? '-') : '-';
  }

  /** Runs a call. @returns "ok" or the errno */
  try(action: () => void): string {
    const { answer, reason } = attempt(action);
    this.reason = reason;
    return answer;
  }

  /** A write to sysfs. @returns "ok", the errno, or "waits" */
  #write(start: (done: (error?: Errno) => void) => void): string {
    let outcome = 'waits';
    start((error) => {
      outcome = this.try(() => {
        if (error !== undefined) throw error;
      });
    });
    return outcome;
  }

  /** Sets driver_override if vfio-pci needs it, then writes to the driver's `bind`. */
  bind(letter: Letter, driver: string): string {
    const device = this.system.core.device(this.name(letter));
    if (device !== undefined) {
      this.system.core.setOverride(device, driver === 'K' ? '\n' : driver);
    }
    return this.#write((done) => {
      this.system.core.bind(driver, this.name(letter), done);
    });
  }

  unbind(letter: Letter): string {
    const driver = this.system.core.device(this.name(letter))?.driver?.name ?? '';
    return this.#write((done) => {
      this.system.core.unbind(driver, this.name(letter), done);
    });
  }

  remove(letter: Letter): string {
    return this.#write((done) => {
      this.system.remove(this.name(letter), done);
    });
  }

  plug(): void {
    this.system.rescan();
  }

  openNode(letter: Letter): DeviceFile {
    const device = this.system.vfio.deviceOf(this.iommu(letter));
    assert.ok(device, `${letter} is not bound to vfio-pci`);
    return this.system.vfio.openDevice(device);
  }

  /** Opens the node of a device and binds it: the common case. */
  take(letter: Letter, user: LabUser): { readonly file: DeviceFile; readonly outcome: string } {
    const file = this.openNode(letter);
    return { file, outcome: this.bindNode(file, user) };
  }

  bindNode(file: DeviceFile, user: LabUser): string {
    return this.try(() => file.bind(() => vfioView(user.file.context)));
  }

  attach(file: DeviceFile, ioas: number): string {
    return this.try(() => file.attach(ioas));
  }

  openGroup(letter: Letter): GroupFile {
    const group = this.system.vfio.group(String(this.iommu(letter).requireGroup().id));
    assert.ok(group, `the group of ${letter} has no file`);
    return this.system.vfio.openGroup(group);
  }
}
