/** Every mutable field of VFIO's state is listed, or is a list that is rebuilt. */
import assert from 'node:assert/strict';
import test from 'node:test';
import { Known, only } from '../base/transfer.ts';
import { IommuDevice } from '../iommu/domain.ts';
import { GroupTable } from '../iommu/group.ts';
import { bareIommu } from '../iommu/hardware/bare.ts';
import { fieldsLeft } from '../testing/fields.ts';
import { VFIO_TYPE1v2_IOMMU } from '../uapi/vfio.ts';
import type { IommufdBinding, IommufdContext } from './iommufd.ts';
import {
  containerFields,
  deviceOpenFields,
  groupOpenFields,
  vfioDeviceFields,
  vfioGroupFields,
} from './state-transfer.ts';
import {
  newContainer,
  newDevice,
  newGroup,
  type DeviceOpen,
  type VfioDevice,
  type VfioGroup,
} from './state.ts';
import { Type1 } from './type1/type1.ts';
import { Vfio } from './vfio.ts';

// Rows do not look into what they name.
const CONTEXT = { name: 'X' } as IommufdContext;
const BINDING = { id: 1 } as IommufdBinding;
const TYPE1 = new Type1(VFIO_TYPE1v2_IOMMU, new Vfio().table);

function group(): VfioGroup {
  return newGroup(new Vfio().table, new GroupTable().alloc());
}

function device(): VfioDevice {
  const iommu = new IommuDevice({ name: 'a', ops: bareIommu() });
  return newDevice(0, { iommu, group: group() }, {});
}

test('a registered device: every field but what it is', () => {
  const state = device();
  const names = { whenIdle: only(() => undefined), bindings: only(BINDING), pasids: [1] };
  const left = fieldsLeft(state, (fields) => {
    vfioDeviceFields(fields, names);
  });
  assert.deepEqual(left, ['group', 'index', 'iommu', 'ops']);
});

test('a group: every field but what it is and its devices, which are rebuilt', () => {
  const state = group();
  const other = new GroupTable().alloc();
  const left = fieldsLeft(state, (fields) => {
    vfioGroupFields(fields, {
      iommuGroups: only(other),
      opens: only({ group: state, references: 1 }),
      containers: new Known([newContainer()]),
      contexts: only(CONTEXT),
    });
  });
  assert.deepEqual(left, ['devices', 'minor', 'name', 'noIommu', 'nodeName', 'table']);
});

test('an open group file: every field but its group', () => {
  const state = { group: group(), references: 1 };
  const left = fieldsLeft(state, (fields) => {
    groupOpenFields(fields);
  });
  assert.deepEqual(left, ['group']);
});

test('a container: every field but its groups, which are rebuilt', () => {
  const state = newContainer();
  const left = fieldsLeft(state, (fields) => {
    containerFields(fields, only(TYPE1));
  });
  assert.deepEqual(left, ['groups', 'parameters']);
});

test('an open device: every field but what it opens', () => {
  const state: DeviceOpen = {
    device: device(),
    group: undefined,
    accessGranted: false,
    iommufd: undefined,
  };
  const left = fieldsLeft(state, (fields) => {
    deviceOpenFields(fields, only(CONTEXT));
  });
  assert.deepEqual(left, ['device', 'group']);
});
