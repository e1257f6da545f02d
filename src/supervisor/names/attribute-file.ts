/**
 * An open attribute whose reads and writes the engine answers itself, one by one: because it is open for writing, or because
 * reading it fails. What is open for reading alone is a file of the mirror.
 *
 * After fs/kernfs/file.c.
 */
import { Errno } from '../../base/errno.ts';
import type { OpenFile } from '../../base/task.ts';
import type { Kernel } from '../../kernel/kernel.ts';
import {
  readAttribute,
  writeAttribute,
  writeLength,
  type Attribute,
} from '../../kernel/vfs/tree.ts';
import { O_ACCMODE, O_RDONLY, O_WRONLY } from '../../os/numbers.ts';

/** @param flags that it was opened with */
export function attributeFile(kernel: Kernel, path: string, flags: number): OpenFile {
  const access = flags & O_ACCMODE;
  const attribute = (): Attribute => {
    const entry = kernel.at(path);
    if (typeof entry === 'object' && entry.kind === 'attribute') return entry;
    throw new Errno('ENODEV', `${path} has gone since it was opened`);
  };
  return {
    name: path,
    positioned: true,
    advances: true,
    read: (_task, buffer, offset) => {
      if (access === O_WRONLY) throw new Errno('EBADF', `${path} is open for writing only`);
      const bytes = readAttribute(attribute(), offset, buffer.length);
      buffer.put(0, bytes);
      return bytes.length;
    },
    write: (task, buffer, offset) => {
      if (access === O_RDONLY) throw new Errno('EBADF', `${path} is open for reading only`);
      const target = attribute();
      const length = writeLength(target, buffer.length);
      const bytes = buffer.take(0, length);
      return task.answerLater(`${path} waits until the device is let go`, (answer) => {
        writeAttribute(target, { bytes, offset }, (error) => {
          answer(error ?? length);
        });
      });
    },
    readable: () => true,
    release: () => undefined,
  };
}
