/**
 * Devices that send requests under a requester ID that is not their own: data, with the function of
 * drivers/pci/quirks.c (Linux 7.3) that each row states as a fact.
 */
import type { IdRange } from './acs-quirks.ts';

/** Which devfns on its own bus the device uses besides its own. */
export type AliasEffect =
  /** this function of its own slot, if it is another one */
  | { readonly kind: 'function'; readonly function: number }
  | { readonly kind: 'devfns'; readonly devfns: readonly number[] }
  /** registers in a BAR say which; they are not in configuration space */
  | { readonly kind: 'unknown' };

export type AliasQuirk = {
  readonly vendor: number;
  readonly devices: readonly (number | IdRange)[];
  /** subsystem vendor and device, where they matter */
  readonly subsystems?: readonly (readonly [vendor: number, device: number])[];
  /** upper 16 bits of the class, where they matter */
  readonly class?: number;
  readonly effect: AliasEffect;
  readonly what: string;
  readonly source: string;
};

function devfn(slot: number, func: number): number {
  return (slot << 3) | func;
}

const EVERY_DEVFN = Array.from({ length: 256 }, (_, index) => index);
const SLOTS = Array.from({ length: 32 }, (_, slot) => slot);
const CLASS_BRIDGE_OTHER = 0x0680;

export const ALIAS_QUIRKS: readonly AliasQuirk[] = [
  {
    vendor: 0x1180,
    devices: [0xe832, 0xe476],
    effect: { kind: 'function', function: 0 },
    what: 'Ricoh card reader',
    source: 'quirk_dma_func0_alias',
  },
  {
    vendor: 0x6766,
    devices: [0x3d40, 0x3d41],
    effect: { kind: 'function', function: 0 },
    what: 'Glenfly graphics',
    source: 'quirk_dma_func0_alias',
  },
  {
    vendor: 0x1b4b,
    devices: [
      0x9120, 0x9123, 0x9125, 0x9128, 0x9130, 0x9170, 0x9172, 0x917a, 0x9182, 0x9183, 0x91a0,
      0x9215, 0x9220, 0x9230, 0x9235,
    ],
    effect: { kind: 'function', function: 1 },
    what: 'Marvell SATA controller',
    source: 'quirk_dma_func1_alias',
  },
  {
    vendor: 0x1103,
    devices: [0x0642, 0x0645],
    effect: { kind: 'function', function: 1 },
    what: 'HighPoint SATA controller',
    source: 'quirk_dma_func1_alias',
  },
  {
    vendor: 0x197b,
    devices: [0x2392],
    effect: { kind: 'function', function: 1 },
    what: 'JMicron JMB388',
    source: 'quirk_dma_func1_alias',
  },
  {
    vendor: 0x1c28,
    devices: [0x0122],
    effect: { kind: 'function', function: 1 },
    what: 'Plextor M6E',
    source: 'quirk_dma_func1_alias',
  },
  {
    vendor: 0x9005,
    devices: [0x0285],
    subsystems: [
      [0x9005, 0x02bb],
      [0x9005, 0x02bc],
    ],
    effect: { kind: 'devfns', devfns: [devfn(1, 0)] },
    what: 'Adaptec 3405/3805',
    source: 'quirk_fixed_dma_alias',
  },
  {
    vendor: 0x8086,
    devices: [0x2260, 0x2264],
    effect: { kind: 'devfns', devfns: [devfn(0x10, 0), devfn(0x11, 0), devfn(0x12, 3)] },
    what: 'Intel MIC x200 NTB',
    source: 'quirk_mic_x200_dma_alias',
  },
  {
    vendor: 0x8086,
    devices: [0x2954, 0x2955, 0x2956, 0x2958, 0x2959, 0x295a],
    effect: {
      kind: 'devfns',
      devfns: SLOTS.flatMap((slot) => [0, 1, 2, 3, 4].map((func) => devfn(slot, func))),
    },
    what: 'Intel Visual Compute Accelerator',
    source: 'quirk_pex_vca_alias',
  },
  {
    vendor: 0x10b5,
    devices: [0x87b0, 0x87b1],
    effect: { kind: 'devfns', devfns: EVERY_DEVFN },
    what: 'PLX NTB',
    source: 'quirk_plx_ntb_dma_alias',
  },
  {
    vendor: 0x11f8,
    devices: [
      [0x8531, 0x8536],
      [0x8541, 0x8546],
      [0x8551, 0x8556],
      [0x8561, 0x8566],
      [0x8571, 0x8576],
      ...[0x40, 0x41, 0x42, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55].flatMap((series) =>
        [0x00, 0x84, 0x68, 0x52, 0x36, 0x28].map((lanes) => (series << 8) | lanes),
      ),
      ...[0x43, 0x44, 0x45].flatMap((series) =>
        [0x52, 0x36, 0x28].map((lanes) => (series << 8) | lanes),
      ),
    ],
    class: CLASS_BRIDGE_OTHER,
    effect: { kind: 'unknown' },
    what: 'Microsemi Switchtec NTB',
    source: 'quirk_switchtec_ntb_dma_alias',
  },
  {
    vendor: 0x1055,
    devices: [[0x1001, 0x1006], 0x1008],
    class: CLASS_BRIDGE_OTHER,
    effect: { kind: 'unknown' },
    what: 'Microchip PCI100x NTB',
    source: 'quirk_switchtec_ntb_dma_alias',
  },
];

/** How a bridge passes requester IDs on, where that is not what its type says. */
export type BridgeQuirk = {
  readonly vendor: number;
  readonly devices: readonly (number | IdRange)[];
  readonly effect: 'express-alias' | 'translation-root' | 'no-alias';
  readonly what: string;
  readonly source: string;
};

export const BRIDGE_QUIRKS: readonly BridgeQuirk[] = [
  {
    vendor: 0x1b21,
    devices: [0x1080],
    effect: 'express-alias',
    what: 'ASMedia ASM1083/1085',
    source: 'quirk_use_pcie_bridge_dma_alias',
  },
  {
    vendor: 0x10e3,
    devices: [0x8113],
    effect: 'express-alias',
    what: 'Tundra 8113',
    source: 'quirk_use_pcie_bridge_dma_alias',
  },
  {
    vendor: 0x1283,
    devices: [0x8892, 0x8893],
    effect: 'express-alias',
    what: 'ITE 8892/8893',
    source: 'quirk_use_pcie_bridge_dma_alias',
  },
  {
    vendor: 0x8086,
    devices: [0x244e],
    effect: 'express-alias',
    what: 'Intel 82801 bridge',
    source: 'quirk_use_pcie_bridge_dma_alias',
  },
  {
    vendor: 0x14e4,
    devices: [0x9000, 0x9084],
    effect: 'translation-root',
    what: 'Broadcom Vulcan/Cavium ThunderX2 bridge',
    source: 'quirk_bridge_cavm_thrx2_pcie_root',
  },
  {
    vendor: 0x1a03,
    devices: [0x1150],
    effect: 'no-alias',
    what: 'ASPEED AST1150',
    source: 'quirk_aspeed_pci_bridge_no_alias',
  },
];
