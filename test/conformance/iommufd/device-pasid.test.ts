/**
 * Fixture iommufd_device_pasid of tools/testing/selftests/iommu/iommufd.c, in process.
 * Errors: iommufd_hwpt_pasid_compat and iommufd_device_change_pt of device.c, iommu_attach_device_pasid of iommu.c.
 */
import assert from 'node:assert/strict';
import { engineTest, refuses, type Lab, type Session } from '../../../src/testing/lab.ts';
import * as mock from '../../../src/uapi/iommufd-test.ts';
import * as uapi from '../../../src/uapi/iommufd.ts';

const PASID_FLAG = { flags: uapi.IOMMU_HWPT_ALLOC_PASID };

class Pasids {
  readonly #s: Session;
  readonly #stdev: number;

  constructor(s: Session, stdev: number) {
    this.#s = s;
    this.#stdev = stdev;
  }

  attach(pasid: number, ptId: number): void {
    const given = { pasid_attach: { pasid, pt_id: ptId } };
    this.#s.test(mock.IOMMU_TEST_OP_PASID_ATTACH, this.#stdev, given);
  }

  replace(pasid: number, ptId: number): void {
    const given = { pasid_replace: { pasid, pt_id: ptId } };
    this.#s.test(mock.IOMMU_TEST_OP_PASID_REPLACE, this.#stdev, given);
  }

  detach(pasid: number): void {
    this.#s.test(mock.IOMMU_TEST_OP_PASID_DETACH, this.#stdev, { pasid_detach: { pasid } });
  }

  /** @param hwptId 0 for nothing */
  check(pasid: number, hwptId: number): void {
    const given = { pasid_check: { pasid, hwpt_id: hwptId } };
    this.#s.test(mock.IOMMU_TEST_OP_PASID_CHECK_HWPT, this.#stdev, given);
  }
}

function pasidTest(
  name: string,
  body: (parts: {
    s: Session;
    lab: Lab;
    ioas: number;
    stdev: number;
    device: number;
    p: Pasids;
  }) => void,
): void {
  engineTest(`iommufd_device_pasid.pasid_attach: ${name}`, (s, lab) => {
    const ioas = s.ioas();
    const { stdev, device } = s.mockDomain(ioas, mock.MOCK_FLAGS_DEVICE_PASID);
    body({ s, lab, ioas, stdev, device, p: new Pasids(s, stdev) });
  });
}

pasidTest('what fits what', ({ s, ioas, stdev, device, p }) => {
  p.detach(100);
  const parent = s.hwpt(device, ioas, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const nested = s.hwpt(device, parent, { ...s.data({}), ...PASID_FLAG });
  const s2 = s.hwpt(device, ioas, PASID_FLAG);
  s.replace(stdev, parent);
  refuses('EINVAL', () => {
    p.attach(100, s2);
  });
  s.replace(stdev, s2);
  p.attach(100, nested);
  refuses('EINVAL', () => s.replace(stdev, parent));
  p.detach(100);
  p.check(100, 0);
  for (const pt of [parent, ioas]) {
    refuses('EINVAL', () => {
      p.attach(100, pt);
    });
    p.check(100, 0);
  }
  refuses('ENOENT', () => {
    p.attach(100, 999);
  });
  refuses('EINVAL', () => {
    p.attach(100, device);
  });
  p.attach(100, s2);
  p.check(100, s2);
  refuses('EINVAL', () => {
    p.check(100, 0);
  });
  refuses('EINVAL', () => {
    p.check(100, nested);
  });
  refuses('ENOENT', () => {
    p.check(100, 999);
  });
  refuses('EINVAL', () => {
    p.check(100, ioas);
  });
  for (const pt of [nested, s2]) {
    refuses('EBUSY', () => {
      p.attach(100, pt);
    });
  }
  refuses('EBUSY', () => {
    s.destroy(s2);
  });
});

// mock_dev_create gives such a device the property "pasid-num-bits" with 0: one PASID, number 0, which is the RID.
pasidTest('a device without PASIDs', ({ s, ioas }) => {
  const plain = s.mockDomain(ioas);
  const p = new Pasids(s, plain.stdev);
  const fit = s.hwpt(plain.device, ioas, PASID_FLAG);
  refuses('EINVAL', () => {
    p.attach(100, fit);
  });
  s.replace(plain.stdev, fit);
  for (const pasid of [1, 100, 2 ** mock.MOCK_PASID_WIDTH]) {
    refuses('EINVAL', () => {
      p.attach(pasid, fit);
    });
  }
  s.replace(plain.stdev, ioas);
});

pasidTest('a PASID that is out of range', ({ s, ioas, stdev, device, p }) => {
  const s2 = s.hwpt(device, ioas, PASID_FLAG);
  s.replace(stdev, s2);
  refuses('EINVAL', () => {
    p.attach(2 ** mock.MOCK_PASID_WIDTH, s2);
  });
  p.attach(2 ** mock.MOCK_PASID_WIDTH - 1, s2);
});

pasidTest('replace', ({ s, ioas, stdev, device, p }) => {
  const parent = s.hwpt(device, ioas, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const [one, two] = [
    s.hwpt(device, parent, { ...s.data({}), ...PASID_FLAG }),
    s.hwpt(device, parent, { ...s.data({}), ...PASID_FLAG }),
  ];
  const s2 = s.hwpt(device, ioas, PASID_FLAG);
  s.replace(stdev, s2);
  refuses('EINVAL', () => {
    p.replace(200, s2);
  });
  p.attach(200, s2);
  refuses('EINVAL', () => {
    p.replace(200, ioas);
  });
  p.check(200, s2);
  for (const hwpt of [one, two, two]) {
    p.replace(200, hwpt);
    p.check(200, hwpt);
  }
  s.destroy(one);
  refuses('EBUSY', () => {
    s.destroy(two);
  });
});

pasidTest(
  'PASID 1024 fails every second time, and then nothing has changed',
  ({ s, ioas, stdev, device, p }) => {
    const pasid = mock.IOMMU_TEST_PASID_RESERVED;
    const [one, two] = [s.hwpt(device, ioas, PASID_FLAG), s.hwpt(device, ioas, PASID_FLAG)];
    s.replace(stdev, one);
    p.attach(pasid, one);
    refuses('ENOMEM', () => {
      p.replace(pasid, two);
    });
    p.check(pasid, one);
    s.destroy(two);
    p.detach(pasid);
    p.check(pasid, 0);
    p.attach(pasid, one);
  },
);

pasidTest('faults find the queue of their PASID', ({ s, ioas, stdev, device, p }) => {
  const { id, file } = s.faultQueue();
  const parent = s.hwpt(device, ioas, { flags: uapi.IOMMU_HWPT_ALLOC_NEST_PARENT });
  const flags = uapi.IOMMU_HWPT_FAULT_ID_VALID | uapi.IOMMU_HWPT_ALLOC_PASID;
  const hwpt = s.hwpt(device, parent, { ...s.data({}), flags, fault_id: id });
  s.replace(stdev, s.hwpt(device, ioas, PASID_FLAG));
  p.attach(300, hwpt);
  const trigger = (pasid: number): void => {
    const fault = { dev_id: device, pasid, grpid: 1, perm: 1, addr: 0n };
    s.test(mock.IOMMU_TEST_OP_TRIGGER_IOPF, 0, { trigger_iopf: fault });
  };
  trigger(0);
  trigger(301);
  assert.equal(file.readable, false);
  trigger(300);
  const { flags: told, pasid } = uapi.iommu_hwpt_pgfault.decode(file.read(4000));
  assert.equal(pasid, 300);
  assert.equal(told, uapi.IOMMU_PGFAULT_FLAGS_PASID_VALID | uapi.IOMMU_PGFAULT_FLAGS_LAST_PAGE);
  refuses('ENOENT', () => {
    s.test(mock.IOMMU_TEST_OP_TRIGGER_IOPF, 0, { trigger_iopf: { dev_id: 99 } });
  });
  p.detach(300);
});

engineTest('IOMMU_TEST_OP_MOCK_DOMAIN: refusals', (s) => {
  const ioas = s.ioas();
  refuses('ENOENT', () => s.mockDomain(99));
  refuses('EINVAL', () => s.mockDomain(ioas, 2));
  const { stdev, device } = s.mockDomain(ioas);
  refuses('EINVAL', () => s.mockDomain(device));
  refuses('ENOENT', () => s.replace(99, ioas));
  refuses('ENOENT', () => s.replace(stdev, 99));
  refuses('EINVAL', () => s.replace(stdev, device));
  // Replacing by what is there changes nothing.
  const hwpt = s.hwpt(device, ioas);
  s.replace(stdev, hwpt);
  assert.equal(s.replace(stdev, hwpt), hwpt);
});
