/**
 * Links of PCI Express: speeds and widths that a function reports.
 *
 * After drivers/pci/pci.c (pcie_get_supported_speeds, pcie_get_width_cap) and drivers/pci/probe.c (pcie_link_speed,
 * pci_speed_string, pci_set_bus_speed); PCI Express Base 6.0, sections 7.5.3.6, 7.5.3.8 and 7.5.3.18.
 */
import { EXPRESS } from './capabilities.ts';
import type { PciBus, PciDevice } from './device.ts';

const SPEED = 0xf;
const WIDTH = 0x3f0;
const SUPPORTED = 0xfe;
const GEN_2 = 2;
const UNKNOWN = 'Unknown';

/** In GT/s by generation; what PCI Express 7.0 adds has no name in Linux yet. */
const SPEEDS = ['2.5', '5.0', '8.0', '16.0', '32.0', '64.0'];

/** Generations of speed that the function supports, slowest first. */
export function linkSpeeds({ config, expressOffset }: PciDevice): number[] {
  const most = config.u32(expressOffset + EXPRESS.LINK_CAPABILITIES) & SPEED;
  const vector = config.u32(expressOffset + EXPRESS.LINK_CAPABILITIES_2) & SUPPORTED;
  const listed = [1, 2, 3, 4, 5, 6].filter((each) => each <= most && ((vector >> each) & 1) === 1);
  if (listed.length > 0) return listed;
  if (most === GEN_2) return [1, GEN_2];
  return most === 1 ? [1] : [];
}

/** As sysfs prints the speed of a generation. */
export function speedText(generation: number): string {
  const speed = SPEEDS[generation - 1];
  return speed === undefined ? UNKNOWN : `${speed} GT/s PCIe`;
}

export function maximumSpeed(pci: PciDevice): string {
  return speedText(linkSpeeds(pci).at(-1) ?? 0);
}

export function maximumWidth({ config, expressOffset }: PciDevice): number {
  return (config.u32(expressOffset + EXPRESS.LINK_CAPABILITIES) & WIDTH) >> 4;
}

export function currentSpeed({ config, expressOffset }: PciDevice): string {
  return speedText(config.u16(expressOffset + EXPRESS.LINK_STATUS) & SPEED);
}

export function currentWidth({ config, expressOffset }: PciDevice): number {
  return (config.u16(expressOffset + EXPRESS.LINK_STATUS) & WIDTH) >> 4;
}

/** What the bus below a bridge can do at most, and does; as the slots on it show. */
export function busSpeeds({ self }: PciBus): { readonly most: string; readonly now: string } {
  if (self?.isExpress !== true) return { most: UNKNOWN, now: UNKNOWN };
  const { config, expressOffset } = self;
  const most = config.u32(expressOffset + EXPRESS.LINK_CAPABILITIES) & SPEED;
  return { most: speedText(most), now: currentSpeed(self) };
}
