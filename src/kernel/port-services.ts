/**
 * Services of PCI Express ports: what pcieport offers on each port that it drives. Nothing uses them here; they have names in
 * sysfs, and the port an interrupt for them.
 *
 * Left out: hot-plug by the port itself and error reporting, which firmware keeps for itself on such machines.
 *
 * After drivers/pci/pcie/portdrv.c (pcie_portdrv_probe, get_port_device_capability).
 */
import { EXPRESS, PORT_TYPES } from '../machine/pci/capabilities.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { linkSpeeds } from '../machine/pci/link.ts';

export type PortService = { readonly name: string; readonly driver: string };

const LINK_BANDWIDTH_NOTIFICATION = 0x20_0000;
const POWER_EVENTS = 0x01;
const BANDWIDTH = 0x10;

const PORTS: readonly (number | undefined)[] = [
  PORT_TYPES['root-port'],
  PORT_TYPES['upstream-port'],
  PORT_TYPES['downstream-port'],
  PORT_TYPES['rc-event-collector'],
];

/** pcieport drives it. */
export function isPort({ portType }: PciDevice): boolean {
  return PORTS.includes(portType);
}

export function portServices(pci: PciDevice): PortService[] {
  const { portType } = pci;
  const root = portType === PORT_TYPES['root-port'];
  const services: PortService[] = [];
  if (root || portType === PORT_TYPES['rc-event-collector']) {
    services.push({ name: serviceName(pci, POWER_EVENTS), driver: 'pcie_pme' });
  }
  if ((root || portType === PORT_TYPES['downstream-port']) && notifiesBandwidth(pci)) {
    services.push({ name: serviceName(pci, BANDWIDTH), driver: 'pcie_bwctrl' });
  }
  return services;
}

function notifiesBandwidth(pci: PciDevice): boolean {
  const capabilities = pci.config.u32(pci.expressOffset + EXPRESS.LINK_CAPABILITIES);
  return (capabilities & LINK_BANDWIDTH_NOTIFICATION) !== 0 && linkSpeeds(pci).length > 1;
}

function serviceName({ name, portType = 0 }: PciDevice, service: number): string {
  const id = ((portType - PORT_TYPES['root-port']) << 8) | service;
  return `${name}:pcie${id.toString(16).padStart(3, '0')}`;
}
