/**
 * Drivers at work: what a driver of the machine's description does when it is probed and removed. Drivers do nothing with
 * their devices here, save those that offer them to user space through VFIO; what counts is whether a probe succeeds and what the
 * driver says about DMA.
 *
 * After drivers/vfio/pci/vfio_pci.c (probe), drivers/pci/pcie/portdrv.c (probe).
 */
import { Errno } from '../base/errno.ts';
import { idMatches, type DriverSpec } from '../machine/drivers.ts';
import { REGISTER } from '../machine/pci/config-space.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { D0, D3_HOT, type ManagedFunction } from '../machine/pci/managed-function.ts';
import { COMMAND } from '../machine/pci/pci-regs.ts';
import { VfioPciDriver, vfioPciOps } from '../vfio/pci/driver.ts';
import type { VfioPciDevice } from '../vfio/pci/device.ts';
import type { VfioDevice, VfioDeviceOps } from '../vfio/state.ts';
import type { BusDevice, Driver } from './driver-state.ts';
import {
  disableFunction,
  disableMessages,
  enableFunction,
  enableMessages,
  type PciFunction,
} from './pci-function.ts';
import { isPort, portServices } from './port-services.ts';
import { messageKind } from './vectors.ts';
import type { DriverDma, PciSystem } from './pci-system.ts';

/** The driver that a description stands for. */
export function makeDriver(spec: DriverSpec, system: PciSystem): Driver {
  const common = {
    name: spec.name,
    managedDma: spec.managedDma,
    ids: spec.ids,
    overrideOnly: spec.overrideOnly,
    asynchronous: spec.asynchronous ?? false,
    configuresSriov: () => spec.sriov === true || (spec.vfio === true && system.vfioEnablesSriov()),
  };
  return spec.vfio === true
    ? { ...common, ...vfioCallbacks(spec, system) }
    : { ...common, ...plainCallbacks(spec, system) };
}

type Callbacks = Pick<Driver, 'probe' | 'remove'>;

function refuseByOrder(spec: DriverSpec, device: BusDevice): void {
  if (spec.failProbe !== undefined) {
    throw new Errno(spec.failProbe, `${spec.name} fails its probe of ${device.name}`);
  }
}

function functionOf(system: PciSystem, device: BusDevice): PciFunction {
  const known = system.function(device.name);
  if (known === undefined) throw new Error(`${device.name} is on the bus but not in the machine`);
  return known;
}

function plainCallbacks(spec: DriverSpec, system: PciSystem): Callbacks {
  return {
    probe: (device) => {
      refuseByOrder(spec, device);
      const known = functionOf(system, device);
      if (spec.bridges) {
        takePort(known, system);
        return;
      }
      // driver_override can force any driver on any device; hardware that a driver does not know does not answer it.
      if (spec.ids.length > 0 && !spec.ids.some((row) => idMatches(row, device.identity))) {
        throw new Errno('ENODEV', `${device.name} is not a device that ${spec.name} knows`);
      }
      if (spec.enables !== undefined) enableFunction(known, (each) => system.bridgeOf(each));
      known.dmaMaskBits = spec.dmaMaskBits ?? known.dmaMaskBits;
      if (spec.dma === true) system.dma.push(dmaOf(spec, device));
    },
    remove: (device, done) => {
      const known = functionOf(system, device);
      disableMessages(known);
      if (spec.bridges || spec.enables === 'while-bound') disableFunction(known);
      system.vectors.free(known);
      done();
    },
  };
}

// After pcie_portdrv_probe: what is not a port is refused, and a port's services share its interrupt.
function takePort(known: PciFunction, system: PciSystem): void {
  const { pci } = known;
  if (!isPort(pci)) throw new Errno('ENODEV', `${pci.name} is not a PCI Express port`);
  enableFunction(known, (each) => system.bridgeOf(each));
  known.managed.registers.update16(REGISTER.COMMAND, COMMAND.MASTER, COMMAND.MASTER);
  if (portServices(pci).length > 0 && messageKind(pci) !== undefined) {
    system.vectors.take(known, 1);
    enableMessages(known);
  }
}

function dmaOf({ name }: DriverSpec, { iommu }: BusDevice): DriverDma {
  return {
    driver: name,
    device: iommu.name,
    granted: iommu.kernelDriver === name,
    through: iommu.attached?.name,
  };
}

/** A device that nobody has open sleeps, where it can (runtime power management without disable_idle_d3). */
function sleepsUnused(ops: VfioDeviceOps, managed: ManagedFunction): VfioDeviceOps {
  return {
    ...ops,
    closeDevice: (device) => {
      ops.closeDevice?.(device);
      managed.setPowerState(D3_HOT);
    },
  };
}

function isPhysicalFunction({ machine }: PciSystem, pci: PciDevice): boolean {
  return pci.sriovOffset !== 0 || machine.virtualFunctions(pci).length > 0;
}

// Virtual functions that are on may be anybody's. A machine that starts with both had the driver first (vfio-pci's enable_sriov).
function refusePhysicalFunction(spec: DriverSpec, system: PciSystem, pci: PciDevice): void {
  const { length: count } = system.machine.virtualFunctions(pci);
  if (count === 0 || system.starting) return;
  throw new Errno(
    'EBUSY',
    `${pci.name} has ${count} virtual functions enabled; ${spec.name} does not bind a physical function then`,
  );
}

function vfioCallbacks(spec: DriverSpec, system: PciSystem): Callbacks {
  const bound = new Map<BusDevice, { vfio: VfioDevice; pci: VfioPciDevice }>();
  const driver = new VfioPciDriver(system);
  return {
    probe: (device) => {
      refuseByOrder(spec, device);
      const { managed } = functionOf(system, device);
      refusePhysicalFunction(spec, system, managed.pci);
      const pci = driver.probe(managed, { hasToken: isPhysicalFunction(system, managed.pci) });
      try {
        pci.vfio = system.vfio.register(device.iommu, sleepsUnused(vfioPciOps(pci), managed));
      } catch (error) {
        driver.remove(pci);
        throw error;
      }
      bound.set(device, { vfio: pci.vfio, pci });
      managed.setPowerState(D3_HOT);
    },
    remove: (device, done) => {
      const known = bound.get(device);
      bound.delete(device);
      if (known === undefined) throw new Error(`${device.name} was never registered with VFIO`);
      system.vfio.unregister(known.vfio, () => {
        driver.remove(known.pci);
        functionOf(system, device).managed.setPowerState(D0);
        done();
      });
    },
  };
}
