/**
 * The doors to ownership: every order of closing, failures at every point, profiles, and random programs, after each step of which
 * what must never be is looked for.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Errno } from '../../src/base/errno.ts';
import { bareIommu } from '../../src/iommu/hardware/bare.ts';
import type { IommuOps } from '../../src/iommu/domain.ts';
import { PROFILES, type ProfileName } from '../../src/iommu/profile.ts';
import { OwnershipLab, type LabUser, type Letter } from '../../src/testing/ownership-lab.ts';
import { VFIO_TYPE1v2_IOMMU } from '../../src/uapi/vfio.ts';
import { setIommu } from '../../src/vfio/container.ts';
import type { DeviceFile } from '../../src/vfio/device-file.ts';
import type { GroupFile } from '../../src/vfio/group-file.ts';
import { vfioView } from '../../src/vfio/iommufd.ts';
import { newContainer } from '../../src/vfio/state.ts';

function orders<T>(items: readonly T[]): T[][] {
  if (items.length === 0) return [[]];
  return items.flatMap((item, i) =>
    orders([...items.slice(0, i), ...items.slice(i + 1)]).map((rest) => [item, ...rest]),
  );
}

function isFree(lab: OwnershipLab): void {
  const { owner, ownerCount, defaultDomain } = lab.group;
  assert.deepEqual([owner, ownerCount], [undefined, 0]);
  for (const letter of ['A', 'B'] as const) {
    assert.equal(
      lab.iommu(letter).attached,
      defaultDomain,
      `${letter} is not on the default domain`,
    );
  }
}

test('device nodes and /dev/iommu are closed in every order: the group is free with the last', () => {
  for (const order of orders(['a', 'b', 'iommufd'])) {
    const lab = new OwnershipLab();
    const user = lab.user();
    lab.bind('A', 'vfio-pci');
    lab.bind('B', 'vfio-pci');
    const a = lab.take('A', user);
    const b = lab.take('B', user);
    assert.deepEqual([a.outcome, b.outcome], ['ok', 'ok']);
    lab.attach(a.file, user.ioas);
    lab.attach(b.file, user.ioas);
    const close = {
      a: () => {
        a.file.release();
      },
      b: () => {
        b.file.release();
      },
      iommufd: () => {
        user.client.exit();
      },
    };
    for (const file of order) close[file as keyof typeof close]();
    isFree(lab);
    assert.deepEqual(lab.iommufd.leaks(), [], order.join(', '));
  }
});

for (const behind of ['container', 'iommufd'] as const) {
  test(`group file, device and ${behind} are closed in every order: the group is free with the last`, () => {
    for (const order of orders(['group', 'device', 'second', 'behind'])) {
      const lab = new OwnershipLab();
      const user = lab.user();
      lab.bind('A', 'vfio-pci');
      const group = lab.openGroup('A');
      if (behind === 'container') {
        group.setContainer(user.container);
        setIommu(user.container, VFIO_TYPE1v2_IOMMU);
      } else {
        group.setIommufd(vfioView(user.file.context));
      }
      const device = group.getDevice(lab.name('A'));
      const second = group.getDevice(lab.name('A'));
      const close = {
        group: () => {
          group.release();
        },
        device: () => {
          device.release();
        },
        second: () => {
          second.release();
        },
        behind: () => {
          user.client.exit();
        },
      };
      for (const file of order) close[file as keyof typeof close]();
      isFree(lab);
      assert.equal(lab.system.vfio.deviceOf(lab.iommu('A'))?.openCount, 0, order.join(', '));
      assert.equal(lab.openGroup('A').group.iommufd, undefined);
    }
  });
}

/** An IOMMU whose n-th call fails, and the count of calls since it was armed. */
function failing(): { ops: IommuOps; arm: (n: number) => void } {
  let left = Infinity;
  return {
    ops: bareIommu({
      beforeCall: (call) => {
        if (--left === 0) throw new Errno('ENOMEM', `injected: ${call}`);
      },
    }),
    arm: (n) => {
      left = n;
    },
  };
}

/** Everything that ownership is, as plain data. */
function picture(lab: OwnershipLab): unknown {
  const { vfio, core, groups } = lab.system;
  return {
    groups: groups.list().map((group) => ({
      owner: group.owner?.name,
      count: group.ownerCount,
      references: group.references,
      units: group.subgroups.map(({ domain, members, pasidArray }) => [
        domain?.name,
        members.map(({ name, attached }) => [name, attached?.name]),
        [...pasidArray.keys()],
      ]),
    })),
    devices: core.devices.map(({ name, driver, bound, iommu }) => {
      const device = vfio.deviceOf(iommu);
      return [
        name,
        driver?.name,
        bound,
        iommu.group?.id,
        device && [device.openCount, device.users, device.cdevOpened, device.binding?.id],
        device && [device.group.containerUsers, device.group.cdevOpenCount],
      ];
    }),
    nodes: vfio.nodes(),
  };
}

type Prepared = { readonly lab: OwnershipLab; readonly run: () => void };

const PATHS: readonly (readonly [what: string, prepare: (ops: IommuOps) => Prepared])[] = [
  [
    'bind to an IOMMUFD',
    (ops) => {
      const lab = new OwnershipLab({ ops });
      lab.bind('A', 'vfio-pci');
      const user = lab.user();
      const file = lab.openNode('A');
      return { lab, run: () => void file.bind(() => vfioView(user.file.context)) };
    },
  ],
  [
    'put a group into a container',
    (ops) => {
      const lab = new OwnershipLab({ ops });
      lab.bind('A', 'vfio-pci');
      const group = lab.openGroup('A');
      const container = newContainer();
      return {
        lab,
        run: () => {
          group.setContainer(container);
        },
      };
    },
  ],
  [
    'SET_IOMMU of a container',
    (ops) => {
      const lab = new OwnershipLab({ ops });
      lab.bind('A', 'vfio-pci');
      const container = newContainer();
      lab.openGroup('A').setContainer(container);
      return {
        lab,
        run: () => {
          setIommu(container, VFIO_TYPE1v2_IOMMU);
        },
      };
    },
  ],
  [
    'plug a device into a group that is owned',
    (ops) => {
      const lab = new OwnershipLab({ ops });
      lab.bind('A', 'vfio-pci');
      assert.equal(lab.take('A', lab.user()).outcome, 'ok');
      return {
        lab,
        run: () => {
          lab.plug();
          // A failed join is not an error of the bus: the device is there, without group.
          if (lab.iommu('C').group === undefined) throw new Errno('ENOMEM', 'no group');
        },
      };
    },
  ],
];

for (const [what, prepare] of PATHS) {
  test(`${what}: whichever call of the IOMMU fails, nothing has changed`, () => {
    let swept = 0;
    for (let n = 1; ; n++) {
      const { ops, arm } = failing();
      const { lab, run } = prepare(ops);
      const before = picture(lab);
      arm(n);
      try {
        run();
      } catch (error) {
        assert.ok(error instanceof Errno, String(error));
        arm(Infinity);
        swept++;
        if (what.startsWith('plug')) lab.remove('C');
        assert.deepEqual(picture(lab), before, `after call ${n} failed`);
        continue;
      }
      assert.notDeepEqual(picture(lab), before);
      break;
    }
    assert.ok(swept > 0, 'nothing was swept');
  });
}

test('attach and replace through the engine: whichever allocation fails, nothing has changed', () => {
  for (const replace of [false, true]) {
    let swept = 0;
    for (let n = 1; ; n++) {
      const lab = new OwnershipLab();
      const user = lab.user();
      lab.bind('A', 'vfio-pci');
      const { file } = lab.take('A', user);
      const second = user.allocIoas();
      if (replace) assert.equal(lab.attach(file, user.ioas), 'ok');
      const before = picture(lab);
      lab.faults.arm(n);
      const outcome = lab.attach(file, second);
      lab.faults.arm(0);
      if (outcome === 'ok') break;
      swept++;
      assert.deepEqual(picture(lab), before, `after failure ${n}: ${lab.reason}`);
    }
    assert.ok(swept > 0, 'nothing was swept');
  }
});

test('profile singleton: no node for a device in company; binding a file that was opened before is EPERM', () => {
  const lab = new OwnershipLab({ profile: 'singleton' });
  lab.bind('A', 'vfio-pci');
  const file = lab.openNode('A');
  assert.deepEqual(
    lab.system.vfio.nodes().filter((name) => name.startsWith('devices/')),
    [],
  );
  assert.equal(lab.bindNode(file, lab.user()), 'EPERM');
  assert.match(lab.reason, /profile singleton: 0000:02:00\.0 shares group \d+ with 0000:02:00\.1/);
  lab.remove('B');
  assert.deepEqual(
    lab.system.vfio.nodes().filter((name) => name.startsWith('devices/')),
    ['devices/vfio0'],
  );
  assert.equal(lab.bindNode(file, lab.user()), 'ok');
  const nodes = lab.system.vfio.nodes();
  lab.plug();
  assert.ok(nodes.includes('devices/vfio0'));
  assert.ok(!lab.system.vfio.nodes().includes('devices/vfio0'), 'the group has grown');
});

test('profile subgroup: members that can be told apart have page tables of their own', () => {
  const lab = new OwnershipLab({ profile: 'subgroup' });
  const user = lab.user();
  lab.bind('A', 'vfio-pci');
  lab.bind('B', 'vfio-pci');
  const a = lab.take('A', user).file;
  const b = lab.take('B', user).file;
  assert.equal(lab.attach(a, user.ioas), 'ok');
  assert.equal(lab.iommu('B').attached, lab.group.blockingDomain, 'B did not attach');
  assert.equal(lab.attach(b, user.allocIoas()), 'ok');
  assert.notEqual(lab.iommu('A').attached, lab.iommu('B').attached);
  assert.equal(lab.bindNode(lab.openNode('A'), lab.user()), 'EINVAL');
  a.release();
  b.release();
  isFree(lab);
});

/** What a random program may do; numbers choose device, user and file. */
type Step = { readonly op: number; readonly letter: Letter; readonly user: number };

class Program {
  readonly lab: OwnershipLab;
  readonly users: LabUser[];
  readonly nodes: { file: DeviceFile; user: number }[] = [];
  readonly groupDevices: DeviceFile[] = [];
  group: GroupFile | undefined;

  constructor(profile: ProfileName) {
    this.lab = new OwnershipLab({ profile });
    this.users = [this.lab.user(), this.lab.user()];
  }

  step({ op, letter, user }: Step): void {
    const { lab } = this;
    const steps: (() => void)[] = [
      () => void lab.bind(letter, 'K'),
      () => void lab.bind(letter, 'vfio-pci'),
      () => void lab.bind(letter, 'pci-stub'),
      () => {
        this.#unbind(letter);
      },
      () => {
        this.#open(letter, user);
      },
      () => {
        this.#withNode(user, (file, owner) => lab.bindNode(file, owner));
      },
      () => {
        this.#withNode(user, (file, owner) => {
          file.requireAccess();
          return lab.attach(file, owner.ioas);
        });
      },
      () => {
        this.#withNode(user, (file) => {
          file.requireAccess();
          file.detach();
        });
      },
      () => this.nodes.shift()?.file.release(),
      () => {
        this.#group(letter, user);
      },
      () => this.groupDevices.shift()?.release(),
      () => {
        this.#plug(letter);
      },
    ];
    lab.try(() => {
      steps[op % steps.length]?.();
    });
  }

  #inUse(letter: Letter): boolean {
    const device = this.lab.system.core.device(this.lab.name(letter));
    const vfio = device && this.lab.system.vfio.deviceOf(device.iommu);
    return (vfio?.users ?? 1) > 1;
  }

  #unbind(letter: Letter): void {
    if (!this.#inUse(letter)) this.lab.unbind(letter);
  }

  #plug(letter: Letter): void {
    if (this.lab.system.core.device(this.lab.name(letter)) === undefined) this.lab.plug();
    else if (!this.#inUse(letter)) this.lab.remove(letter);
  }

  #open(letter: Letter, user: number): void {
    if (this.lab.driver(letter) !== 'vfio-pci') return;
    this.nodes.push({ file: this.lab.openNode(letter), user });
  }

  #withNode(index: number, action: (file: DeviceFile, user: LabUser) => unknown): void {
    const node = this.nodes[index % Math.max(1, this.nodes.length)];
    const user = node && this.users[node.user % this.users.length];
    if (node !== undefined && user !== undefined) action(node.file, user);
  }

  #group(letter: Letter, index: number): void {
    const user = this.users[index % this.users.length];
    if (user === undefined || this.lab.driver(letter) !== 'vfio-pci') return;
    if (this.group === undefined) {
      this.group = this.lab.openGroup(letter);
      return;
    }
    const file = this.group;
    const { group } = file;
    if (group.container === undefined && group.iommufd === undefined) {
      if (index % 2 === 0) file.setContainer(user.container);
      else file.setIommufd(vfioView(user.file.context));
    } else if (group.container !== undefined && group.container.iommu === undefined) {
      setIommu(group.container, VFIO_TYPE1v2_IOMMU);
    } else if (index % 3 === 0) {
      this.group = undefined;
      file.release();
    } else {
      this.groupDevices.push(file.getDevice(this.lab.name(letter)));
    }
  }

  /** What must never be, in the words of check/invariants.ts. */
  check(): void {
    const { core, vfio } = this.lab.system;
    for (const group of this.lab.system.groups.list()) {
      const members = core.devices.filter(({ iommu }) => iommu.group === group);
      const kernel = members.filter(({ iommu }) => iommu.kernelDriver !== undefined);
      const open = members.filter(({ iommu }) => (vfio.deviceOf(iommu)?.openCount ?? 0) > 0);
      assert.ok(kernel.length === 0 || (group.owner === undefined && open.length === 0), 'mixed');
      if (group.owner === undefined) {
        assert.equal(group.ownerCount, kernel.length);
        for (const { iommu } of members) assert.equal(iommu.attached, group.defaultDomain);
      } else {
        for (const { iommu } of members) assert.notEqual(iommu.attached, group.defaultDomain);
      }
      for (const subgroup of group.subgroups) {
        for (const { attached } of subgroup.members) assert.equal(attached, subgroup.domain);
      }
      const bound = members.filter(({ iommu }) => vfio.deviceOf(iommu)?.cdevOpened === true);
      const file = open.length > 0 && vfio.group(String(group.id))?.opened;
      assert.ok(bound.length === 0 || !file, 'both doors are open');
    }
  }
}

for (const profile of Object.keys(PROFILES) as ProfileName[]) {
  test(`random programs on the real doors break nothing, profile ${profile}`, () => {
    const step = fc.record({
      op: fc.nat(11),
      letter: fc.constantFrom<Letter>('A', 'B', 'C'),
      user: fc.nat(5),
    });
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 80 }), (steps) => {
        const program = new Program(profile);
        for (const each of steps) {
          program.step(each);
          program.check();
        }
      }),
      { numRuns: 60, seed: 7 },
    );
  });
}
