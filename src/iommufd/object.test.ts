/** The table of objects: ids, users, and the way back. After main.c of drivers/iommu/iommufd. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Errno } from '../base/errno.ts';
import { Faults } from '../base/faults.ts';
import { IommufdObject, ObjectTable } from './object.ts';

class Thing extends IommufdObject {
  override readonly type = 'IOAS';
  destroyed = false;

  override destroy(): void {
    this.destroyed = true;
  }
}

class Other extends Thing {}

function table(): { objects: ObjectTable; removed: IommufdObject[]; faults: Faults } {
  const removed: IommufdObject[] = [];
  const faults = new Faults();
  return { removed, faults, objects: new ObjectTable(faults, (object) => removed.push(object)) };
}

const nothing = (): void => undefined;

test('ids are the lowest that are free', () => {
  const { objects } = table();
  const [a, b, c] = [new Thing(), new Thing(), new Thing()].map((each) =>
    objects.create(each, nothing),
  );
  assert.deepEqual([a?.id, b?.id, c?.id], [1, 2, 3]);
  objects.destroy(2);
  assert.equal(objects.create(new Thing(), nothing).id, 2);
  assert.equal(objects.create(new Thing(), nothing).id, 4);
});

test('an object that is being made is not found, and one whose making fails leaves no trace', () => {
  const { objects } = table();
  const half = new Thing();
  assert.throws(
    () =>
      objects.create(half, ({ id }) => {
        assert.throws(() => objects.any(id), { code: 'ENOENT' });
        assert.throws(
          () => {
            objects.destroy(id);
          },
          { code: 'ENOENT' },
        );
        assert.equal(objects.isEmpty, false);
        throw new Errno('ENOSPC', 'planted');
      }),
    { code: 'ENOSPC' },
  );
  assert.equal(half.destroyed, true);
  assert.equal(objects.isEmpty, true);
  assert.equal(objects.create(new Thing(), nothing).id, 1);
});

test('an object for which there is no memory is destroyed, unreserved', () => {
  const { objects, faults } = table();
  const made = new Thing();
  faults.arm(1);
  assert.throws(() => objects.create(made, nothing), { code: 'ENOMEM' });
  assert.equal(made.destroyed, true);
  assert.equal(objects.isEmpty, true);
});

test('an id of another type is not found', () => {
  const { objects } = table();
  const { id } = objects.create(new Thing(), nothing);
  assert.throws(() => objects.get(Other, id), { code: 'ENOENT', message: /not a Other/ });
  assert.throws(() => objects.get(Thing, 7), { code: 'ENOENT' });
  assert.equal(objects.get(Thing, id).id, id);
});

test('what somebody holds is busy', () => {
  const { objects, removed } = table();
  const made = objects.create(new Thing(), nothing);
  made.users++;
  assert.throws(
    () => {
      objects.destroy(made.id);
    },
    { code: 'EBUSY' },
  );
  made.users--;
  objects.destroy(made.id);
  assert.deepEqual(removed, [made]);
  assert.throws(
    () => {
      objects.destroy(made.id);
    },
    { code: 'ENOENT' },
  );
});

test('a maker destroys what it holds; a tombstone keeps the id for good', () => {
  const { objects } = table();
  const made = objects.create(new Thing(), nothing);
  made.users += 2;
  assert.throws(() => {
    objects.destroyHeld(made);
  }, /still has 1 user/);
  objects.destroyHeld(made, { tombstone: true });
  assert.equal(made.destroyed, true);
  assert.throws(() => objects.any(made.id), {
    code: 'ENOENT',
    message: /together with its device/,
  });
  assert.throws(
    () => {
      objects.destroy(made.id);
    },
    { code: 'ENOENT' },
  );
  assert.equal(objects.isEmpty, false);
  assert.equal(objects.create(new Thing(), nothing).id, 2);
});

test('a hold that is given up destroys only what nobody else holds', () => {
  const { objects } = table();
  const made = objects.create(new Thing(), nothing);
  made.users += 2;
  objects.putAndTryDestroy(made);
  assert.equal(made.destroyed, false);
  objects.putAndTryDestroy(made);
  assert.equal(made.destroyed, true);
});

test('at the end leaves go first, and what is held for ever is named', () => {
  const { objects, removed } = table();
  const leaf = new Thing();
  const root = objects.create(new Thing(), nothing);
  root.users++;
  objects.create(leaf, nothing);
  leaf.destroy = () => {
    root.users--;
  };
  const stuck = objects.create(new Thing(), nothing);
  stuck.users++;
  assert.deepEqual(objects.destroyAll(), [stuck]);
  assert.deepEqual(removed, [leaf, root]);
});
