/**
 * Test operations on dma-bufs: memory of the mock driver, shared by file descriptor, withdrawn and allowed again.
 *
 * Linux 7.3.4 installs the descriptor but answers 0, while its own selftests take the answer for the descriptor; here the
 * answer is the descriptor (docs/divergence.md).
 * After the dma-buf part of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import { PAGE_BYTES } from '../../base/position.ts';
import { DmaBuf } from '../../pinning/dma-buf.ts';
import { mockOf } from './test-device.ts';
import type { TestCmd } from './test-cmd.ts';

const MAX_PAGES = 512;
const O_CLOEXEC = 0o2000000;

export function dmabufGet({ context, task, cmd }: TestCmd): number {
  const { length, open_flags: flags } = cmd.u.read('dmabuf_get');
  const size = Math.ceil(length / PAGE_BYTES) * PAGE_BYTES;
  if (size === 0 || size > MAX_PAGES * PAGE_BYTES) {
    throw new Errno(
      'EINVAL',
      `${length} bytes; a dma-buf of the mock driver has 1 to ${MAX_PAGES} pages`,
    );
  }
  context.environment.faults.alloc('dma-buf');
  const memory = mockOf(context).alloc('dma-buf of the mock driver', size);
  const file = new DmaBuf(memory, { size, flags }, () => memory.free?.());
  return task.install(file, { cloexec: (flags & O_CLOEXEC) !== 0 });
}

export function dmabufRevoke({ task, cmd }: TestCmd): undefined {
  const { dmabuf_fd: fd, revoked } = cmd.u.read('dmabuf_revoke');
  const file = task.file(fd);
  // Also for a file that is not a dma-buf at all: dma_buf_get says EINVAL there.
  if (!(file instanceof DmaBuf))
    throw new Errno('EINVAL', `file descriptor ${fd} is not a dma-buf`);
  file.setRevoked(revoked !== 0);
}
