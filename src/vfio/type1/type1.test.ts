import assert from 'node:assert/strict';
import test from 'node:test';
import { ClientFile, InProcessClient } from '../../client/in-process.ts';
import { SparseBacking } from '../../base/sparse-backing.ts';
import { BufferMemory } from '../../client/buffer-memory.ts';
import { pcIommu } from '../../iommu/hardware/pc.ts';
import { ContainerLab, RESERVED } from '../../testing/container-lab.ts';
import * as uapi from '../../uapi/vfio.ts';
import { DEFAULT_PARAMETERS } from '../state.ts';

const PAGE = 4096n;
const V1 = uapi.VFIO_TYPE1_IOMMU;
const VADDR = uapi.VFIO_DMA_UNMAP_FLAG_VADDR;
const NEW_VADDR = uapi.VFIO_DMA_MAP_FLAG_VADDR;
const ALL = uapi.VFIO_DMA_UNMAP_FLAG_ALL;
const MEMLOCK_PAGES = 8;

/** Limited memory, and no capability that lifts the limit. */
const LIMITED = { client: { memlockLimit: MEMLOCK_PAGES * 4096, capabilities: [] } } as const;

test('MAP_DMA judges size, wrap-around, flags and alignment in this order', () => {
  const lab = ContainerLab.ready();
  const map = (given: object): string => lab.try(() => lab.file.ioctl('VFIO_IOMMU_MAP_DMA', given));
  const top = 2n ** 64n - PAGE;
  assert.equal(map({ argsz: 31, size: PAGE, flags: 3 }), 'EINVAL');
  assert.equal(map({ size: PAGE, flags: 8 }), 'EINVAL');
  assert.match(lab.reason, /unknown flags 0x8 \(supported: READ, WRITE, VADDR\)/);
  assert.equal(map({ iova: top, size: 0n, flags: 3 }), 'EINVAL');
  assert.equal(map({ iova: top, size: 2n * PAGE, flags: 0 }), 'EOVERFLOW');
  assert.equal(map({ vaddr: top, size: 2n * PAGE, flags: 0 }), 'EOVERFLOW');
  assert.equal(map({ size: PAGE, flags: 0 }), 'EINVAL');
  assert.equal(map({ size: PAGE, flags: NEW_VADDR | 1 }), 'EINVAL');
  assert.equal(map({ iova: 0x800n, size: PAGE, flags: 3 }), 'EINVAL');
  assert.equal(map({ iova: PAGE, size: PAGE, vaddr: 0n, flags: 3 }), 'EFAULT');
  lab.exit();
});

test('MAP_DMA: an overlap comes before a full container, and that before an IOVA that is not valid', () => {
  const lab = ContainerLab.ready(uapi.VFIO_TYPE1v2_IOMMU, {
    machine: { vfio: { parameters: { ...DEFAULT_PARAMETERS, entryLimit: 2 } } },
  });
  assert.equal(lab.map(0x1000n, 1), 'ok');
  assert.equal(lab.map(0xfee0_0000n, 1), 'EINVAL', 'the MSI window');
  assert.equal(lab.map(0x3000n, 1), 'ok');
  assert.equal(lab.map(0x1000n, 4), 'EEXIST');
  assert.equal(lab.map(0xfee0_0000n, 1), 'ENOSPC');
  assert.match(lab.reason, /dma_entry_limit/);
  assert.equal(lab.unmap(0x1000n, PAGE), PAGE);
  assert.equal(lab.map(0x5000n, 1), 'ok', 'an entry is free again');
  lab.exit();
});

test('UNMAP_DMA of version 2 takes whole mappings only, any number of them', () => {
  const lab = ContainerLab.ready();
  for (const iova of [0x1000n, 0x5000n, 0x9000n]) assert.equal(lab.map(iova, 4), 'ok');
  assert.equal(lab.unmap(0x2000n, PAGE), 'EINVAL');
  assert.equal(lab.unmap(0x1000n, PAGE), 'EINVAL');
  assert.equal(lab.unmap(0n, 0x7000n), 'EINVAL');
  assert.equal(lab.unmap(0n, 0x9000n), 0x8000n);
  assert.deepEqual(lab.shown(0), [[0x9000n, 0xcfffn]]);
  assert.equal(lab.unmap(0x10_0000n, PAGE), 0n, 'nothing is mapped there');
  assert.equal(lab.unmap(PAGE, 0n, ALL), 'EINVAL');
  assert.equal(lab.unmap(0n, 0n, ALL), 0x4000n);
  assert.equal(lab.unmap(0n, 0n), 'EINVAL');
  assert.equal(lab.unmap(2n ** 64n - PAGE, 2n * PAGE), 'EOVERFLOW');
  lab.exit();
});

test('UNMAP_DMA of version 1: a range that holds the first byte takes all, one that starts behind it nothing', () => {
  const lab = ContainerLab.ready(V1);
  for (const iova of [0x1000n, 0x5000n, 0x9000n]) assert.equal(lab.map(iova, 4), 'ok');
  assert.equal(lab.unmap(0x2000n, 0x8000n), 0n);
  assert.equal(lab.unmap(0x1000n, PAGE), 0x4000n);
  assert.equal(lab.unmap(0x3000n, 0x3000n), 0x4000n, 'the first one that is met');
  assert.deepEqual(lab.shown(0), [[0x9000n, 0xcfffn]]);
  lab.exit();
});

test('addresses that were given up: all or none, no late group, and the mapping goes on working', () => {
  const lab = ContainerLab.ready();
  const vaddr = lab.client.allocate(4);
  assert.equal(lab.map(0x1000n, 4, { vaddr }), 'ok');
  assert.equal(lab.map(0x5000n, 4), 'ok');
  assert.equal(lab.unmap(0x5000n, 4n * PAGE, VADDR), 4n * PAGE);
  assert.equal(lab.unmap(0n, 0n, ALL | VADDR), 'EINVAL', 'one is given up already');
  assert.equal(lab.type1.invalidCount, 1);
  assert.equal(lab.join(1), 'EBUSY');
  assert.deepEqual(lab.shown(0), [
    [0x1000n, 0x4fffn],
    [0x5000n, 0x8fffn],
  ]);
  const take = (iova: bigint, pages: number): string => lab.map(iova, pages, { vaddr, flags: 4 });
  assert.equal(take(0x10_0000n, 1), 'ENOENT');
  assert.equal(take(0x1000n, 4), 'EINVAL', 'its address is valid');
  assert.equal(take(0x5000n, 2), 'EINVAL', 'not all of it');
  assert.equal(take(0x5000n, 4), 'ok');
  assert.equal(lab.type1.invalidCount, 0);
  assert.equal(lab.join(1), 'ok');
  lab.exit();
});

test('a mapping that another process takes over is charged to that process', () => {
  const lab = ContainerLab.ready();
  assert.equal(lab.map(0x1000n, 4), 'ok');
  assert.equal(lab.client.memory.lockedPages, 4, 'CAP_IPC_LOCK lifts the limit, not the count');
  assert.equal(lab.client.memory.pinnedPages, 0, 'VmPin is not touched');
  assert.equal(lab.unmap(0x1000n, 4n * PAGE, VADDR), 4n * PAGE);
  const child = lab.client.fork(2);
  const vaddr = child.allocate(4);
  const call = { flags: NEW_VADDR, vaddr, iova: 0x1000n, size: 4n * PAGE };
  new ClientFile(child, lab.file.fd).ioctl('VFIO_IOMMU_MAP_DMA', call);
  assert.deepEqual([lab.client.memory.lockedPages, child.memory.lockedPages], [0, 4]);
  child.exit();
  lab.exit();
});

test('RLIMIT_MEMLOCK: over it is ENOMEM, also where a later page could not be pinned; before it EFAULT', () => {
  const lab = ContainerLab.ready(uapi.VFIO_TYPE1v2_IOMMU, LIMITED);
  const room = lab.client.allocate(MEMLOCK_PAGES + 2);
  assert.equal(lab.map(0n, MEMLOCK_PAGES + 1, { vaddr: room }), 'ENOMEM');
  assert.equal(lab.map(0n, MEMLOCK_PAGES + 9, { vaddr: room }), 'ENOMEM', 'the limit is met first');
  const few = lab.client.allocate(2);
  assert.equal(lab.map(0n, MEMLOCK_PAGES + 1, { vaddr: few }), 'EFAULT', 'page 2 is met first');
  assert.equal(lab.map(0n, MEMLOCK_PAGES, { vaddr: room }), 'ok');
  assert.equal(lab.map(0x10_0000n, 1, { vaddr: few }), 'ENOMEM');
  assert.equal(lab.client.memory.lockedPages, MEMLOCK_PAGES);
  lab.exit();
});

test('a read-only page can be mapped for reading and not for writing', () => {
  const lab = ContainerLab.ready();
  const vaddr = lab.client.allocate(1, { readOnly: true });
  assert.equal(lab.map(0n, 1, { vaddr, flags: 3 }), 'EFAULT');
  assert.equal(lab.map(0n, 1, { vaddr, flags: 2 }), 'EFAULT');
  assert.equal(lab.map(0n, 1, { vaddr, flags: 1 }), 'ok');
  lab.exit();
});

test('groups behind one kind of IOMMU share a domain; the last one that leaves takes the mappings with it', () => {
  const lab = ContainerLab.ready();
  assert.equal(lab.map(0x1000n, 4), 'ok');
  assert.equal(lab.join(2), 'ok');
  assert.equal(lab.type1.domains.length, 1);
  assert.equal(lab.iommu(2).attached, lab.iommu(0).attached);
  assert.equal(lab.leave(0), 'ok');
  assert.deepEqual(lab.shown(2), [[0x1000n, 0x4fffn]]);
  assert.equal(lab.leave(2), 'ok');
  assert.equal(lab.client.memory.lockedPages, 0);
  assert.equal(lab.container.container.iommu, undefined);
  assert.equal(lab.setIommu(), 'EINVAL', 'no group');
  lab.exit();
});

test('a late group with a reserved region is refused while something is mapped there, and narrows the container after', () => {
  const lab = ContainerLab.ready();
  assert.equal(lab.map(RESERVED.last - 0xfffn, 2), 'ok');
  assert.equal(lab.join(1), 'EINVAL');
  assert.match(lab.reason, /0x4000f000, 0x40010fff.*reserved/);
  assert.equal(lab.iommu(1).requireGroup().owner, undefined, 'the claim is undone');
  assert.equal(lab.unmap(RESERVED.last - 0xfffn, 2n * PAGE), 2n * PAGE);
  assert.equal(lab.join(1), 'ok');
  assert.equal(lab.map(RESERVED.first, 1), 'EINVAL');
  assert.deepEqual(
    lab.type1.iovas.map(({ first, last }) => [first, last]),
    [
      [0n, RESERVED.first - 1n],
      [RESERVED.last + 1n, 0xfedf_ffffn],
      [0xfef0_0000n, 2n ** 48n - 1n],
    ],
  );
  assert.equal(lab.leave(1), 'ok');
  assert.equal(lab.map(RESERVED.first, 1), 'ok', 'it is valid again');
  lab.exit();
});

test('a late group behind another IOMMU gets a domain of its own with every mapping, or is refused for its aperture', () => {
  const lab = ContainerLab.ready();
  assert.equal(lab.map(0x1000n, 4), 'ok');
  assert.equal(lab.map(2n ** 40n, 1), 'ok');
  const narrow = new ContainerLab({
    machine: {
      ops: pcIommu(0, 'intel', () => ({
        version: '1:0',
        capabilities: 0xd2_008c_2226_0206n,
        extended: 0xf0_0f4an,
      })),
    },
  });
  const group = narrow.iommu(0).requireGroup();
  assert.equal(
    lab.try(() => {
      lab.type1.attachGroup(group);
    }),
    'EINVAL',
  );
  assert.match(lab.reason, /translates 0x0-0x7fffffffff.*0x10000000000/);
  assert.equal(lab.unmap(2n ** 40n, PAGE), PAGE);
  lab.type1.attachGroup(group);
  assert.equal(lab.type1.domains.length, 2);
  const [newest] = lab.type1.pagingDomains;
  assert.deepEqual(
    [...(newest?.table.spans() ?? [])].map(({ firstPage, lastPage }) => [firstPage, lastPage]),
    [[1, 4]],
  );
  assert.equal(lab.type1.checkExtension(uapi.VFIO_DMA_CC_IOMMU), 0, 'one cannot snoop');
  assert.equal(lab.map(0x9000n, 1), 'ok');
  assert.equal([...(newest?.table.spans() ?? [])].length, 2);
  assert.equal(lab.map(2n ** 40n, 1), 'EINVAL');
  lab.type1.detachGroup(group);
  assert.equal(lab.map(2n ** 40n, 1), 'ok', 'the aperture is that of the others again');
  lab.exit();
});

test('GET_INFO: page sizes, and a chain of three capabilities where there is room', () => {
  const lab = ContainerLab.ready();
  assert.equal(lab.map(0n, 1), 'ok');
  const small = lab.file.ioctl('VFIO_IOMMU_GET_INFO');
  const needed = 24 + 32 + 16 + 16 + 2 * 16;
  assert.deepEqual(
    [small.argsz, small.flags, small.iova_pgsizes, small.cap_offset],
    [needed, 3, 0x4020_1000n, 0],
  );
  const address = lab.client.allocate(1);
  const size = new Uint8Array(new Uint32Array([needed]).buffer);
  lab.client.write(address, size);
  assert.equal(lab.client.ioctl(lab.file.fd, uapi.VFIO_IOMMU_GET_INFO, address), 0);
  const bytes = lab.client.read(address, needed);
  const info = uapi.vfio_iommu_type1_info.decode(bytes);
  assert.deepEqual([info.argsz, info.cap_offset], [needed, 24]);
  const headers = [24, 56, 72].map((at) => uapi.vfio_info_cap_header.decode(bytes, at));
  assert.deepEqual(headers, [
    { id: 2, version: 1, next: 56 },
    { id: 3, version: 1, next: 72 },
    { id: 1, version: 1, next: 0 },
  ]);
  assert.equal(uapi.vfio_iommu_type1_info_dma_avail.decode(bytes, 56).avail, 65_534);
  lab.exit();
});

test('a process that exits is not charged any more; its pages stay until the container goes', () => {
  const lab = ContainerLab.ready();
  const child = lab.client.fork(7);
  const vaddr = child.allocate(2);
  const own = new ClientFile(child, lab.file.fd);
  own.ioctl('VFIO_IOMMU_MAP_DMA', { flags: 3, vaddr, iova: 0n, size: 2n * PAGE });
  child.exit();
  assert.deepEqual(lab.shown(0), [[0n, 0x1fffn]]);
  assert.equal(lab.unmap(0n, 2n * PAGE), 2n * PAGE);
  lab.exit();
});

test('before SET_IOMMU everything but the version and extensions is EINVAL; unknown calls are ENOTTY after it', () => {
  const lab = new ContainerLab();
  const call = (command: number): string =>
    lab.try(() => lab.client.ioctl(lab.file.fd, command, 0n));
  assert.equal(call(uapi.VFIO_IOMMU_GET_INFO), 'EINVAL');
  assert.equal(call(0x1234), 'EINVAL');
  lab.join(0);
  lab.setIommu();
  assert.equal(call(uapi.VFIO_IOMMU_GET_INFO), 'EFAULT');
  assert.equal(call(0x1234), 'ENOTTY');
  lab.exit();
});

test('memory of one backing at two addresses is one memory for a device', () => {
  const lab = ContainerLab.ready();
  const backing = new SparseBacking('shared');
  const memory = new BufferMemory();
  memory.map(0x10_0000n, { backing, page: 0, count: 1 });
  memory.map(0x20_0000n, { backing, page: 0, count: 1 });
  const twin = new InProcessClient({ pid: 9 }, memory);
  const fd = twin.install(lab.container);
  for (const [iova, vaddr] of [
    [0x1000n, 0x10_0000n],
    [0x2000n, 0x20_0000n],
  ] as const) {
    new ClientFile(twin, fd).ioctl('VFIO_IOMMU_MAP_DMA', { flags: 3, vaddr, iova, size: PAGE });
  }
  const [domain] = lab.type1.pagingDomains;
  assert.equal(domain?.table.translate(1, 0), domain?.table.translate(2, 0));
  lab.exit();
});
