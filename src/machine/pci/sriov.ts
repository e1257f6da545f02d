/**
 * SR-IOV: where the virtual functions of a physical function are, and what their configuration space says.
 *
 * After drivers/pci/iov.c; PCI Express Base 6.0 section 9.3.3 (capability) and 9.3.4 (what a virtual function shows).
 */
import { PORT_TYPES, SRIOV, SRIOV_CONTROL_ENABLE, SRIOV_CONTROL_MEMORY } from './capabilities.ts';
import type { PciAddress } from './address.ts';
import { buildConfig } from './config-builder.ts';
import { REGISTER, type ConfigSpace } from './config-space.ts';
import type { PciDevice } from './device.ts';

/** What says where virtual functions are. */
export type PhysicalFunction = Pick<PciDevice, 'address' | 'config' | 'sriovOffset'>;

export type SriovState = { readonly total: number; readonly enabled: number };

/** How many virtual functions there can be and how many are on. */
export function sriovState(physfn: PhysicalFunction): SriovState {
  const { config, sriovOffset } = physfn;
  const on = (config.u16(sriovOffset + SRIOV.CONTROL) & SRIOV_CONTROL_ENABLE) !== 0;
  return {
    total: config.u16(sriovOffset + SRIOV.TOTAL_VFS),
    enabled: on ? config.u16(sriovOffset + SRIOV.NUM_VFS) : 0,
  };
}

/** Sets the registers for `count` virtual functions. */
export function enableSriov(physfn: PciDevice, count: number): void {
  const { config, sriovOffset } = physfn;
  const control = config.u16(sriovOffset + SRIOV.CONTROL);
  config.setU16(sriovOffset + SRIOV.NUM_VFS, count);
  config.setU16(sriovOffset + SRIOV.CONTROL, control | SRIOV_CONTROL_ENABLE | SRIOV_CONTROL_MEMORY);
}

export function disableSriov(physfn: PciDevice): void {
  const { config, sriovOffset } = physfn;
  const control = config.u16(sriovOffset + SRIOV.CONTROL);
  config.setU16(
    sriovOffset + SRIOV.CONTROL,
    control & ~(SRIOV_CONTROL_ENABLE | SRIOV_CONTROL_MEMORY),
  );
  config.setU16(sriovOffset + SRIOV.NUM_VFS, 0);
}

/** @param index number of the virtual function, from 0 */
export function virtualFunctionAddress(physfn: PhysicalFunction, index: number): PciAddress {
  const { config, sriovOffset, address } = physfn;
  const first = config.u16(sriovOffset + SRIOV.FIRST_OFFSET);
  const stride = config.u16(sriovOffset + SRIOV.STRIDE);
  const rid = (address.bus << 8) + address.devfn + first + stride * index;
  return { domain: address.domain, bus: rid >> 8, devfn: rid & 0xff };
}

/** What a fresh virtual function of `physfn` shows: no ids of its own, the class of its physical function. */
export function virtualFunctionConfig(physfn: PciDevice): ConfigSpace {
  const { config } = physfn;
  return buildConfig({
    vendor: 0xffff,
    device: 0xffff,
    classCode: config.classCode,
    revision: config.u8(REGISTER.REVISION),
    subsystemVendor: config.u16(REGISTER.SUBSYSTEM_VENDOR),
    subsystem: config.u16(REGISTER.SUBSYSTEM),
    portType: PORT_TYPES.endpoint,
    ari: true,
  });
}
