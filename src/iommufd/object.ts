/**
 * Objects of a context and the table of their ids.
 *
 * An id is reserved when an object begins to be made and published when nothing can fail any more; until then no lookup
 * finds it. `users` counts who depends on the object: 1 for the table, 1 for each object or file that holds on to it. Only
 * an object that nobody but the table holds can be destroyed, and destroying cannot fail.
 *
 * Invariant: `users` - 1 equals the number of edges that point at the object (docs/objects.md lists them).
 * Words: tombstone, an id that stays taken because a client may still name an object that the kernel had to remove.
 * After drivers/iommu/iommufd/main.c. A call is one atomic step, so the kernel's wait_cnt, references of running ioctls,
 * has no counterpart; a vDEVICE's hold on its device, which the kernel counts there, is dissolved by the device.
 */
import { Errno } from '../base/errno.ts';
import type { Faults } from '../base/faults.ts';

export type ObjectType =
  | 'IOAS'
  | 'HWPT_PAGING'
  | 'HWPT_NESTED'
  | 'DEVICE'
  | 'ACCESS'
  | 'FAULT'
  | 'VIOMMU'
  | 'VDEVICE'
  | 'VEVENTQ'
  | 'HW_QUEUE'
  | 'SELFTEST';

export abstract class IommufdObject {
  abstract readonly type: ObjectType;
  /** 0 until the table reserved one */
  id = 0;
  users = 1;

  /** Lets go of everything the object holds. Also called for one that was only half made. Cannot fail. */
  abstract destroy(): void;

  /** "IOAS 3", for reasons. */
  toString(): string {
    return `${this.type} ${this.id}`;
  }
}

/** Instances may be abstract: HwPagetable stands for both its kinds. */
export type ObjectClass<T extends IommufdObject> = abstract new (...args: never[]) => T;

// xa_limit_31b
const MAX_ID = 2 ** 31 - 1;
const TOMBSTONE = null;

export class ObjectTable {
  /** undefined: reserved; null: tombstone */
  readonly #objects = new Map<number, IommufdObject | undefined | null>();
  // No id below this one is free.
  #lowestFree = 1;
  readonly #faults: Faults;
  readonly #onRemove: (object: IommufdObject) => void;

  /** @param onRemove told of each object that leaves the table, before it is destroyed */
  constructor(faults: Faults, onRemove: (object: IommufdObject) => void) {
    this.#faults = faults;
    this.#onRemove = onRemove;
  }

  /** Ids that are taken in any way, tombstones included (xa_empty decides RLIMIT_MODE). */
  get isEmpty(): boolean {
    return this.#objects.size === 0;
  }

  /**
   * Makes an object: reserves an id, lets `build` do all that can fail, publishes. If it fails the object is destroyed
   * and the id free again.
   */
  create<T extends IommufdObject>(object: T, build: (object: T) => void): T {
    try {
      this.reserve(object);
    } catch (error) {
      object.destroy();
      throw error;
    }
    try {
      build(object);
    } catch (error) {
      this.abort(object);
      throw error;
    }
    this.publish(object);
    return object;
  }

  /** Gives the object the lowest free id. It must be published or aborted. */
  reserve(object: IommufdObject): void {
    this.#faults.alloc(`${object.type} object`);
    this.#faults.alloc('object id');
    let id = this.#lowestFree;
    while (this.#objects.has(id)) id++;
    if (id > MAX_ID) throw new Errno('EBUSY', 'no object id is left');
    this.#lowestFree = id + 1;
    this.#objects.set(id, undefined);
    object.id = id;
  }

  publish(object: IommufdObject): void {
    this.#objects.set(object.id, object);
  }

  /** Undoes {@link reserve}: destroys what was made so far and frees the id. */
  abort(object: IommufdObject): void {
    object.destroy();
    this.#free(object.id);
  }

  /** The object with this id; ENOENT if there is none or it is of another type. */
  get<T extends IommufdObject>(type: ObjectClass<T>, id: number): T {
    this.#faults.point('ENOENT', 'object lookup');
    const object = this.#objects.get(id);
    if (object instanceof type) return object;
    throw this.#missing(id, object, type.name);
  }

  /** The object with this id, whatever it is; ENOENT. */
  any(id: number): IommufdObject {
    this.#faults.point('ENOENT', 'object lookup');
    const object = this.#objects.get(id);
    if (object === undefined || object === null) throw this.#missing(id, object, 'object');
    return object;
  }

  /** IOMMU_DESTROY: ENOENT, EBUSY while somebody holds the object. After iommufd_object_remove. */
  destroy(id: number): void {
    const object = this.#objects.get(id);
    if (object === undefined || object === null) throw this.#missing(id, object, 'object');
    if (object.users !== 1) {
      throw new Errno('EBUSY', `${String(object)} is held by ${object.users - 1} other(s)`);
    }
    this.#take(object);
  }

  /** Destroys an object that its maker holds, giving up that hold (iommufd_object_destroy_user). */
  destroyHeld(object: IommufdObject, options: { readonly tombstone?: boolean } = {}): void {
    object.users--;
    if (object.users !== 1) {
      throw new Error(
        `${String(object)} still has ${object.users - 1} user(s) when its maker destroys it`,
      );
    }
    this.#take(object);
    if (options.tombstone) {
      this.#objects.set(object.id, TOMBSTONE);
    }
  }

  /** Gives up a hold and destroys the object if it was the last one (iommufd_object_put_and_try_destroy). */
  putAndTryDestroy(object: IommufdObject): void {
    object.users--;
    if (object.users === 1) this.#take(object);
  }

  /**
   * Destroys everything, those first that nobody holds, round after round in the order of ids. Returns what is left,
   * which only a bug or an object whose maker lives on can cause. After iommufd_fops_release.
   */
  destroyAll(): IommufdObject[] {
    for (;;) {
      let destroyed = 0;
      for (const object of this.live()) {
        // Destroying one may have destroyed others of this round.
        if (object.users !== 1 || this.#objects.get(object.id) !== object) continue;
        this.#take(object);
        destroyed++;
      }
      if (destroyed === 0) return this.live();
    }
  }

  /** Published objects in the order of their ids. */
  live(): IommufdObject[] {
    return [...this.#objects.values()]
      .filter((object) => object !== undefined && object !== null)
      .sort((a, b) => a.id - b.id);
  }

  #take(object: IommufdObject): void {
    this.#onRemove(object);
    this.#free(object.id);
    object.destroy();
  }

  #free(id: number): void {
    this.#objects.delete(id);
    if (id < this.#lowestFree) this.#lowestFree = id;
  }

  #missing(id: number, found: IommufdObject | undefined | null, wanted: string): Errno {
    if (found === null)
      return new Errno('ENOENT', `object ${id} was removed together with its device`);
    if (found === undefined) return new Errno('ENOENT', `there is no object with id ${id}`);
    return new Errno('ENOENT', `object ${id} is ${String(found)}, not a ${wanted}`);
  }
}
