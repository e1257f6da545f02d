/**
 * vfio-pci: what VFIO's driver for PCI does with the function it is bound to. It does not decide who may open the device
 * (vfio/group.ts, vfio/device-file.ts), and it knows the kernel's driver core only by {@link VfioPciFunction}.
 *
 * Invariant: tokens of a function count its opens exactly, because open and close bracket each other.
 *
 * After drivers/vfio/pci/vfio_pci.c and vfio_pci_core.c.
 */
import type { PciDevice } from '../../machine/pci/device.ts';
import { canReset, type ResetMethod } from '../../machine/pci/reset.ts';
import { VFIO_IOCTLS as spec } from '../../uapi/vfio-ioctls.ts';
import { VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET } from '../../uapi/vfio.ts';
import type { VfioDevice, VfioDeviceOps } from '../state.ts';
import { IoctlTable, op } from '../vcmd.ts';
import { tokenOption, type VfTokens } from './vf-token.ts';

const REGIONS = 9;
const INTERRUPTS = 5;

/** What vfio-pci is given of a function: its configuration, and the reset methods found when it was enumerated. */
export type VfioPciFunction = {
  readonly pci: PciDevice;
  readonly resetMethods: readonly ResetMethod[];
};

/** VFIO's view of a PCI function. */
export function vfioPciOps(known: VfioPciFunction, tokens: VfTokens): VfioDeviceOps {
  let resetWorks = false;
  return {
    pasids: true,
    openDevice: () => {
      resetWorks = canReset(known.pci, known.resetMethods);
      tokens.opened(known.pci);
    },
    closeDevice: () => {
      tokens.closed(known.pci);
    },
    match: (_device, named) => {
      const { name } = known.pci;
      if (!named.startsWith(name) || !['', ' '].includes(named.charAt(name.length))) return false;
      tokens.match(known.pci, tokenOption(named.slice(name.length)));
      return true;
    },
    matchToken: (_device, token) => {
      tokens.match(known.pci, token);
    },
    flags: () => VFIO_DEVICE_FLAGS_PCI | (resetWorks ? VFIO_DEVICE_FLAGS_RESET : 0),
    ioctl: (device, call) => PCI_IOCTLS.execute(device, call),
  };
}

export const PCI_IOCTLS = new IoctlTable<VfioDevice>('device', [
  op(spec.VFIO_DEVICE_GET_INFO, (device: VfioDevice, vcmd) => {
    const given = vcmd.read();
    given.writeBack('flags', device.ops.flags?.() ?? 0);
    given.writeBack('num_regions', REGIONS);
    given.writeBack('num_irqs', INTERRUPTS);
    return 0;
  }),
]);
