/**
 * Atomic operations that memory completes for a function: those that the function and the root port above it both support, with
 * every switch between them routing. Asking enables them at the function, as Linux does.
 *
 * After vfio_pci_info_atomic_cap of drivers/vfio/pci/vfio_pci_core.c and pci_enable_atomic_ops_to_root of drivers/pci/pci.c.
 */
import { PORT_TYPES } from '../../machine/pci/capabilities.ts';
import type { PciDevice } from '../../machine/pci/device.ts';
import type { ManagedFunction } from '../../machine/pci/managed-function.ts';
import { EXP } from '../../machine/pci/pci-regs.ts';
import {
  VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP,
  VFIO_PCI_ATOMIC_COMP128,
  VFIO_PCI_ATOMIC_COMP32,
  VFIO_PCI_ATOMIC_COMP64,
  vfio_device_info_cap_pci_atomic_comp,
} from '../../uapi/vfio.ts';
import type { CapabilityChain } from '../capability-chain.ts';

const WIDTHS: readonly (readonly [number, number])[] = [
  [EXP.ATOMIC_COMP32, VFIO_PCI_ATOMIC_COMP32],
  [EXP.ATOMIC_COMP64, VFIO_PCI_ATOMIC_COMP64],
  [EXP.ATOMIC_COMP128, VFIO_PCI_ATOMIC_COMP128],
];

/** Adds the capability of GET_INFO where a width is supported. */
export function addAtomicCompletion(chain: CapabilityChain, managed: ManagedFunction): void {
  const supported = capabilities2(managed.pci.physfn ?? managed.pci);
  let flags = 0;
  for (const [bit, flag] of WIDTHS) {
    if ((supported & bit) !== 0 && enable(managed, bit)) flags |= flag;
  }
  if (flags === 0) return;
  const capability = { id: VFIO_DEVICE_INFO_CAP_PCI_ATOMIC_COMP, version: 1 };
  chain.add(capability, vfio_device_info_cap_pci_atomic_comp, { flags });
}

/** Device capabilities 2; 0 for a function that has none. */
function capabilities2({ config, expressOffset }: PciDevice): number {
  const version = expressOffset === 0 ? 0 : config.u16(expressOffset + EXP.FLAGS) & 0xf;
  return version < 2 ? 0 : config.u32(expressOffset + EXP.DEVICE_CAP_2);
}

function enable(managed: ManagedFunction, bit: number): boolean {
  const { pci } = managed;
  const endpoints: readonly (number | undefined)[] = [
    PORT_TYPES.endpoint,
    PORT_TYPES['legacy-endpoint'],
  ];
  if (pci.isVirtualFunction || !endpoints.includes(pci.portType)) return false;
  const control = pci.expressOffset + EXP.DEVICE_CONTROL_2;
  const above = portsAbove(pci);
  const root = above.pop();
  if (root?.portType !== PORT_TYPES['root-port']) {
    return (managed.config.u16(control) & EXP.ATOMIC_REQUESTER) !== 0;
  }
  if ((capabilities2(root) & bit) === 0 || !above.every(routesAtomics)) return false;
  managed.registers.update16(control, EXP.ATOMIC_REQUESTER, EXP.ATOMIC_REQUESTER);
  return true;
}

/** Nearest first. */
function portsAbove(pci: PciDevice): PciDevice[] {
  const above: PciDevice[] = [];
  for (let port = pci.upstreamBridge; port !== undefined; port = port.upstreamBridge) {
    above.push(port);
  }
  return above;
}

function routesAtomics(port: PciDevice): boolean {
  const { portType, config, expressOffset } = port;
  const isUpstream = portType === PORT_TYPES['upstream-port'];
  if (!isUpstream && portType !== PORT_TYPES['downstream-port']) return true;
  const control = config.u16(expressOffset + EXP.DEVICE_CONTROL_2);
  if (isUpstream && (control & EXP.ATOMIC_EGRESS_BLOCK) !== 0) return false;
  return (capabilities2(port) & EXP.ATOMIC_ROUTE) !== 0;
}
