/**
 * Devices whose isolation Linux knows better than their configuration space tells: data, in the order in which Linux asks.
 *
 * The rows are facts from drivers/pci/quirks.c of Linux 7.3 (pci_dev_acs_enabled and the functions it names); `source` is
 * the function that answers. What the answer depends on besides the ids is said by `rule`, and decided in acs.ts.
 */

/**
 * How a row answers.
 * - `isolated`: as if source validation, both redirects and upstream forwarding were on
 * - `isolated-root-port`: the same, if the device is a root port; otherwise no answer
 * - `multifunction`: the vendor says that functions do not talk to each other
 * - `rc-endpoint`: isolated if integrated into the root complex; otherwise no answer
 * - `amd-southbridge`: the two redirects, on the root bus of a computer with an AMD IOMMU
 * - `intel-pch`: root ports that Linux isolates through chipset registers
 * - `intel-spt`: root ports whose ACS registers are dwords
 * - `zhaoxin-ports`: isolated if a listed root or downstream port, refused for other ports
 * - `wangxun`: isolated if listed, refused otherwise
 */
export type AcsRule =
  | 'isolated'
  | 'isolated-root-port'
  | 'multifunction'
  | 'rc-endpoint'
  | 'amd-southbridge'
  | 'intel-pch'
  | 'intel-spt'
  | 'zhaoxin-ports'
  | 'wangxun';

export type IdRange = readonly [first: number, last: number];

export type AcsQuirk = {
  readonly vendor: number;
  /** undefined: every device of the vendor is asked */
  readonly devices?: readonly (number | IdRange)[];
  readonly rule: AcsRule;
  readonly what: string;
  readonly source: string;
};

export const ACS_QUIRKS: readonly AcsQuirk[] = [
  {
    vendor: 0x1002,
    devices: [0x4385, 0x439c, 0x4383, 0x439d, 0x4384, 0x4399],
    rule: 'amd-southbridge',
    what: 'ATI/AMD SBx00 south bridge',
    source: 'pci_quirk_amd_sb_acs',
  },
  {
    vendor: 0x1022,
    devices: [0x780f, 0x7809],
    rule: 'amd-southbridge',
    what: 'AMD FCH',
    source: 'pci_quirk_amd_sb_acs',
  },
  {
    vendor: 0x1924,
    devices: [0x0903, 0x0923, 0x0a03],
    rule: 'multifunction',
    what: 'Solarflare network card',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x8086,
    devices: [
      0x10c6, 0x10db, 0x10dd, 0x10e1, 0x10f1, 0x10f7, 0x10f8, 0x10f9, 0x10fa, 0x10fb, 0x10fc,
      0x1507, 0x1514, 0x151c, 0x1529, 0x152a, 0x154d, 0x154f, 0x1551, 0x1558,
    ],
    rule: 'multifunction',
    what: 'Intel 82598/82599/X520/X540 network card',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x8086,
    devices: [0x1509, 0x150e, 0x150f, 0x1510, 0x1511, 0x1516, 0x1527],
    rule: 'multifunction',
    what: 'Intel 82580 network card',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x8086,
    devices: [0x10c9, 0x10e6, 0x10e7, 0x10e8, 0x150a, 0x150d, 0x1518, 0x1526],
    rule: 'multifunction',
    what: 'Intel 82576 network card',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x8086,
    devices: [0x10a7, 0x10a9, 0x10d6],
    rule: 'multifunction',
    what: 'Intel 82575 network card',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x8086,
    devices: [0x1521, 0x1522, 0x1523, 0x1524],
    rule: 'multifunction',
    what: 'Intel I350 network card',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x8086,
    devices: [0x105e, 0x105f, 0x1060, 0x10d9],
    rule: 'multifunction',
    what: 'Intel 82571 network card',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x8086,
    devices: [0x15b7, 0x15b8],
    rule: 'multifunction',
    what: 'Intel I219 network controller',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x8086,
    rule: 'rc-endpoint',
    what: 'Intel device integrated into the root complex',
    source: 'pci_quirk_rciep_acs',
  },
  {
    vendor: 0x17cb,
    devices: [0x0400, 0x0401, 0x0115, 0x0111, 0x0120],
    rule: 'isolated',
    what: 'Qualcomm root port',
    source: 'pci_quirk_qcom_rp_acs',
  },
  {
    vendor: 0x1dbf,
    devices: [0x0401],
    rule: 'isolated',
    what: 'HXT SD4800 root port',
    source: 'pci_quirk_qcom_rp_acs',
  },
  {
    vendor: 0x8086,
    rule: 'intel-pch',
    what: 'Intel PCH root port',
    source: 'pci_quirk_intel_pch_acs',
  },
  {
    vendor: 0x8086,
    rule: 'intel-spt',
    what: 'Intel 100/200 series root port',
    source: 'pci_quirk_intel_spt_pch_acs',
  },
  {
    vendor: 0x19a2,
    devices: [0x0710],
    rule: 'multifunction',
    what: 'Emulex BE3-R',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x10df,
    devices: [0x0720],
    rule: 'multifunction',
    what: 'Emulex Skyhawk-R',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x177d,
    devices: [[0xa000, 0xa7ff], 0xaf84, 0xb884],
    rule: 'isolated-root-port',
    what: 'Cavium ThunderX root port',
    source: 'pci_quirk_cavium_acs',
  },
  {
    vendor: 0x177d,
    devices: [0xa026, 0xa059, 0xa060],
    rule: 'multifunction',
    what: 'Cavium multifunction device',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x10e8,
    devices: [0xe004],
    rule: 'isolated',
    what: 'APM X-Gene root port',
    source: 'pci_quirk_xgene_acs',
  },
  {
    vendor: 0x1def,
    devices: [[0xe005, 0xe00c]],
    rule: 'isolated',
    what: 'Ampere root port',
    source: 'pci_quirk_xgene_acs',
  },
  {
    vendor: 0x14e4,
    devices: [0x16d7, 0x1750, 0x1751, 0x1752, 0x1760, 0x1761, 0x1762, 0x1763],
    rule: 'multifunction',
    what: 'Broadcom network card',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x14e4,
    devices: [0xd714],
    rule: 'isolated',
    what: 'Broadcom iProc root port',
    source: 'pci_quirk_brcm_acs',
  },
  {
    vendor: 0x0014,
    devices: [0x3c09, 0x3c19, 0x3c29, 0x7a09, 0x7a19, 0x7a29, 0x7a39, 0x7a49, 0x7a59, 0x7a69],
    rule: 'isolated',
    what: 'Loongson root port',
    source: 'pci_quirk_loongson_acs',
  },
  {
    vendor: 0x1c36,
    devices: [0x0031],
    rule: 'isolated-root-port',
    what: 'Annapurna Labs root port',
    source: 'pci_quirk_al_acs',
  },
  {
    vendor: 0x1d17,
    devices: [0x3038, 0x3104, 0x9083],
    rule: 'multifunction',
    what: 'Zhaoxin multifunction device',
    source: 'pci_quirk_mf_endpoint_acs',
  },
  {
    vendor: 0x1957,
    devices: [
      [0x8d80, 0x8d83],
      [0x8d88, 0x8d8b],
      [0x8d90, 0x8d93],
      [0x8d98, 0x8d9b],
      [0x8da0, 0x8da1],
      [0x8da8, 0x8da9],
      [0x8db0, 0x8db1],
      [0x8db8, 0x8db9],
    ],
    rule: 'isolated',
    what: 'NXP LX2 root port',
    source: 'pci_quirk_nxp_rp_acs',
  },
  {
    vendor: 0x1d17,
    rule: 'zhaoxin-ports',
    what: 'Zhaoxin root or downstream port',
    source: 'pci_quirk_zhaoxin_pcie_ports_acs',
  },
  {
    vendor: 0x8088,
    rule: 'wangxun',
    what: 'Wangxun network card',
    source: 'pci_quirk_wangxun_nic_acs',
  },
];

/** Intel PCH root ports without an ACS capability (pci_quirk_intel_pch_acs_ids): Ibexpeak to Lynx Point, 9 series. */
export const INTEL_PCH_ROOT_PORTS: readonly (number | IdRange)[] = [
  [0x3b42, 0x3b51],
  [0x1c10, 0x1c1f],
  [0x1e10, 0x1e1f],
  [0x8c10, 0x8c1f],
  [0x9c10, 0x9c1b],
  [0x9c90, 0x9c9b],
  ...[0x1d10, 0x1d12, 0x1d14, 0x1d16, 0x1d18, 0x1d1a, 0x1d1c, 0x1d1e],
  [0x8d10, 0x8d1e],
  ...[0x8c90, 0x8c92, 0x8c94, 0x8c96, 0x8c98, 0x8c9a, 0x8c9c, 0x8c9e],
];

/** Intel root ports whose ACS registers are dwords (pci_quirk_intel_spt_pch_acs_match). */
export const INTEL_SPT_ROOT_PORTS: readonly (number | IdRange)[] = [
  [0xa110, 0xa11f],
  [0xa167, 0xa16a],
  [0xa290, 0xa29f],
  [0xa2e7, 0xa2ee],
  [0x9d10, 0x9d1b],
];

/** Ports that `zhaoxin-ports` isolates. */
export const ZHAOXIN_PORTS: readonly (number | IdRange)[] = [
  [0x0710, 0x071e],
  0x0721,
  [0x0723, 0x0752],
];

/** Cards that `wangxun` isolates. */
export const WANGXUN_CARDS: readonly (number | IdRange)[] = [
  [0x0100, 0x010f],
  ...[0x1001, 0x2001, 0x5010, 0x5025, 0x5040, 0x5110, 0x5125, 0x5140],
];

/** IDT switches whose source validation is broken and not counted (pci_disable_broken_acs_cap). */
export const BROKEN_SOURCE_VALIDATION = { vendor: 0x111d, devices: [0x80b5, 0x8090] } as const;

export function inIds(id: number, list: readonly (number | IdRange)[]): boolean {
  return list.some((entry) =>
    typeof entry === 'number' ? entry === id : id >= entry[0] && id <= entry[1],
  );
}
