/** The ioctls of VFIO's files that decide ownership: sizes, flags, files of the wrong kind, and the order in which Linux looks. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../../../src/base/errno.ts';
import { ClientFile, InProcessClient } from '../../../src/client/in-process.ts';
import { OwnershipLab } from '../../../src/testing/ownership-lab.ts';
import * as uapi from '../../../src/uapi/vfio.ts';
import { ContainerFile } from '../../../src/vfio/container-file.ts';

type Files = {
  readonly lab: OwnershipLab;
  readonly client: InProcessClient;
  readonly node: number;
  readonly iommufd: number;
  readonly ioas: number;
};

/** A program with the node of A and a /dev/iommu open. */
function program(): Files {
  const lab = new OwnershipLab();
  lab.bind('A', 'vfio-pci');
  const client = new InProcessClient();
  const node = client.install(lab.openNode('A'));
  const iommufd = client.install(lab.iommufd.open(client));
  const ioas = new ClientFile(client, iommufd).ioctl('IOMMU_IOAS_ALLOC').out_ioas_id;
  return { lab, client, node, iommufd, ioas };
}

const BIND = { number: uapi.VFIO_DEVICE_BIND_IOMMUFD, struct: uapi.vfio_device_bind_iommufd };
const ATTACH = {
  number: uapi.VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  struct: uapi.vfio_device_attach_iommufd_pt,
};
const DETACH = {
  number: uapi.VFIO_DEVICE_DETACH_IOMMUFD_PT,
  struct: uapi.vfio_device_detach_iommufd_pt,
};
const INFO = { number: uapi.VFIO_DEVICE_GET_INFO, struct: uapi.vfio_device_info };
const STATUS = { number: uapi.VFIO_GROUP_GET_STATUS, struct: uapi.vfio_group_status };

function answer(action: () => unknown): string {
  try {
    action();
    return 'ok';
  } catch (error) {
    assert.ok(error instanceof Errno, String(error));
    return error.code;
  }
}

test('BIND_IOMMUFD: argsz, tail, descriptor and flags are judged in this order', () => {
  const { client, node, iommufd } = program();
  const bind = (given: object): string => answer(() => client.call(node, BIND, given));
  assert.equal(bind({ argsz: 15, iommufd }), 'EINVAL');
  assert.equal(bind({ iommufd: -1, flags: 2 }), 'EINVAL');
  assert.equal(bind({ iommufd, flags: 2 }), 'EINVAL');
  assert.equal(bind({ iommufd, flags: 1 }), 'EFAULT', 'the token is read before it is judged');
  const token = client.allocate(1);
  assert.equal(bind({ iommufd, flags: 1, token_uuid_ptr: token }), 'EINVAL', 'no SR-IOV, no token');
  assert.equal(bind({ iommufd: 77 }), 'EBADF');
  assert.equal(bind({ iommufd: node }), 'EBADFD');
  assert.equal(bind({ argsz: 16, iommufd }), 'ok', 'the struct of the first release');
});

test('BIND_IOMMUFD: a longer struct is fine while its tail is zero, E2BIG otherwise', () => {
  const { client, node, iommufd } = program();
  const address = client.allocate(1);
  const bytes = new Uint8Array(40);
  uapi.vfio_device_bind_iommufd.encode(
    uapi.vfio_device_bind_iommufd.make({ argsz: 40, iommufd }),
    bytes,
  );
  bytes[39] = 1;
  client.write(address, bytes);
  assert.equal(
    answer(() => client.ioctl(node, BIND.number, address)),
    'E2BIG',
  );
  bytes[39] = 0;
  client.write(address, bytes);
  assert.equal(
    answer(() => client.ioctl(node, BIND.number, address)),
    'ok',
  );
});

test('BIND_IOMMUFD into memory that cannot be written is EFAULT and leaves nothing bound', () => {
  const { lab, client, node, iommufd } = program();
  const address = client.allocate(1);
  const bytes = new Uint8Array(24);
  uapi.vfio_device_bind_iommufd.encode(uapi.vfio_device_bind_iommufd.make({ iommufd }), bytes);
  client.write(address, bytes);
  const readOnly = client.allocate(1, { readOnly: true });
  assert.equal(
    answer(() => client.ioctl(node, BIND.number, readOnly)),
    'EINVAL',
    'argsz is 0',
  );
  assert.equal(lab.group.owner, undefined);
  assert.equal(
    answer(() => client.ioctl(node, BIND.number, 0n)),
    'EFAULT',
  );
  assert.equal(
    answer(() => client.ioctl(node, BIND.number, address)),
    'ok',
  );
});

test('before BIND every call is EINVAL, after it unknown ones are ENOTTY', () => {
  const { client, node, iommufd, ioas } = program();
  assert.equal(
    answer(() => client.call(node, ATTACH, { pt_id: ioas })),
    'EINVAL',
  );
  assert.equal(
    answer(() => client.call(node, INFO, {})),
    'EINVAL',
  );
  assert.equal(
    answer(() => client.ioctl(node, 0x1234, 0n)),
    'EINVAL',
  );
  client.call(node, BIND, { iommufd });
  assert.equal(
    answer(() => client.ioctl(node, 0x1234, 0n)),
    'ENOTTY',
  );
  assert.equal(
    answer(() => client.call(node, BIND, { iommufd })),
    'EINVAL',
  );
  assert.equal(client.call(node, INFO, {}).flags & uapi.VFIO_DEVICE_FLAGS_PCI, 2);
});

test('ATTACH: sizes and flags, a missing ID is ENOENT, a device is EINVAL, and the HWPT comes back', () => {
  const { lab, client, node, iommufd, ioas } = program();
  const { out_devid: device } = client.call(node, BIND, { iommufd });
  const attach = (given: object): string => answer(() => client.call(node, ATTACH, given));
  assert.equal(attach({ argsz: 11, pt_id: ioas }), 'EINVAL');
  assert.equal(attach({ flags: 2, pt_id: ioas }), 'EINVAL');
  assert.equal(attach({ argsz: 12, flags: uapi.VFIO_DEVICE_ATTACH_PASID, pt_id: ioas }), 'EINVAL');
  assert.equal(attach({ pt_id: 99 }), 'ENOENT');
  assert.equal(attach({ pt_id: device }), 'EINVAL');
  const { pt_id: hwpt } = client.call(node, ATTACH, { pt_id: ioas });
  assert.notEqual(hwpt, ioas);
  assert.equal(lab.iommu('A').attached?.kind, 'unmanaged');
  assert.equal(
    client.call(node, ATTACH, { pt_id: hwpt }).pt_id,
    hwpt,
    'attaching twice is a no-op',
  );
});

test('DETACH: sizes and flags; nothing attached is fine', () => {
  const { lab, client, node, iommufd, ioas } = program();
  client.call(node, BIND, { iommufd });
  const detach = (given: object): string => answer(() => client.call(node, DETACH, given));
  assert.equal(detach({ argsz: 7 }), 'EINVAL');
  assert.equal(detach({ flags: 2 }), 'EINVAL');
  assert.equal(detach({}), 'ok');
  client.call(node, ATTACH, { pt_id: ioas });
  assert.equal(detach({}), 'ok');
  assert.equal(lab.iommu('A').attached, lab.group.blockingDomain);
});

test('group file: status, container, device, and what it does not know', () => {
  const { lab, client, iommufd, node } = program();
  const group = client.install(lab.openGroup('A'));
  const container = client.install(new ContainerFile());
  const address = client.allocate(1);
  const withNumber = (command: number, value: number): string => {
    client.write(address, new Uint8Array(new Int32Array([value]).buffer));
    return answer(() => client.ioctl(group, command, address));
  };
  assert.equal(
    answer(() => client.call(group, STATUS, { argsz: 7 })),
    'EINVAL',
  );
  assert.equal(client.call(group, STATUS, {}).flags, uapi.VFIO_GROUP_FLAGS_VIABLE);
  assert.equal(withNumber(uapi.VFIO_GROUP_SET_CONTAINER, 77), 'EBADF');
  assert.equal(withNumber(uapi.VFIO_GROUP_SET_CONTAINER, node), 'EBADFD');
  assert.equal(withNumber(uapi.VFIO_GROUP_SET_CONTAINER, container), 'ok');
  assert.equal(withNumber(uapi.VFIO_GROUP_SET_CONTAINER, iommufd), 'EINVAL', 'one is set');
  assert.equal(
    answer(() => client.ioctl(container, uapi.VFIO_SET_IOMMU, 99n)),
    'ENODEV',
  );
  assert.equal(
    answer(() => client.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, 0n)),
    'EINVAL',
  );
  client.write(address, new TextEncoder().encode(`${lab.name('A')}\0`));
  const getDevice = (): number => client.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, address);
  assert.equal(answer(getDevice), 'EINVAL', 'before SET_IOMMU');
  client.ioctl(container, uapi.VFIO_SET_IOMMU, BigInt(uapi.VFIO_TYPE1v2_IOMMU));
  const device = getDevice();
  assert.equal(
    answer(() => client.call(device, ATTACH, { pt_id: 1 })),
    'ENOTTY',
  );
  assert.equal(
    answer(() => client.call(device, BIND, { iommufd })),
    'EINVAL',
  );
  assert.equal(
    answer(() => client.ioctl(group, uapi.VFIO_GROUP_UNSET_CONTAINER, 0n)),
    'EBUSY',
  );
  assert.equal(client.call(group, STATUS, {}).flags, 3);
  assert.equal(
    answer(() => client.ioctl(group, 0x1234, 0n)),
    'ENOTTY',
  );
  client.write(address, new TextEncoder().encode('0000:ff:00.0\0'));
  assert.equal(answer(getDevice), 'ENODEV');
  client.exit();
  assert.deepEqual([lab.group.owner, lab.group.ownerCount], [undefined, 0]);
});

test('a container of IOMMUFD: VIABLE may be reported although the device is refused', () => {
  const { lab, client, iommufd } = program();
  const group = lab.openGroup('A');
  const fd = client.install(group);
  const address = client.allocate(1);
  client.write(address, new Uint8Array(new Int32Array([iommufd]).buffer));
  client.ioctl(fd, uapi.VFIO_GROUP_SET_CONTAINER, address);
  lab.bind('B', 'K');
  assert.equal(client.call(fd, STATUS, {}).flags, 3);
  client.write(address, new TextEncoder().encode(`${lab.name('A')}\0`));
  assert.equal(
    answer(() => client.ioctl(fd, uapi.VFIO_GROUP_GET_DEVICE_FD, address)),
    'EPERM',
  );
});
