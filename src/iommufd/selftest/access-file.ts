/**
 * The file through which a test drives an ACCESS: each pin is an item with a number; closing the file ends the access.
 *
 * After struct selftest_access of drivers/iommu/iommufd/selftest.c.
 */
import { Errno } from '../../base/errno.ts';
import { MAX_ADDRESS } from '../../base/position.ts';
import type { OpenFile } from '../../base/task.ts';
import { Access } from '../access.ts';
import type { Context } from '../context.ts';

type Item = { readonly id: number; readonly iova: bigint; readonly length: bigint };

export class AccessFile implements OpenFile {
  readonly name = 'test access';
  readonly link = 'anon_inode:[iommufd_test_staccess]';
  readonly access: Access;
  readonly pins: boolean;
  #items: Item[] = [];
  #nextId = 0;

  constructor(context: Context, pins: boolean) {
    this.pins = pins;
    this.access = Access.create(context, {
      pins,
      onUnmap: (first, last) => {
        this.#unmap(first, last);
      },
    });
  }

  /** Notes a pin. @returns its number */
  addItem(iova: bigint, length: bigint): number {
    const id = this.#nextId++;
    this.#items.push({ id, iova, length });
    return id;
  }

  /** Forgets a pin without giving it back: what made it is undone elsewhere. */
  forgetItem(id: number): void {
    this.#items = this.#items.filter((item) => item.id !== id);
  }

  /** Gives a pin back; ENOENT. */
  dropItem(id: number): void {
    const item = this.#items.find((candidate) => candidate.id === id);
    if (item === undefined) throw new Errno('ENOENT', `this access has no pinned item ${id}`);
    this.forgetItem(id);
    this.access.unpin(item.iova, item.length);
  }

  release(): void {
    this.#unmap(0n, MAX_ADDRESS);
    this.access.close();
  }

  #unmap(first: bigint, last: bigint): void {
    for (const item of this.#items) {
      if (first > item.iova + item.length - 1n || last < item.iova) continue;
      this.dropItem(item.id);
    }
  }
}
