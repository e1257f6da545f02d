/**
 * Configuration space from a description: the bytes that a function with these properties shows. The layout is always the
 * same (PCI Express at 0x40, then MSI and MSI-X; ACS, ARI and SR-IOV from 0x100), so equal descriptions give equal bytes.
 */
import {
  ACS,
  ARI,
  CAP_EXPRESS,
  CAP_MSI,
  CAP_MSIX,
  DEVICE_CONTROL_2_ARI,
  EXPRESS,
  EXT_ACS,
  EXT_ARI,
  EXT_SRIOV,
  SRIOV,
  SRIOV_CONTROL_ENABLE,
  SRIOV_CONTROL_MEMORY,
} from './capabilities.ts';
import {
  ConfigSpace,
  CONVENTIONAL_BYTES,
  EXPRESS_BYTES,
  HEADER_BRIDGE,
  HEADER_MULTIFUNCTION,
  REGISTER,
} from './config-space.ts';
import { setBarAddress, setVfBarAddress, type Bar } from './bar.ts';

export type ConfigDescription = {
  readonly vendor: number;
  readonly device: number;
  readonly classCode: number;
  readonly revision?: number;
  readonly subsystemVendor?: number;
  readonly subsystem?: number;
  readonly multifunction?: boolean;
  /** device/port type; undefined for conventional PCI */
  readonly portType?: number | undefined;
  /** a bridge: numbers of its buses */
  readonly bridge?:
    | { readonly primary: number; readonly secondary: number; readonly subordinate: number }
    | undefined;
  readonly acs?: { readonly offered: number; readonly control: number } | undefined;
  /** endpoint: has the capability; port: forwards functions above 7 */
  readonly ari?: boolean | undefined;
  readonly sriov?: SriovDescription | undefined;
  readonly bars?: readonly Bar[] | undefined;
  /** number of vectors */
  readonly msi?: number | undefined;
  readonly msix?: number | undefined;
};

export type SriovDescription = {
  readonly total: number;
  readonly enabled: number;
  readonly offset: number;
  readonly stride: number;
  readonly device: number;
  readonly bars?: readonly Bar[] | undefined;
};

const STATUS_CAPABILITY_LIST = 0x10;
const FIRST_CAPABILITY = 0x40;
const MSI_BYTES = 0x18;
const MSIX_BYTES = 0x0c;
const EXPRESS_VERSION = 2;

class ConfigBuilder {
  readonly config: ConfigSpace;
  #next = FIRST_CAPABILITY;
  #link: number = REGISTER.CAPABILITIES;
  #nextExtended: number = REGISTER.EXTENDED;
  #lastExtended = 0;

  constructor(bytes: number) {
    this.config = new ConfigSpace(new Uint8Array(bytes));
  }

  /** Appends a standard capability. @returns its offset */
  capability(id: number, bytes: number): number {
    const offset = this.#next;
    this.config.setU16(REGISTER.STATUS, this.config.u16(REGISTER.STATUS) | STATUS_CAPABILITY_LIST);
    this.config.setU8(this.#link, offset);
    this.config.setU8(offset, id);
    this.#link = offset + 1;
    this.#next = (offset + bytes + 3) & ~3;
    return offset;
  }

  /** Appends an extended capability. @returns its offset */
  extended(id: number, bytes: number): number {
    const offset = this.#nextExtended;
    this.config.setU32(offset, id | (1 << 16));
    if (this.#lastExtended !== 0) {
      const header = this.config.u32(this.#lastExtended);
      this.config.setU32(this.#lastExtended, (header | (offset << 20)) >>> 0);
    }
    this.#lastExtended = offset;
    this.#nextExtended = (offset + bytes + 15) & ~15;
    return offset;
  }
}

/** The bytes of a function; 256 for conventional PCI, 4096 for PCI Express. */
export function buildConfig(description: ConfigDescription): ConfigSpace {
  const express = description.portType !== undefined;
  const builder = new ConfigBuilder(express ? EXPRESS_BYTES : CONVENTIONAL_BYTES);
  writeHeader(builder.config, description);
  if (description.portType !== undefined) writeExpress(builder, description, description.portType);
  writeInterrupts(builder, description);
  if (express) writeExtended(builder, description);
  return builder.config;
}

function writeHeader(config: ConfigSpace, description: ConfigDescription): void {
  const { bridge } = description;
  config.setU16(REGISTER.VENDOR, description.vendor);
  config.setU16(REGISTER.DEVICE, description.device);
  config.setU8(REGISTER.REVISION, description.revision ?? 0);
  config.setU8(REGISTER.CLASS, description.classCode & 0xff);
  config.setU16(REGISTER.CLASS + 1, description.classCode >> 8);
  const type = bridge === undefined ? 0 : HEADER_BRIDGE;
  const many = description.multifunction === true ? HEADER_MULTIFUNCTION : 0;
  config.setU8(REGISTER.HEADER_TYPE, type | many);
  for (const bar of description.bars ?? []) setBarAddress(config, bar, bar.address ?? 0n);
  if (bridge === undefined) {
    config.setU16(REGISTER.SUBSYSTEM_VENDOR, description.subsystemVendor ?? 0);
    config.setU16(REGISTER.SUBSYSTEM, description.subsystem ?? 0);
  } else {
    config.setU8(REGISTER.PRIMARY_BUS, bridge.primary);
    config.setU8(REGISTER.SECONDARY_BUS, bridge.secondary);
    config.setU8(REGISTER.SUBORDINATE_BUS, bridge.subordinate);
  }
}

function writeExpress(
  builder: ConfigBuilder,
  { ari, bridge }: ConfigDescription,
  type: number,
): void {
  const offset = builder.capability(CAP_EXPRESS, EXPRESS.BYTES);
  builder.config.setU16(offset + EXPRESS.FLAGS, EXPRESS_VERSION | (type << 4));
  if (bridge !== undefined && ari === true) {
    builder.config.setU16(offset + EXPRESS.DEVICE_CONTROL_2, DEVICE_CONTROL_2_ARI);
  }
}

function writeInterrupts(builder: ConfigBuilder, { msi, msix }: ConfigDescription): void {
  if (msi !== undefined) {
    const offset = builder.capability(CAP_MSI, MSI_BYTES);
    // multiple message capable, 64-bit address, per-vector masking
    builder.config.setU16(offset + 2, (Math.ceil(Math.log2(msi)) << 1) | 0x180);
  }
  if (msix !== undefined) {
    const offset = builder.capability(CAP_MSIX, MSIX_BYTES);
    builder.config.setU16(offset + 2, msix - 1);
  }
}

function writeExtended(builder: ConfigBuilder, description: ConfigDescription): void {
  const { config } = builder;
  const { acs, ari, bridge, sriov } = description;
  if (acs !== undefined) {
    const offset = builder.extended(EXT_ACS, ACS.BYTES);
    config.setU16(offset + ACS.CAPABILITY, acs.offered);
    config.setU16(offset + ACS.CONTROL, acs.control);
  }
  if (ari === true && bridge === undefined) builder.extended(EXT_ARI, ARI.BYTES);
  if (sriov !== undefined) {
    const offset = builder.extended(EXT_SRIOV, SRIOV.BYTES);
    config.setU16(offset + SRIOV.INITIAL_VFS, sriov.total);
    config.setU16(offset + SRIOV.TOTAL_VFS, sriov.total);
    config.setU16(offset + SRIOV.NUM_VFS, sriov.enabled);
    config.setU16(offset + SRIOV.FIRST_OFFSET, sriov.offset);
    config.setU16(offset + SRIOV.STRIDE, sriov.stride);
    config.setU16(offset + SRIOV.VF_DEVICE, sriov.device);
    const on = sriov.enabled > 0 ? SRIOV_CONTROL_ENABLE | SRIOV_CONTROL_MEMORY : 0;
    config.setU16(offset + SRIOV.CONTROL, on);
    for (const bar of sriov.bars ?? []) setVfBarAddress(config, bar, 0n);
  }
}
