/**
 * The directory of one PCI function in sysfs.
 *
 * Attributes come from tables; what depends on the moment (driver, group, virtual functions, VFIO) is asked when the directory
 * is looked at. Configuration space, resources, reset and SR-IOV have files of their own.
 *
 * After drivers/pci/pci-sysfs.c and drivers/base/core.c (device_add_attrs).
 */
import { Errno } from '../../base/errno.ts';
import { functionOf } from '../../machine/pci/address.ts';
import { EXT_SERIAL_NUMBER } from '../../machine/pci/capabilities.ts';
import { REGISTER } from '../../machine/pci/config-space.ts';
import { tryResetBus } from '../../machine/pci/reset.ts';
import { currentSpeed, currentWidth, maximumSpeed, maximumWidth } from '../../machine/pci/link.ts';
import { disableFunction, enableFunction, powerState, type PciFunction } from '../pci-function.ts';
import { portServices } from '../port-services.ts';
import { messageKind } from '../vectors.ts';
import { configAttribute } from './sysfs-config.ts';
import {
  emitFunction,
  functionKeys,
  functionsBelow,
  modalias,
  type SysfsContext,
} from './context.ts';
import { signed, unsignedOrInvalid } from './parse.ts';
import { classBusPath, devicePath, driverPath, GROUPS, VIRTUAL } from './paths.ts';
import { cpuList, cpuMask } from './cpus.ts';
import { busClassDirectory } from './sysfs-bus-class.ts';
import { RTC_NAME, rtcDirectory } from './sysfs-rtc.ts';
import { resetAttributes } from './sysfs-reset.ts';
import { resourceAttributes } from './sysfs-resources.ts';
import { sriovEntries } from './sysfs-sriov.ts';
import { vfioDeviceDirectory } from './sysfs-vfio.ts';
import {
  atOnce,
  Directory,
  fixed,
  linkTo,
  readable,
  writable,
  type Attribute,
  type Named,
} from './tree.ts';
import { ueventAttribute } from './uevent-attribute.ts';

const CLASS_VGA = 0x0300;

export function functionDirectory(context: SysfsContext, known: PciFunction): Directory {
  const { pci } = known;
  const list = (): Named[] => [
    ...Object.entries(attributesOf(context, known)),
    ...linksOf(context, known),
    ...boundEntries(context, known),
    ...functionsBelow(context, pci).flatMap((child): Named[] => {
      const below = context.system.function(child.name);
      return below === undefined ? [] : [[child.name, functionDirectory(context, below)]];
    }),
  ];
  return new Directory({
    list,
    find: (name) => {
      const below = context.system.function(name);
      if (below !== undefined) {
        return functionsBelow(context, pci).includes(below.pci)
          ? functionDirectory(context, below)
          : undefined;
      }
      return attributesOf(context, known)[name] ?? list().find(([each]) => each === name)?.[1];
    },
  });
}

type Attributes = Readonly<Record<string, Attribute>>;

const ATTRIBUTES = new WeakMap<PciFunction, Attributes>();

/** The ones that a function has from the beginning to the end. */
function attributesOf(context: SysfsContext, known: PciFunction): Attributes {
  const kept = ATTRIBUTES.get(known);
  if (kept !== undefined) return kept;
  const made: Attributes = {
    ...identityAttributes(known),
    ...stateAttributes(context, known),
    ...settingAttributes(known),
    ...controlAttributes(context, known),
    ...(known.pci.isExpress ? linkAttributes(known) : {}),
    ...(known.pci.isBridge ? bridgeAttributes(context, known) : {}),
    ...(known.resettable ? resetAttributes(known, context.system) : {}),
    ...rareAttributes(context, known),
    ...resourceAttributes(known),
    config: configAttribute(known),
    uevent: ueventAttribute(
      (action, synthetic) => {
        emitFunction(context, action, known, synthetic);
      },
      () => functionKeys(known),
    ),
  };
  ATTRIBUTES.set(known, made);
  return made;
}

const hex = (value: number, digits: number): string =>
  `0x${value.toString(16).padStart(digits, '0')}\n`;

function identityAttributes({ pci, device }: PciFunction): Attributes {
  const { identity } = device;
  return {
    vendor: readable(() => hex(identity.vendor, 4)),
    device: readable(() => hex(identity.device, 4)),
    subsystem_vendor: readable(() => hex(identity.subvendor, 4)),
    subsystem_device: readable(() => hex(identity.subdevice, 4)),
    revision: readable(() => hex(pci.config.u8(REGISTER.REVISION), 2)),
    class: readable(() => hex(identity.class, 6)),
    modalias: readable(() => `${modalias(identity)}\n`),
  };
}

function stateAttributes({ cpus }: SysfsContext, known: PciFunction): Attributes {
  const { pci } = known;
  return {
    irq: readable(() => `${interruptOf(known)}\n`),
    power_state: readable(() => `${powerState(known)}\n`),
    local_cpus: readable(() => `${cpuMask(cpus)}\n`),
    local_cpulist: readable(() => `${cpuList(cpus)}\n`),
    dma_mask_bits: readable(() => `${known.dmaMaskBits}\n`),
    consistent_dma_mask_bits: readable(() => `${known.dmaMaskBits}\n`),
    ari_enabled: readable(() => `${Number(pci.bus.ari)}\n`),
  };
}

/** What firmware wrote into the register, or what the kernel made of it; MSI has the place of the first vector. */
function interruptOf({ pci, vectors }: PciFunction): number {
  const [first] = vectors;
  if (first !== undefined && messageKind(pci) === 'msi') return first;
  if (pci.facts.irq !== undefined) return pci.facts.irq;
  return pci.config.u8(REGISTER.INTERRUPT_PIN) === 0 ? 0 : pci.config.u8(REGISTER.INTERRUPT_LINE);
}

function settingAttributes(known: PciFunction): Attributes {
  return {
    broken_parity_status: writable(
      atOnce((text) => {
        known.brokenParity = unsignedOrInvalid(text) !== 0n;
      }),
      { show: () => `${Number(known.brokenParity)}\n` },
    ),
    msi_bus: writable(
      atOnce((text) => {
        known.msiAllowed = unsignedOrInvalid(text) !== 0n;
      }),
      { show: () => `${Number(known.msiAllowed)}\n` },
    ),
    d3cold_allowed: writable(
      atOnce((text) => {
        known.d3coldAllowed = unsignedOrInvalid(text) !== 0n;
      }),
      { show: () => `${Number(known.d3coldAllowed)}\n` },
    ),
    numa_node: writable(
      atOnce((text) => {
        const node = signed(text);
        // One node, number 0, is what every machine has.
        if (node < -1n || node > 0n) throw new Errno('EINVAL', `NUMA node ${node} is not online`);
        known.numaNode = Number(node);
      }),
      { show: () => `${known.numaNode}\n` },
    ),
  };
}

function controlAttributes(context: SysfsContext, known: PciFunction): Attributes {
  const { system } = context;
  const { pci, device } = known;
  const override = writable(
    atOnce((text) => {
      system.core.setOverride(device, text);
    }),
    { show: () => `${device.override ?? '(null)'}\n` },
  );
  const enable = writable(
    atOnce((text) => {
      storeEnable(context, known, unsignedOrInvalid(text) !== 0n);
    }),
    { show: () => `${known.managed.enableCount}\n` },
  );
  if (pci.isVirtualFunction) return { driver_override: override, enable };
  return {
    driver_override: override,
    enable,
    remove: writable(
      (text, done) => {
        if (askedFor(text, done)) system.remove(pci.name, done);
      },
      { mode: 0o220 },
    ),
    rescan: writable(
      atOnce((text) => {
        if (unsignedOrInvalid(text) !== 0n) system.rescan();
      }),
    ),
  };
}

/** @returns whether there is something to do; otherwise `done` was called */
function askedFor(text: string, done: (error?: Errno) => void): boolean {
  let asked = false;
  atOnce(() => {
    asked = unsignedOrInvalid(text) !== 0n;
  })(text, (error) => {
    if (error !== undefined || !asked) done(error);
  });
  return asked;
}

function storeEnable({ system }: SysfsContext, known: PciFunction, wanted: boolean): void {
  const { pci, device } = known;
  if (device.driver !== undefined) {
    throw new Errno('EBUSY', `${pci.name} is bound to ${device.driver.name}, which enables it`);
  }
  if (wanted) enableFunction(known, (each) => system.bridgeOf(each));
  else if (known.managed.enableCount > 0) disableFunction(known);
  else throw new Errno('EIO', `${pci.name} is not enabled`);
}

function linkAttributes({ pci }: PciFunction): Attributes {
  return {
    current_link_speed: readable(() => `${currentSpeed(pci)}\n`),
    current_link_width: readable(() => `${currentWidth(pci)}\n`),
    max_link_speed: readable(() => `${maximumSpeed(pci)}\n`),
    max_link_width: readable(() => `${maximumWidth(pci)}\n`),
  };
}

function bridgeAttributes({ system }: SysfsContext, { pci }: PciFunction): Attributes {
  return {
    secondary_bus_number: readable(() => `${pci.config.u8(REGISTER.SECONDARY_BUS)}\n`),
    subordinate_bus_number: readable(() => `${pci.config.u8(REGISTER.SUBORDINATE_BUS)}\n`),
    reset_subordinate: writable(
      atOnce((text) => {
        const { subordinate } = pci;
        if (unsignedOrInvalid(text) === 0n || subordinate === undefined) return;
        tryResetBus(subordinate, system);
      }),
    ),
  };
}

function rareAttributes({ system }: SysfsContext, { pci, device }: PciFunction): Attributes {
  const vga = device.identity.class >> 8 === CLASS_VGA;
  const serial = pci.config.findExtendedCapability(EXT_SERIAL_NUMBER);
  return {
    ...(vga ? { boot_vga: readable(() => `${Number(bootVga(system) === pci.name)}\n`) } : {}),
    ...(serial === 0 ? {} : { serial_number: readable(() => serialNumber(pci, serial), 0o400) }),
  };
}

/** The first display that the firmware could use is taken for the one it did use. */
function bootVga(system: SysfsContext['system']): string | undefined {
  for (const { pci, device } of system.functions) {
    if (device.identity.class >> 8 === CLASS_VGA) return pci.name;
  }
  return undefined;
}

function serialNumber({ config }: PciFunction['pci'], offset: number): string {
  const low = config.u32(offset + 4);
  const high = config.u32(offset + 8);
  const digits = `${high.toString(16).padStart(8, '0')}${low.toString(16).padStart(8, '0')}`;
  return `${(digits.match(/../g) ?? []).join('-')}\n`;
}

function linksOf({ system }: SysfsContext, { pci, device }: PciFunction): Named[] {
  const path = devicePath(pci);
  const iommu = system.machine.iommuOf(pci);
  const { group } = device.iommu;
  const links: Named[] = [['subsystem', linkTo(path, '/sys/bus/pci')]];
  if (group !== undefined) {
    links.push(['iommu_group', linkTo(path, `${GROUPS}/${group.id}`)]);
    if (iommu !== undefined) links.push(['iommu', linkTo(path, `${VIRTUAL}/iommu/${iommu.name}`)]);
  }
  if (device.bound && device.driver !== undefined) {
    links.push(['driver', linkTo(path, driverPath(device.driver.name))]);
  }
  return links;
}

/** What comes with a driver, with virtual functions, or with a bus behind. */
function boundEntries(context: SysfsContext, known: PciFunction): Named[] {
  const { pci, device, vectors } = known;
  const entries: Named[] = [...sriovEntries(context, known)];
  const { subordinate } = pci;
  if (subordinate !== undefined) {
    const path = classBusPath(subordinate);
    entries.push([
      'pci_bus',
      fixed({ [subordinate.name]: busClassDirectory(context, subordinate, path) }),
    ]);
  }
  if (device.bound && device.driver?.name === 'pcieport') entries.push(...serviceEntries(known));
  if (vectors.length > 0) entries.push(['msi_irqs', vectorDirectory(known)]);
  const vfio = context.system.vfio.deviceOf(device.iommu);
  if (vfio !== undefined) entries.push(...vfioDeviceDirectory(context, vfio, pci));
  if (isFirstIsaBridge(context, known)) {
    entries.push([RTC_NAME, rtcDirectory(devicePath(pci), context.uevents)]);
  }
  // fw_devlink: what firmware names waits for its suppliers until a driver is bound; firmware names the first function of a slot.
  if (!known.everBound && functionOf(pci.devfn) === 0 && !pci.isVirtualFunction) {
    entries.push(['waiting_for_supplier', readable(() => '0\n')]);
  }
  return entries;
}

const CLASS_ISA_BRIDGE = 0x0601;

function isFirstIsaBridge({ system }: SysfsContext, known: PciFunction): boolean {
  if (known.device.identity.class >> 8 !== CLASS_ISA_BRIDGE) return false;
  for (const each of system.functions) {
    if (each.device.identity.class >> 8 === CLASS_ISA_BRIDGE) return each === known;
  }
  return false;
}

function vectorDirectory({ pci, vectors }: PciFunction): Directory {
  const kind = messageKind(pci) ?? 'msi';
  return fixed(
    Object.fromEntries(vectors.map((number) => [String(number), readable(() => `${kind}\n`)])),
  );
}

function serviceEntries({ pci }: PciFunction): Named[] {
  return portServices(pci).map(({ name, driver }) => {
    const path = `${devicePath(pci)}/${name}`;
    return [
      name,
      fixed({
        driver: linkTo(path, `/sys/bus/pci_express/drivers/${driver}`),
        subsystem: linkTo(path, '/sys/bus/pci_express'),
        uevent: readable(() => `DRIVER=${driver}\n`, 0o644),
      }),
    ] as const;
  });
}
