/**
 * One device under vfio-pci: what opening and closing it does to the function, its power, its resets, and who may touch its memory.
 * Its calls are in ioctls.ts and features.ts; it does not decide who may open it (vfio/group.ts, vfio/device-file.ts).
 *
 * Invariants: `config`, `regions` and the interrupts exist while the device is open; its memory can be used through mappings exactly while
 * `usable`.
 *
 * After drivers/vfio/pci/vfio_pci.c and vfio_pci_core.c.
 */
import { Errno } from '../../base/errno.ts';
import type { PciDevice } from '../../machine/pci/device.ts';
import { D0, D3_HOT, type ManagedFunction } from '../../machine/pci/managed-function.ts';
import { COMMAND, PM } from '../../machine/pci/pci-regs.ts';
import { resetFunction, tryResetFunction, type Functions } from '../../machine/pci/reset.ts';
import type { SavedState } from '../../machine/pci/saved-state.ts';
import type { Signal } from '../../base/task.ts';
import { VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET } from '../../uapi/vfio.ts';
import type { VfioDevice } from '../state.ts';
import { VirtualConfig } from './config.ts';
import type { DeviceSet } from './device-set.ts';
import { DmaBufs } from './dmabuf.ts';
import { Interrupts } from './interrupts.ts';
import { IoEventfds } from './ioeventfd.ts';
import { Regions } from './regions.ts';
import { tryResetSet } from './reset.ts';
import type { VfTokens } from './vf-token.ts';

/** What exists while the device is open. */
export type OpenState = {
  readonly config: VirtualConfig;
  readonly regions: Regions;
  readonly ioeventfds: IoEventfds;
};

export class VfioPciDevice {
  readonly managed: ManagedFunction;
  readonly functions: Functions;
  readonly tokens: VfTokens;
  readonly interrupts: Interrupts;
  readonly dmaBufs: DmaBufs;
  /** VFIO's object; set when it is registered */
  vfio: VfioDevice | undefined;
  set: DeviceSet<VfioPciDevice> | undefined;
  resetWorks = false;
  /** was closed without a reset since */
  needsReset = false;
  #open: OpenState | undefined;
  #savedState: SavedState | undefined;
  // Saved at D3 by the user's wish, written back at D0: nobody else's saving may overwrite it.
  #powerSaved: SavedState | undefined;
  readonly #losesStateInD3: boolean;
  /** a low power feature is engaged: mappings are refused, the device sleeps whenever nobody calls */
  #lowPower = false;
  #wakeUp: Signal | undefined;
  #users = 0;
  #asleep = true;
  #maskedForSleep = false;

  constructor(managed: ManagedFunction, shared: { functions: Functions; tokens: VfTokens }) {
    this.managed = managed;
    this.functions = shared.functions;
    this.tokens = shared.tokens;
    this.interrupts = new Interrupts(managed);
    this.dmaBufs = new DmaBufs(this);
    const { pmOffset, config } = managed;
    this.#losesStateInD3 =
      pmOffset !== 0 && (config.u16(pmOffset + PM.CONTROL) & PM.NO_SOFT_RESET) === 0;
    this.setPowerState(D0);
    this.#sleep();
    managed.runtimePower = this;
  }

  /** The driver gives the function back, awake. */
  remove(): void {
    this.managed.runtimePower = undefined;
    this.#resume();
  }

  get pci(): PciDevice {
    return this.managed.pci;
  }

  get name(): string {
    return this.managed.pci.name;
  }

  /** Of an open device. */
  get open(): OpenState {
    if (this.#open === undefined) throw new Error(`${this.name} is not open`);
    return this.#open;
  }

  get isOpen(): boolean {
    return this.#open !== undefined;
  }

  /** The user's memory decoding is on, and the device not in D3. After __vfio_pci_memory_enabled. */
  get memoryEnabled(): boolean {
    if (this.managed.powerState >= D3_HOT || this.#open === undefined) return false;
    if (this.pci.isVirtualFunction) return true;
    return (this.#open.config.command & COMMAND.MEMORY) !== 0;
  }

  /** A program may touch mappings of BARs; elsewhere it gets SIGBUS. */
  get usable(): boolean {
    return this.memoryEnabled && !this.#lowPower;
  }

  /** What GET_INFO reports. */
  get flags(): number {
    return VFIO_DEVICE_FLAGS_PCI | (this.resetWorks ? VFIO_DEVICE_FLAGS_RESET : 0);
  }

  // Open and close

  /** open_device: enables, resets and saves the function. */
  enable(): void {
    const { managed } = this;
    this.wake();
    managed.clearMaster();
    managed.enable();
    this.resetWorks = this.#resets(() => {
      tryResetFunction(managed, this.functions);
    });
    this.#savedState = managed.save();
    if (managed.canMaskIntx) managed.setIntx(true);
    const config = new VirtualConfig(managed, this.#configEffects());
    const regions = new Regions(managed, this);
    this.#open = { config, regions, ioeventfds: new IoEventfds(regions) };
  }

  #resets(reset: () => void): boolean {
    try {
      reset();
      return true;
    } catch (error) {
      if (!(error instanceof Errno)) throw error;
      return false;
    }
  }

  #configEffects(): ConstructorParameters<typeof VirtualConfig>[1] {
    const { interrupts } = this;
    return {
      memoryOff: () => {
        this.zap();
      },
      memoryMayBeOn: () => {
        this.unzap();
      },
      setPowerState: (state) => {
        if (state >= D3_HOT) this.zap();
        this.setPowerState(state);
        this.unzap();
      },
      tryReset: () => {
        this.zap();
        this.#resets(() => {
          tryResetFunction(this.managed, this.functions);
        });
        this.unzap();
      },
      intxDisabled: (disabled) => {
        interrupts.userDisables(disabled);
      },
      get msiActive() {
        return interrupts.msiActive;
      },
      get msiQueueMax() {
        return interrupts.msiQueueMax;
      },
    };
  }

  /** close_device: everything that the user set up goes, the function is as it was before. */
  disable(): void {
    const { managed, interrupts } = this;
    this.dmaBufs.cleanUp();
    this.leaveLowPower();
    this.#resume();
    this.setPowerState(D0);
    managed.clearMaster();
    interrupts.disable();
    this.#open?.ioeventfds.disable();
    this.#open = undefined;
    this.needsReset = true;
    if (this.#savedState !== undefined) managed.saved = this.#savedState;
    this.#savedState = undefined;
    managed.quiesce();
    if (this.resetWorks) {
      const done = this.#resets(() => {
        resetFunction(managed, this.functions);
      });
      if (done) this.needsReset = false;
    }
    managed.restore();
    managed.disable();
    tryResetSet(this);
    this.idle();
    interrupts.releaseSingles();
  }

  /** DEVICE_RESET. EINVAL where no method worked at open, ENOTTY where none does now. */
  reset(): void {
    if (!this.resetWorks) throw new Errno('EINVAL', `${this.name} has no working reset method`);
    this.zap();
    this.setPowerState(D0);
    try {
      tryResetFunction(this.managed, this.functions);
    } finally {
      this.unzap();
    }
  }

  // Memory

  /** No dma-buf may reach the device's memory from now on; mappings follow `usable`. */
  zap(): void {
    this.dmaBufs.revoke();
  }

  /** The reason for zapping is over; it may be reachable again. */
  unzap(): void {
    if (this.memoryEnabled) this.dmaBufs.restore();
  }

  // Power

  /** Registers that D3 loses are saved on the way down and written back on the way up. After vfio_pci_set_power_state. */
  setPowerState(state: number): void {
    const { managed } = this;
    const before = managed.powerState;
    const saves = this.#losesStateInD3 && before < D3_HOT && state >= D3_HOT;
    const restores = this.#losesStateInD3 && before >= D3_HOT && state === D0;
    if (saves) managed.save();
    if (!managed.setPowerState(state)) return;
    if (saves && managed.powerState >= D3_HOT) this.#powerSaved = managed.saved;
    else if (restores) {
      if (this.#powerSaved !== undefined) managed.saved = this.#powerSaved;
      this.#powerSaved = undefined;
      managed.restore();
    }
  }

  /**
   * LOW_POWER_ENTRY: the device may sleep while nobody calls.
   * @param wakeUp signalled when a call wakes it, which also ends low power
   * @throws Errno EINVAL if it is engaged
   */
  enterLowPower(wakeUp: Signal | undefined): void {
    this.zap();
    if (this.#lowPower) throw new Errno('EINVAL', `low power of ${this.name} is engaged already`);
    this.#lowPower = true;
    this.#wakeUp = wakeUp;
    this.#users--;
  }

  /** LOW_POWER_EXIT, whether or not it is engaged. */
  leaveLowPower(): void {
    this.#endLowPower();
    this.unzap();
  }

  #endLowPower(): void {
    if (!this.#lowPower) return;
    this.#lowPower = false;
    this.#users++;
    this.#wakeUp?.release();
    this.#wakeUp = undefined;
  }

  /** A call begins (pm_runtime_resume_and_get). Pairs with {@link idle}. */
  wake(): void {
    this.#users++;
    this.#resume();
  }

  // Whoever asked to be told of the wake-up is, and has then left low power.
  #resume(): void {
    if (!this.#asleep) return;
    this.#asleep = false;
    this.managed.setPowerState(D0);
    this.managed.restore();
    if (this.#wakeUp !== undefined) {
      this.#wakeUp.signal();
      this.#endLowPower();
    }
    if (this.#maskedForSleep) this.interrupts.unmask();
    this.#maskedForSleep = false;
  }

  /** A call ends; without any other the device goes to sleep. */
  idle(): void {
    this.#users--;
    if (this.#users === 0) this.#sleep();
  }

  #sleep(): void {
    this.#asleep = true;
    this.setPowerState(D0);
    this.#maskedForSleep = this.interrupts.intxActive && this.interrupts.mask();
    this.managed.save();
    this.managed.setPowerState(D3_HOT);
  }
}
