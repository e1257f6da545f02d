/**
 * Drivers at work: what a driver of the machine's description does when it is probed and removed. Drivers do nothing with
 * their devices here, save those that offer them to user space through VFIO; what counts is whether a probe succeeds and what the
 * driver says about DMA.
 *
 * After drivers/vfio/pci/vfio_pci.c (probe), drivers/pci/pcie/portdrv.c (probe).
 */
import { Errno } from '../base/errno.ts';
import { idMatches, type DriverSpec } from '../machine/drivers.ts';
import { PORT_TYPES } from '../machine/pci/capabilities.ts';
import { HEADER_NORMAL } from '../machine/pci/config-space.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { vfioPciOps } from '../vfio/pci/device.ts';
import type { VfioDevice } from '../vfio/state.ts';
import type { BusDevice, Driver } from './driver-state.ts';
import { VfTokens } from '../vfio/pci/vf-token.ts';
import type { DriverDma, PciFunction, PciSystem } from './pci-system.ts';

/** The driver that a description stands for. */
export function makeDriver(spec: DriverSpec, system: PciSystem): Driver {
  const common = {
    name: spec.name,
    managedDma: spec.managedDma,
    ids: spec.ids,
    overrideOnly: spec.overrideOnly,
  };
  return spec.vfio === true
    ? { ...common, ...vfioCallbacks(spec, system) }
    : { ...common, ...plainCallbacks(spec, system) };
}

type Callbacks = Pick<Driver, 'probe' | 'remove'>;

function refuseByOrder(spec: DriverSpec, device: BusDevice): void {
  if (spec.failProbe !== undefined) {
    throw new Errno(spec.failProbe, `${spec.name} was told to fail its probe of ${device.name}`);
  }
}

function functionOf(system: PciSystem, device: BusDevice): PciFunction {
  const known = system.function(device.name);
  if (known === undefined) throw new Error(`${device.name} is on the bus but not in the machine`);
  return known;
}

const PORTS: readonly (number | undefined)[] = [
  PORT_TYPES['root-port'],
  PORT_TYPES['upstream-port'],
  PORT_TYPES['downstream-port'],
  PORT_TYPES['rc-event-collector'],
];

function plainCallbacks(spec: DriverSpec, system: PciSystem): Callbacks {
  return {
    probe: (device) => {
      refuseByOrder(spec, device);
      if (spec.bridges) {
        if (PORTS.includes(functionOf(system, device).pci.portType)) return;
        throw new Errno('ENODEV', `${device.name} is no port of PCI Express`);
      }
      // driver_override can force any driver on any device; hardware that a driver does not know does not answer it.
      if (spec.ids.length > 0 && !spec.ids.some((row) => idMatches(row, device.identity))) {
        throw new Errno('ENODEV', `${device.name} is no device that ${spec.name} knows`);
      }
      if (spec.dma === true) system.dma.push(dmaOf(spec, device));
    },
    remove: (_device, done) => {
      done();
    },
  };
}

function dmaOf({ name }: DriverSpec, { iommu }: BusDevice): DriverDma {
  return {
    driver: name,
    device: iommu.name,
    granted: iommu.kernelDriver === name,
    through: iommu.attached?.name,
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
  const bound = new Map<BusDevice, VfioDevice>();
  const tokens = new VfTokens();
  return {
    probe: (device) => {
      refuseByOrder(spec, device);
      const known = functionOf(system, device);
      if (known.pci.config.headerType !== HEADER_NORMAL) {
        throw new Errno('EINVAL', `${device.name} is a bridge, ${spec.name} takes endpoints`);
      }
      refusePhysicalFunction(spec, system, known.pci);
      if (isPhysicalFunction(system, known.pci)) tokens.add(known.pci);
      bound.set(device, system.vfio.register(device.iommu, vfioPciOps(known, tokens)));
    },
    remove: (device, done) => {
      const vfio = bound.get(device);
      bound.delete(device);
      tokens.remove(functionOf(system, device).pci);
      if (vfio === undefined) throw new Error(`${device.name} was never registered with VFIO`);
      system.vfio.unregister(vfio, done);
    },
  };
}
