/**
 * Lab: the engine with the mock driver and clients in this process, for tests. After each test every client exits, and then
 * nothing may be left: no context, no pin, no mock device, no page that somebody is charged for; the invariants hold.
 */
import assert from 'node:assert/strict';
import test, { type TestContext } from 'node:test';
import { Errno, type ErrnoCode } from '../base/errno.ts';
import type { Faults } from '../base/faults.ts';
import type { Static } from '../base/struct.ts';
import type { Iommufd } from '../iommufd/iommufd.ts';
import { violations } from '../iommufd/invariants.ts';
import { ClientFile, InProcessClient, type InProcessClientOptions } from '../client/in-process.ts';
import { mockSystem } from '../kernel/system.ts';
import { PAGE_SIZE, type PhysicalMemory } from '../machine/memory.ts';
import * as mock from '../uapi/iommufd-test.ts';
import * as uapi from '../uapi/iommufd.ts';
import type { Context } from '../iommufd/context.ts';

export const PAGE = BigInt(PAGE_SIZE);
export const READ_WRITE = uapi.IOMMU_IOAS_MAP_READABLE | uapi.IOMMU_IOAS_MAP_WRITEABLE;
/** The first IOVA of the default mock domain. */
export const APERTURE = BigInt(mock.MOCK_APERTURE_START);

type Members = mock.iommu_test_cmd['u']['members'];
type Member = keyof Members;

/** A mock device with the objects that came with it. */
export type MockIds = { readonly stdev: number; readonly hwpt: number; readonly device: number };

/** What a test may say of a mapping; the IOVA is fixed where it is given. */
export type MapOptions = { readonly iova?: bigint; readonly flags?: number };

export class Lab {
  readonly faults: Faults;
  readonly physical: PhysicalMemory;
  readonly iommufd: Iommufd;
  readonly clients: InProcessClient[] = [];

  constructor() {
    const { faults, physical, iommufd } = mockSystem();
    this.faults = faults;
    this.physical = physical;
    this.iommufd = iommufd;
  }

  /** Another process. */
  client(options: InProcessClientOptions = {}): InProcessClient {
    const client = new InProcessClient({ pid: this.clients.length + 1, ...options });
    this.clients.push(client);
    return client;
  }

  /** Opens /dev/iommu, in a process of its own unless one is given. */
  open(client: InProcessClient = this.client()): Session {
    const fd = client.install(this.iommufd.open(client));
    const context = this.iommufd.contexts.at(-1);
    if (context === undefined) throw new Error('open made no context');
    return new Session(client, fd, context);
  }

  /** The invariants hold now. */
  check(): void {
    assert.deepEqual(violations(this.iommufd), []);
  }

  /** Every client exits; nothing is left. */
  end(): void {
    this.check();
    for (const client of this.clients) if (!client.memory.exited) client.exit();
    this.check();
    assert.deepEqual(this.iommufd.leaks(), []);
    const { accounting } = this.iommufd.environment;
    for (const { memory, uid } of this.clients) {
      assert.deepEqual(
        [accounting.lockedBy(uid), memory.lockedPages, memory.pinnedPages],
        [0, 0, 0],
        `pages of user ${uid} are still charged`,
      );
    }
  }
}

/** One open of /dev/iommu, with short names for what most tests do. */
export class Session extends ClientFile {
  readonly context: Context;

  constructor(client: InProcessClient, fd: number, context: Context) {
    super(client, fd);
    this.context = context;
  }

  /** The same file in a process that inherited it. */
  in(client: InProcessClient): Session {
    return new Session(client, this.fd, this.context);
  }

  ioas(): number {
    return this.ioctl('IOMMU_IOAS_ALLOC').out_ioas_id;
  }

  destroy(id: number): void {
    this.ioctl('IOMMU_DESTROY', { id });
  }

  /** @returns the IOVA */
  map(ioasId: number, address: bigint, length: bigint, options: MapOptions = {}): bigint {
    const fixed = options.iova === undefined ? 0 : uapi.IOMMU_IOAS_MAP_FIXED_IOVA;
    return this.ioctl('IOMMU_IOAS_MAP', {
      flags: (options.flags ?? READ_WRITE) | fixed,
      ioas_id: ioasId,
      user_va: address,
      length,
      iova: options.iova ?? 0n,
    }).iova;
  }

  mapFile(ioasId: number, file: { fd: number; start?: bigint }, length: bigint): bigint {
    const { fd, start = 0n } = file;
    const request = { flags: READ_WRITE, ioas_id: ioasId, fd, start, length };
    return this.ioctl('IOMMU_IOAS_MAP_FILE', request).iova;
  }

  /** @returns how many bytes were unmapped */
  unmap(ioasId: number, iova: bigint, length: bigint): bigint {
    return this.ioctl('IOMMU_IOAS_UNMAP', { ioas_id: ioasId, iova, length }).length;
  }

  /** An operation of the mock driver. @returns the member of the union as the call left it */
  test(
    op: number,
    id: number,
    given?: { readonly [K in Member]?: Partial<Static<Members[K]>> },
  ): mock.iommu_test_cmd & { readonly result: number } {
    const { u } = mock.iommu_test_cmd.make();
    for (const [member, value] of Object.entries(given ?? {}) as [Member, object][]) {
      const type = u.members[member] as unknown as { make(given: object): Static<Members[Member]> };
      u.write(member, type.make(value));
    }
    return this.ioctl('IOMMU_TEST_CMD', { op, id, u });
  }

  mockDomain(ptId: number, flags = 0): MockIds {
    const op = mock.IOMMU_TEST_OP_MOCK_DOMAIN_FLAGS;
    const { u } = this.test(op, ptId, { mock_domain_flags: { dev_flags: flags } });
    const ids = u.read('mock_domain');
    return { stdev: ids.out_stdev_id, hwpt: ids.out_hwpt_id, device: ids.out_idev_id };
  }

  /** @returns the id of the HWPT to which it came */
  replace(stdev: number, ptId: number): number {
    const op = mock.IOMMU_TEST_OP_MOCK_DOMAIN_REPLACE;
    const { u } = this.test(op, stdev, { mock_domain_replace: { pt_id: ptId } });
    return u.read('mock_domain_replace').pt_id;
  }

  hwpt(device: number, ptId: number, given: Partial<uapi.iommu_hwpt_alloc> = {}): number {
    return this.ioctl('IOMMU_HWPT_ALLOC', { dev_id: device, pt_id: ptId, ...given }).out_hwpt_id;
  }

  /** A nested HWPT of the mock driver. */
  nested(device: number, parent: number, iotlb = mock.IOMMU_TEST_IOTLB_DEFAULT): number {
    return this.hwpt(device, parent, this.data({ iotlb }));
  }

  /** The driver data of a HWPT, put into memory of the client. */
  data(config: Partial<mock.iommu_hwpt_selftest>): Partial<uapi.iommu_hwpt_alloc> {
    const struct = mock.iommu_hwpt_selftest;
    const bytes = new Uint8Array(struct.size);
    struct.encode(struct.make(config), bytes);
    return {
      data_type: mock.IOMMU_HWPT_DATA_SELFTEST,
      data_len: struct.size,
      data_uptr: this.put(bytes),
    };
  }

  viommu(device: number, parent: number): number {
    const type = mock.IOMMU_VIOMMU_TYPE_SELFTEST;
    return this.ioctl('IOMMU_VIOMMU_ALLOC', { type, dev_id: device, hwpt_id: parent })
      .out_viommu_id;
  }

  vdevice(viommuId: number, device: number, virtId: bigint): number {
    const given = { viommu_id: viommuId, dev_id: device, virt_id: virtId };
    return this.ioctl('IOMMU_VDEVICE_ALLOC', given).out_vdevice_id;
  }

  /** @param pins the access pins pages */
  access(ioasId: number, pins: boolean): AccessHandle {
    const flags = pins ? mock.MOCK_FLAGS_ACCESS_CREATE_NEEDS_PIN_PAGES : 0;
    const { u } = this.test(mock.IOMMU_TEST_OP_CREATE_ACCESS, ioasId, { create_access: { flags } });
    return new AccessHandle(this, u.read('create_access').out_access_fd);
  }

  /** A fault queue: its id and its file. */
  faultQueue(): { readonly id: number; readonly file: ClientFile } {
    const { out_fault_id: id, out_fault_fd: fd } = this.ioctl('IOMMU_FAULT_QUEUE_ALLOC');
    return { id, file: new ClientFile(this.client, fd) };
  }

  veventq(viommuId: number, depth: number): { readonly id: number; readonly file: ClientFile } {
    const { out_veventq_id: id, out_veventq_fd: fd } = this.ioctl('IOMMU_VEVENTQ_ALLOC', {
      viommu_id: viommuId,
      type: mock.IOMMU_VEVENTQ_TYPE_SELFTEST,
      veventq_depth: depth,
    });
    return { id, file: new ClientFile(this.client, fd) };
  }

  hwQueue(viommuId: number, index: number, range: { iova: bigint; length: bigint }): number {
    return this.ioctl('IOMMU_HW_QUEUE_ALLOC', {
      viommu_id: viommuId,
      type: mock.IOMMU_HW_QUEUE_TYPE_SELFTEST,
      index,
      nesting_parent_iova: range.iova,
      length: range.length,
    }).out_hw_queue_id;
  }

  /** The driver sees exactly the client's pages from `address` on. */
  checkMap(hwpt: number, iova: bigint, range: { address: bigint; length: bigint }): void {
    const { address: uptr, length } = range;
    this.test(mock.IOMMU_TEST_OP_MD_CHECK_MAP, hwpt, { check_map: { iova, length, uptr } });
  }

  /** Each page is pinned exactly so often. */
  checkRefs(address: bigint, length: bigint, refs: number): void {
    const given = { check_refs: { length, uptr: address, refs } };
    this.test(mock.IOMMU_TEST_OP_MD_CHECK_REFS, 0, given);
  }

  reserve(ioasId: number, start: bigint, length: bigint): void {
    this.test(mock.IOMMU_TEST_OP_ADD_RESERVED, ioasId, { add_reserved: { start, length } });
  }

  /** Puts bytes into fresh memory of the client. @returns their address */
  put(bytes: Uint8Array): bigint {
    const address = this.client.allocate(Math.max(1, Math.ceil(bytes.length / PAGE_SIZE)));
    this.client.write(address, bytes);
    return address;
  }
}

/** The file of a test access. */
export class AccessHandle {
  readonly session: Session;
  readonly fd: number;

  constructor(session: Session, fd: number) {
    this.session = session;
    this.fd = fd;
  }

  /** @returns the number of the pinned item */
  pin(iova: bigint, length: bigint, options: { uptr?: bigint; write?: boolean } = {}): number {
    const flags = options.write === false ? 0 : mock.MOCK_FLAGS_ACCESS_WRITE;
    const given = { access_pages: { flags, iova, length, uptr: options.uptr ?? 0n } };
    const { u } = this.session.test(mock.IOMMU_TEST_OP_ACCESS_PAGES, this.fd, given);
    return u.read('access_pages').out_access_pages_id;
  }

  unpin(item: number): void {
    const given = { destroy_access_pages: { access_pages_id: item } };
    this.session.test(mock.IOMMU_TEST_OP_DESTROY_ACCESS_PAGES, this.fd, given);
  }

  rw(range: { iova: bigint; length: bigint; uptr: bigint }, flags: number): void {
    const given = { access_rw: { ...range, flags } };
    this.session.test(mock.IOMMU_TEST_OP_ACCESS_RW, this.fd, given);
  }

  replace(ioasId: number): void {
    const given = { access_replace_ioas: { ioas_id: ioasId } };
    this.session.test(mock.IOMMU_TEST_OP_ACCESS_REPLACE_IOAS, this.fd, given);
  }

  close(): void {
    this.session.client.close(this.fd);
  }
}

/** A test with a lab and one open of /dev/iommu in it; what must hold afterwards is looked at by itself. */
export function engineTest(
  name: string,
  body: (session: Session, lab: Lab, t: TestContext) => void,
): void {
  test(name, (t) => {
    const lab = new Lab();
    body(lab.open(), lab, t);
    lab.end();
  });
}

/** `act` is refused with this errno, and with a reason for people. */
export function refuses(code: ErrnoCode, act: () => unknown): void {
  assert.throws(act, (error) => {
    if (!(error instanceof Errno)) throw error;
    assert.equal(error.code, code, `refused with ${error.code}: ${error.message}`);
    assert.match(error.message, /\w/);
    return true;
  });
}
