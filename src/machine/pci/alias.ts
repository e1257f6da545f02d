/**
 * Which requester IDs the DMA of a device can carry: its own, those that a quirk adds, and those that bridges put in its
 * place on the way up. An IOMMU cannot tell apart what arrives under one ID.
 *
 * After drivers/pci/search.c: pci_for_each_dma_alias; drivers/pci/pci.c: pci_devs_are_dma_aliases.
 */
import { ALIAS_QUIRKS, BRIDGE_QUIRKS, type AliasQuirk, type BridgeQuirk } from './alias-quirks.ts';
import { inIds } from './acs-quirks.ts';
import { PORT_TYPES } from './capabilities.ts';
import { HEADER_BRIDGE, REGISTER } from './config-space.ts';
import { slotOf } from './address.ts';
import type { PciDevice } from './device.ts';

/** Why a requester ID belongs to the walk. */
export type AliasKind =
  /** the device's own, or that of the device that does its DMA (VMD) */
  | 'own'
  /** a quirk, firmware or the machine file says that the device uses this devfn too */
  | 'quirk'
  /** a PCIe-to-PCI bridge sends it as its secondary bus, devfn 0 */
  | 'express-bridge'
  /** a conventional or PCI-to-PCIe bridge sends it as its own */
  | 'conventional-bridge';

export type AliasStep = {
  readonly device: PciDevice;
  readonly rid: number;
  readonly kind: AliasKind;
};

/** The quirk that gives `device` more requester IDs; undefined for nearly every device. */
export function aliasQuirk(device: PciDevice): AliasQuirk | undefined {
  return ALIAS_QUIRKS.find(
    (quirk) =>
      quirk.vendor === device.vendor &&
      inIds(device.device, quirk.devices) &&
      (quirk.class === undefined || quirk.class === device.classCode >> 8) &&
      (quirk.subsystems === undefined ||
        quirk.subsystems.some(
          ([vendor, id]) =>
            vendor === device.config.u16(REGISTER.SUBSYSTEM_VENDOR) &&
            id === device.config.u16(REGISTER.SUBSYSTEM),
        )),
  );
}

const NO_DEVFNS: ReadonlySet<number> = new Set();

/** The devfns on its own bus that the device uses besides its own (dma_alias_mask). */
export function aliasDevfns(device: PciDevice): ReadonlySet<number> {
  device.aliasDevfns ??= findAliasDevfns(device);
  return device.aliasDevfns;
}

function findAliasDevfns(device: PciDevice): ReadonlySet<number> {
  const effect = aliasQuirk(device)?.effect;
  const noted = device.notes.aliases ?? [];
  if (effect === undefined && noted.length === 0) return NO_DEVFNS;
  const devfns = new Set(noted);
  if (effect?.kind === 'devfns') for (const devfn of effect.devfns) devfns.add(devfn);
  if (effect?.kind === 'function') {
    const devfn = (slotOf(device.devfn) << 3) | effect.function;
    if (devfn !== device.devfn) devfns.add(devfn);
  }
  return new Set([...devfns].sort((a, b) => a - b));
}

/** Either uses the other's devfn, or does its DMA; both are on one bus. */
export function areAliases(a: PciDevice, b: PciDevice): boolean {
  if (aliasDevfns(a).has(b.devfn) || aliasDevfns(b).has(a.devfn)) return true;
  const controller = a.bus.root.dmaDevice;
  return controller !== undefined && (controller === a || controller === b);
}

function bridgeQuirk(bridge: PciDevice): BridgeQuirk | undefined {
  return BRIDGE_QUIRKS.find(
    (quirk) => quirk.vendor === bridge.vendor && inIds(bridge.device, quirk.devices),
  );
}

/** The IOMMU that translates for what is below sits at this bridge. */
export function isTranslationRoot(bridge: PciDevice): boolean {
  return (
    (bridge.notes.translationRoot ?? false) || bridgeQuirk(bridge)?.effect === 'translation-root'
  );
}

/** A PCIe-to-PCI bridge that hides its PCI Express capability: conventional by its bytes, below PCI Express. */
function hidesExpress(bridge: PciDevice): boolean {
  if (bridge.notes.expressBridgeAlias === true) return true;
  if (bridgeQuirk(bridge)?.effect !== 'express-alias') return false;
  const parent = bridge.bus.self;
  return (
    !bridge.bus.isRoot &&
    bridge.config.headerType === HEADER_BRIDGE &&
    !bridge.isExpress &&
    parent?.isExpress === true &&
    parent.portType !== PORT_TYPES['pcie-pci-bridge']
  );
}

function passesRequesterIds(bridge: PciDevice): boolean {
  return (bridge.notes.noAlias ?? false) || bridgeQuirk(bridge)?.effect === 'no-alias';
}

/** What `bridge` puts in place of a requester ID from below; undefined if it leaves it alone. */
function bridgeStep(bridge: PciDevice): AliasStep | undefined {
  const own = (bridge.bus.number << 8) | bridge.devfn;
  const below = (bridge.subordinate?.number ?? bridge.config.u8(REGISTER.SECONDARY_BUS)) << 8;
  const express: AliasStep = { device: bridge, rid: below, kind: 'express-bridge' };
  const conventional: AliasStep = { device: bridge, rid: own, kind: 'conventional-bridge' };
  switch (bridge.portType) {
    case undefined:
      return hidesExpress(bridge) ? express : conventional;
    case PORT_TYPES['pcie-pci-bridge']:
      return passesRequesterIds(bridge) ? undefined : express;
    case PORT_TYPES['pci-pcie-bridge']:
      return conventional;
    default:
      return undefined;
  }
}

/** Every requester ID of `device`, from the device up to the root bus or the bridge where the IOMMU sits. */
export function* aliasWalk(device: PciDevice): Generator<AliasStep> {
  const start = device.dmaDevice;
  const busPart = start.bus.number << 8;
  yield { device: start, rid: busPart | start.devfn, kind: 'own' };
  for (const devfn of aliasDevfns(start))
    yield { device: start, rid: busPart | devfn, kind: 'quirk' };
  for (let bus = start.bus; bus.parent !== undefined; bus = bus.parent) {
    const bridge = bus.self;
    if (bridge === undefined) continue;
    if (isTranslationRoot(bridge)) return;
    const step = bridgeStep(bridge);
    if (step !== undefined) yield step;
  }
}
