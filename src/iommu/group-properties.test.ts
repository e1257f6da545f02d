/**
 * Properties of group formation over random topologies: what Linux's does not depend on, ours does not either; no group
 * parts devices that share a requester ID; every merge has a reason, and undoing the named cause undoes the merge.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Machine } from '../machine/machine.ts';
import { aliasWalk } from '../machine/pci/alias.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { randomTopology, topologyText, type Entry } from '../testing/random-topology.ts';
import { GroupBuilder } from './group-builder.ts';
import { formGroups } from './group-builder.ts';
import { loadMachine } from './load-machine.ts';
import { planSplit } from '../explain/split.ts';
import { explainMerge } from './group-reasons.ts';

const RUNS = 150;
const choices = fc.array(fc.nat(59), { minLength: 5, maxLength: 120 });
const topology = choices.map(randomTopology);

function machineOf(entries: readonly Entry[]): Machine {
  return loadMachine(topologyText(entries), 'random');
}

/** Groups as sorted lists of names, sorted: no numbers, no order. */
function partition(builder: GroupBuilder, rename = (name: string): string => name): string[] {
  return builder.groups
    .map(({ members }) =>
      members
        .map(({ name }) => rename(name))
        .sort()
        .join(' '),
    )
    .sort();
}

/** A bridge before what is behind it, otherwise in the order of `keys`. */
function parentsFirst(machine: Machine, keys: readonly number[]): PciDevice[] {
  const devices = [...machine.devices];
  const key = (device: PciDevice): number => keys[devices.indexOf(device) % keys.length] ?? 0;
  const done = new Set<PciDevice>();
  const ordered: PciDevice[] = [];
  while (ordered.length < devices.length) {
    const ready = devices.filter(
      (device) => !done.has(device) && (device.bus.self === undefined || done.has(device.bus.self)),
    );
    const [next] = ready.sort((a, b) => key(a) - key(b));
    assert.ok(next);
    done.add(next);
    ordered.push(next);
  }
  return ordered;
}

test('groups: membership does not depend on the order in which devices are probed, parents first', () => {
  fc.assert(
    fc.property(topology, fc.array(fc.nat(), { minLength: 1, maxLength: 40 }), (entries, keys) => {
      const machine = machineOf(entries);
      const builder = new GroupBuilder();
      for (const device of parentsFirst(machine, keys)) builder.add(device);
      assert.deepEqual(partition(builder), partition(formGroups(machine)));
    }),
    { numRuns: RUNS },
  );
});

test('groups: neither bus numbers nor drivers, classes, BARs or revisions matter', () => {
  const shifted = (name: string): string =>
    name.replace(/^0000:(..):/, (_all, bus: string) => {
      const number = Number.parseInt(bus, 16);
      return `0000:${(number === 0 ? 0 : number + 0x60).toString(16).padStart(2, '0')}:`;
    });
  fc.assert(
    fc.property(topology, fc.nat(255), (entries, revision) => {
      const changed = entries.map(({ address, properties }) => {
        const secondary = properties['secondary']?.slice(1, -1);
        const moved =
          secondary === undefined
            ? {}
            : { secondary: `"${shifted(`${secondary}:`).slice(0, -1)}"` };
        const rest = { driver: 'nvme', class: '"010802"', revision: String(revision) };
        const bars = { bars: '[{ index: 0, size: 4K }]' };
        return {
          address: shifted(address),
          properties: { ...properties, ...moved, ...rest, ...bars },
        };
      });
      const expected = partition(formGroups(machineOf(entries)), shifted);
      assert.deepEqual(partition(formGroups(machineOf(changed))), expected);
    }),
    { numRuns: RUNS },
  );
});

/** Both reach the IOMMU under one requester ID of a device that exists, or under that of one bridge. */
function shareRequesterId(machine: Machine, a: PciDevice, b: PciDevice): boolean {
  const own = new Set([...machine.devices].map(({ bus, devfn }) => (bus.number << 8) | devfn));
  const ofB = [...aliasWalk(b)];
  return [...aliasWalk(a)].some(({ rid, device }) =>
    ofB.some((step) => step.rid === rid && (own.has(rid) || step.device === device)),
  );
}

test('groups: devices that share a requester ID share a group', () => {
  fc.assert(
    fc.property(topology, (entries) => {
      const machine = machineOf(entries);
      const builder = formGroups(machine);
      const devices = [...machine.devices];
      for (const [index, a] of devices.entries()) {
        for (const b of devices.slice(index + 1)) {
          if (!shareRequesterId(machine, a, b)) continue;
          assert.equal(builder.groupOf(a)?.id, builder.groupOf(b)?.id, `${a.name} and ${b.name}`);
        }
      }
    }),
    { numRuns: RUNS },
  );
});

test('groups: every member but the first joined for a reason that names the other device and the culprits', () => {
  fc.assert(
    fc.property(topology, fc.boolean(), (entries, strictAcs) => {
      const builder = formGroups(machineOf(entries), { strictAcs });
      for (const { members } of builder.groups) {
        for (const [index, member] of members.entries()) {
          const merge = builder.mergeOf(member);
          assert.equal(merge === undefined, index === 0, member.name);
          if (merge === undefined) continue;
          assert.ok(members.includes(merge.with));
          const sentence = explainMerge(member, merge);
          for (const named of [member, merge.with, ...merge.culprits.map(({ device }) => device)]) {
            assert.ok(sentence.includes(named.name), `${sentence} does not name ${named.name}`);
          }
        }
      }
    }),
    { numRuns: RUNS },
  );
});

test('planSplit: with the named ACS turned on the device is apart, what is inseparable stays', () => {
  fc.assert(
    fc.property(topology, fc.nat(), (entries, which) => {
      const machine = machineOf(entries);
      const builder = formGroups(machine);
      const shared = builder.groups
        .filter(({ members }) => members.length > 1)
        .flatMap(({ members }) => members);
      const device = shared[which % Math.max(1, shared.length)];
      fc.pre(device !== undefined);
      const plan = planSplit(machine, device);
      const mended = new Set(plan.changes.map((change) => change.device.name));
      const again = machineOf(
        entries.map((entry) =>
          mended.has(entry.address)
            ? { ...entry, properties: { ...entry.properties, acs: 'on' } }
            : entry,
        ),
      );
      const after = formGroups(again);
      const own = again.get(device.name);
      assert.ok(own);
      const companions = (after.groupOf(own)?.members ?? []).map(({ name }) => name);
      for (const { name } of plan.parted)
        assert.ok(!companions.includes(name), `${name} is still there`);
      for (const one of plan.inseparable)
        assert.ok(companions.includes(one.device.name), one.device.name);
      assert.ok(plan.parted.length === 0 || plan.changes.length > 0);
    }),
    { numRuns: RUNS },
  );
});

test('strict-acs: merges groups of Linux, never parts them', () => {
  fc.assert(
    fc.property(topology, (entries) => {
      const machine = machineOf(entries);
      const linux = formGroups(machine);
      const strict = formGroups(machine, { strictAcs: true });
      for (const { members } of linux.groups) {
        const ids = new Set(members.map((member) => strict.groupOf(member)?.id));
        assert.equal(ids.size, 1);
      }
    }),
    { numRuns: RUNS },
  );
});
