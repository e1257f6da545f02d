/**
 * Can a device be assigned to user space? The machine is booted and asked: a claim by each interface as it stands; if none
 * succeeds, what an administrator would do is done to a copy of the machine, and the claim is tried again. Every refusal
 * is the engine's.
 *
 * What stands here is advice: what to do next, and what is not to be done because it would harm, a rule that the kernel does
 * not enforce.
 */
import type { ErrnoCode } from '../base/errno.ts';
import type { IommuDevice } from '../iommu/domain.ts';
import type { ProfileName } from '../iommu/profile.ts';
import { pciSystem, type PciSystemParts } from '../kernel/system.ts';
import { iommuStatus } from '../machine/iommu-status.ts';
import type { Machine } from '../machine/machine.ts';
import { commandsOf, perform, sentenceOf, VFIO_PCI, type Operation } from './operations.ts';
import { tryDevice, type Refusal, type Trial } from './trial.ts';

/** `yes`: as it stands; `not-yet`: after the steps; `no`: never on this machine. */
export type Answer = 'yes' | 'not-yet' | 'no';

export type Obstacle = {
  /**
   * `refused`: the engine refuses a call; nothing refuses: `harm`, the step would do harm, `no-iommu`, nothing confines the
   * device; `in-use`, `vital`: on a host
   */
  readonly rule: 'refused' | 'harm' | 'no-iommu' | 'in-use' | 'vital';
  /** refused: which calls, and what they answer */
  readonly calls: readonly string[];
  readonly code: ErrnoCode | undefined;
  readonly sentence: string;
  /** what to do about it, in words; undefined where nothing can be done */
  readonly step: string | undefined;
};

export type Assignability = {
  readonly answer: Answer;
  /** what each interface answers as it stands */
  readonly trials: readonly Trial[];
  readonly obstacles: readonly Obstacle[];
  /** what clears the way, in order; tried on the model */
  readonly operations: readonly Operation[];
};

/** Something on a host that a step would break, or that is in the way; known to whoever reads the host. */
export type Guard = {
  readonly rule: 'in-use' | 'vital';
  readonly sentence: string;
  readonly step: string | undefined;
};

export type AssessOptions = {
  readonly profile?: ProfileName;
  /** What is in the way on a host. @param touched devices that would lose their driver, the asked one first */
  readonly guards?: (touched: readonly string[]) => readonly Guard[];
};

/** Shell commands that clear the way; none where something would be harmed. */
export function commandsFor({ answer, operations, obstacles }: Assignability): string[] {
  const harmful = obstacles.some(({ rule }) => rule !== 'refused');
  return answer !== 'not-yet' || harmful ? [] : operations.flatMap(commandsOf);
}

/** Judges the device `name` of `machine`. */
export function assess(machine: Machine, name: string, options: AssessOptions = {}): Assignability {
  const { profile = 'linux', guards = () => [] } = options;
  const model = new Model(machine, name, profile);
  model.run();
  const { trials, operations } = model;
  // What steps would clear is not what makes it impossible.
  const obstacles = model.succeeds ? [...model.cleared, ...model.lasting] : model.lasting;
  const found = guards(touchedBy(machine, name, operations)).map((guard) => ({
    ...guard,
    calls: [],
    code: undefined,
  }));
  const all = [...found, ...obstacles];
  const answer = model.succeeds ? (all.length === 0 ? 'yes' : 'not-yet') : 'no';
  return { answer, trials, obstacles: all, operations };
}

/** Devices whose driver or existence changes; the asked one always. */
function touchedBy(machine: Machine, name: string, operations: readonly Operation[]): string[] {
  const changed = operations.flatMap(({ kind, device }) => {
    const pci = machine.get(device);
    const functions = kind === 'disable-vfs' && pci ? machine.virtualFunctions(pci) : [];
    return [device, ...functions.map((vf) => vf.name)];
  });
  return [...new Set([name, ...changed])];
}

/** A copy of the machine on which the way is cleared, step by step. */
class Model {
  readonly trials: readonly Trial[];
  /** obstacles that an operation clears */
  readonly cleared: Obstacle[] = [];
  readonly lasting: Obstacle[] = [];
  readonly operations: Operation[] = [];
  succeeds = false;
  readonly #machine: Machine;
  readonly #name: string;
  readonly #system: PciSystemParts;

  constructor(machine: Machine, name: string, profile: ProfileName) {
    this.#machine = machine.copy();
    this.#name = name;
    this.#system = pciSystem(this.#machine, { profile });
    this.trials = tryDevice(this.#system, name);
  }

  run(): void {
    let refusals = this.#refusals(this.trials);
    if (this.#isUnconfined()) return;
    for (const operations of [() => this.#binding(), () => this.#companions()]) {
      if (refusals.length === 0) break;
      const wanted = operations();
      if ('rule' in wanted) {
        this.lasting.push(...obstaclesOf(refusals, undefined), wanted);
        return;
      }
      if (wanted.length === 0) continue;
      const impossible = this.#perform(wanted);
      if (impossible !== undefined) {
        this.lasting.push(impossible);
        return;
      }
      if (this.#isUnconfined()) return;
      this.cleared.push(...obstaclesOf(refusals, wanted.map(sentenceOf).join('; ')));
      refusals = this.#refusals(tryDevice(this.#system, this.#name));
    }
    if (refusals.length > 0) this.lasting.push(...obstaclesOf(refusals, this.#lastAdvice()));
    this.succeeds = refusals.every(({ code }) => code === 'EACCES');
  }

  /** No-iommu mode gives away what reaches all memory: whatever the calls answer, that is no assignment. */
  #isUnconfined(): boolean {
    if (this.#iommu?.group?.untranslated !== true) return false;
    this.lasting.push({
      rule: 'no-iommu',
      calls: [],
      code: undefined,
      sentence:
        `no IOMMU translates for ${this.#name}: its group is made up by VFIO (noiommu mode), and a program that ` +
        'has it reaches all memory',
      step: adviceWithoutIommu(this.#machine),
    });
    return true;
  }

  /** None where one interface answers yes. */
  #refusals(trials: readonly Trial[]): Refusal[] {
    const refused = trials.map(({ refusal }) => refusal).filter((each) => each !== undefined);
    return refused.length === trials.length ? refused : [];
  }

  /** @returns the refusal of the first operation that the machine refuses */
  #perform(operations: readonly Operation[]): Obstacle | undefined {
    for (const operation of operations) {
      const refused = perform(this.#system.pci, operation);
      if (refused !== undefined) {
        const { code, message: sentence } = refused;
        const calls = [sentenceOf(operation)];
        return { rule: 'refused', calls, code, sentence, step: this.#lastAdvice() };
      }
      this.operations.push(operation);
    }
    return undefined;
  }

  get #iommu(): IommuDevice | undefined {
    return this.#system.pci.core.device(this.#name)?.iommu;
  }

  /** Brings the device to vfio-pci, unless a VFIO driver has it. */
  #binding(): Operation[] {
    const { pci } = this.#system;
    const device = pci.core.device(this.#name);
    if (device === undefined || pci.vfio.deviceOf(device.iommu) !== undefined) return [];
    const bind = { kind: 'bind', device: this.#name, driver: device.driver?.name } as const;
    return [...this.#withoutFunctions(this.#name), bind];
  }

  #withoutFunctions(name: string): Operation[] {
    const pci = this.#machine.get(name);
    const { length: count } = pci === undefined ? [] : this.#machine.virtualFunctions(pci);
    return count === 0 ? [] : [{ kind: 'disable-vfs', device: name, count }];
  }

  /** Frees members whose drivers do kernel DMA, unless that would take the device itself away. */
  #companions(): Operation[] | Obstacle {
    const physfn = this.#machine.get(this.#name)?.physfn?.name;
    const busy = (this.#iommu?.group?.members ?? []).filter(
      ({ kernelDriver }) => kernelDriver !== undefined,
    );
    const own = busy.find(({ name }) => name === physfn);
    if (own !== undefined) return losesItself(own);
    return busy.flatMap(({ name, kernelDriver = '' }) => [
      ...this.#withoutFunctions(name),
      { kind: 'unbind' as const, device: name, driver: kernelDriver },
    ]);
  }

  /** What can be done where no operation helps. */
  #lastAdvice(): string | undefined {
    const pci = this.#machine.get(this.#name);
    if (pci?.isBridge === true) return 'ask for a device behind it; a bridge stays with the host';
    const group = this.#iommu?.group;
    if (group === undefined) return adviceWithoutIommu(this.#machine);
    if (group.members.some(({ requireDirect }) => requireDirect)) {
      return 'look for a firmware setting that drops the region (RMRR, IVMD), or use another device';
    }
    if (group.members.some(({ isolatedMsi }) => !isolatedMsi)) {
      return (
        'turn interrupt remapping on in firmware or hypervisor; allow_unsafe_interrupts=1 of vfio_iommu_type1 and iommufd ' +
        'overrides this and trusts the device with every interrupt'
      );
    }
    if (pci?.physfn?.facts.driver === VFIO_PCI) {
      return `give the program the VF token that the user of ${pci.physfn.name} sets (QEMU: vf-token=UUID)`;
    }
    return undefined;
  }
}

/** One obstacle for each errno, with all calls that answer it. */
function obstaclesOf(refusals: readonly Refusal[], step: string | undefined): Obstacle[] {
  const codes = [...new Set(refusals.map(({ code }) => code))];
  return codes.map((code) => {
    const alike = refusals.filter((refusal) => refusal.code === code);
    const calls = alike.map(({ call }) => call);
    return { rule: 'refused', calls, code, sentence: alike[0]?.reason ?? '', step };
  });
}

// The remove of most drivers turns SR-IOV off: igb, ixgbe, i40e, ice, mlx5_core and others.
function losesItself({ name, kernelDriver = '' }: IommuDevice): Obstacle {
  return {
    rule: 'harm',
    calls: [],
    code: undefined,
    sentence:
      `its physical function ${name} is in the same group; unbinding that from ${kernelDriver} takes its virtual ` +
      'functions away, this one too',
    step: undefined,
  };
}

function adviceWithoutIommu(machine: Machine): string | undefined {
  const { state, sentence } = iommuStatus(machine);
  switch (state) {
    case 'off':
      return `${sentence} The kernel has to use it: intel_iommu=on, or a kernel built with the driver`;
    case 'none':
    case 'noiommu':
      return `${sentence} Switch the IOMMU on in firmware (VT-d, AMD-Vi, SMMU); in a virtual machine, give it a virtual IOMMU`;
    case 'passthrough':
    case 'translated':
    case 'mixed':
    case 'unknown':
      return undefined;
  }
}
