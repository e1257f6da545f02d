/**
 * The ioctls of VFIO as data: which kind of file takes them, number, what they are given, and the last field that a client must
 * supply. The engine adds what each one does (src/vfio, and src/iommufd/vfio-compat.ts for /dev/iommu as a container); how far
 * each goes is in support.ts. All that include/uapi/linux/vfio.h of Linux 7.3 has are here.
 *
 * Numbers repeat from kind to kind (0x70 is IOMMU_GET_INFO on a container and GET_PCI_HOT_RESET_INFO on a device), so a row is
 * found by both. After the sizes that drivers/vfio checks.
 */
import { struct, u32, u64, type Fields, type Struct } from '../base/struct.ts';
import type { Task } from '../base/task.ts';
import type { IoctlSpec } from './ioctls.ts';
import { fd, oneOf, text } from './meaning.ts';
import * as other from './vfio-other.ts';
import * as uapi from './vfio.ts';

/** An ioctl as a client made it. */
export type VfioCall = {
  readonly task: Task;
  readonly command: number;
  /** as it was passed: an address, a value, or nothing that counts */
  readonly argument: bigint;
};

/** `spapr`: what a container takes on POWER. `migration`: the data file of VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE. */
export type VfioFileKind = 'container' | 'group' | 'device' | 'migration' | 'spapr';

/** How the argument of a call reaches the kernel: as an address of a struct, as the value itself, or not at all. */
export type ArgumentKind = 'address' | 'value' | 'none';

export type VfioIoctlSpec<F extends Fields = Fields> = IoctlSpec<F> & {
  readonly file: VfioFileKind;
  /** the last field that a client must supply */
  readonly last: keyof F & string;
  readonly argument: ArgumentKind;
};

// Arguments that are no struct in C: shaped as one, so that traces and callers by name have a field to speak of.
const nothing = struct('no argument', {});
const extension = struct('extension', {
  extension: oneOf(u64, 'VFIO_', {
    VFIO_TYPE1_IOMMU: uapi.VFIO_TYPE1_IOMMU,
    VFIO_SPAPR_TCE_IOMMU: uapi.VFIO_SPAPR_TCE_IOMMU,
    VFIO_TYPE1v2_IOMMU: uapi.VFIO_TYPE1v2_IOMMU,
    VFIO_DMA_CC_IOMMU: uapi.VFIO_DMA_CC_IOMMU,
    VFIO_EEH: uapi.VFIO_EEH,
    __VFIO_RESERVED_TYPE1_NESTING_IOMMU: uapi.__VFIO_RESERVED_TYPE1_NESTING_IOMMU,
    VFIO_SPAPR_TCE_v2_IOMMU: uapi.VFIO_SPAPR_TCE_v2_IOMMU,
    VFIO_NOIOMMU_IOMMU: uapi.VFIO_NOIOMMU_IOMMU,
    VFIO_UNMAP_ALL: uapi.VFIO_UNMAP_ALL,
    VFIO_UPDATE_VADDR: uapi.VFIO_UPDATE_VADDR,
  }),
});
const container = struct('file of a container', { container: fd });
/** Longest name that is kept for a trace: "0000:01:00.0 vf_token=" and a UUID fit. */
const deviceName = struct('name of a device', { name: text(96) });
const dmabuf = struct('dma-buf id', { dmabuf_id: u32 });

const ABI = { ...uapi, ...other };
type NumberName = {
  [K in keyof typeof ABI]: (typeof ABI)[K] extends number ? K : never;
}[keyof typeof ABI];

/** A call whose argument is the address of a struct. */
function spec<F extends Fields>(
  file: VfioFileKind,
  name: NumberName,
  given: Struct<F>,
  last: keyof F & string,
): VfioIoctlSpec<F> {
  const minSize = given.endOf(last);
  return { file, name, number: ABI[name], struct: given, last, minSize, argument: 'address' };
}

/** A call whose argument is a number. */
function plain<F extends Fields>(
  file: VfioFileKind,
  name: NumberName,
  given: Struct<F>,
  last: keyof F & string,
): VfioIoctlSpec<F> {
  return { ...spec(file, name, given, last), argument: 'value' };
}

/** A call without argument. */
function bare(file: VfioFileKind, name: NumberName): VfioIoctlSpec<typeof nothing.fields> {
  const last = '' as never;
  return { file, name, number: ABI[name], struct: nothing, last, minSize: 0, argument: 'none' };
}

/** Every ioctl of VFIO by its C name. */
export const VFIO_IOCTLS = {
  VFIO_GET_API_VERSION: bare('container', 'VFIO_GET_API_VERSION'),
  VFIO_CHECK_EXTENSION: plain('container', 'VFIO_CHECK_EXTENSION', extension, 'extension'),
  VFIO_SET_IOMMU: plain('container', 'VFIO_SET_IOMMU', extension, 'extension'),
  VFIO_GROUP_GET_STATUS: spec('group', 'VFIO_GROUP_GET_STATUS', uapi.vfio_group_status, 'flags'),
  VFIO_GROUP_SET_CONTAINER: spec('group', 'VFIO_GROUP_SET_CONTAINER', container, 'container'),
  VFIO_GROUP_UNSET_CONTAINER: bare('group', 'VFIO_GROUP_UNSET_CONTAINER'),
  VFIO_GROUP_GET_DEVICE_FD: spec('group', 'VFIO_GROUP_GET_DEVICE_FD', deviceName, 'name'),
  VFIO_DEVICE_GET_INFO: spec('device', 'VFIO_DEVICE_GET_INFO', uapi.vfio_device_info, 'num_irqs'),
  VFIO_DEVICE_GET_REGION_INFO: spec(
    'device',
    'VFIO_DEVICE_GET_REGION_INFO',
    uapi.vfio_region_info,
    'offset',
  ),
  VFIO_DEVICE_GET_IRQ_INFO: spec('device', 'VFIO_DEVICE_GET_IRQ_INFO', uapi.vfio_irq_info, 'count'),
  VFIO_DEVICE_SET_IRQS: spec('device', 'VFIO_DEVICE_SET_IRQS', uapi.vfio_irq_set, 'count'),
  VFIO_DEVICE_RESET: bare('device', 'VFIO_DEVICE_RESET'),
  VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: spec(
    'device',
    'VFIO_DEVICE_GET_PCI_HOT_RESET_INFO',
    uapi.vfio_pci_hot_reset_info,
    'count',
  ),
  VFIO_DEVICE_PCI_HOT_RESET: spec(
    'device',
    'VFIO_DEVICE_PCI_HOT_RESET',
    uapi.vfio_pci_hot_reset,
    'count',
  ),
  VFIO_DEVICE_QUERY_GFX_PLANE: spec(
    'device',
    'VFIO_DEVICE_QUERY_GFX_PLANE',
    other.vfio_device_gfx_plane_info,
    'reserved',
  ),
  VFIO_DEVICE_GET_GFX_DMABUF: spec('device', 'VFIO_DEVICE_GET_GFX_DMABUF', dmabuf, 'dmabuf_id'),
  VFIO_DEVICE_IOEVENTFD: spec('device', 'VFIO_DEVICE_IOEVENTFD', uapi.vfio_device_ioeventfd, 'fd'),
  VFIO_DEVICE_FEATURE: spec('device', 'VFIO_DEVICE_FEATURE', uapi.vfio_device_feature, 'flags'),
  VFIO_DEVICE_BIND_IOMMUFD: spec(
    'device',
    'VFIO_DEVICE_BIND_IOMMUFD',
    uapi.vfio_device_bind_iommufd,
    'out_devid',
  ),
  VFIO_DEVICE_ATTACH_IOMMUFD_PT: spec(
    'device',
    'VFIO_DEVICE_ATTACH_IOMMUFD_PT',
    uapi.vfio_device_attach_iommufd_pt,
    'pt_id',
  ),
  VFIO_DEVICE_DETACH_IOMMUFD_PT: spec(
    'device',
    'VFIO_DEVICE_DETACH_IOMMUFD_PT',
    uapi.vfio_device_detach_iommufd_pt,
    'flags',
  ),
  VFIO_MIG_GET_PRECOPY_INFO: spec(
    'migration',
    'VFIO_MIG_GET_PRECOPY_INFO',
    uapi.vfio_precopy_info,
    'dirty_bytes',
  ),
  VFIO_IOMMU_GET_INFO: spec(
    'container',
    'VFIO_IOMMU_GET_INFO',
    uapi.vfio_iommu_type1_info,
    'iova_pgsizes',
  ),
  VFIO_IOMMU_MAP_DMA: spec(
    'container',
    'VFIO_IOMMU_MAP_DMA',
    uapi.vfio_iommu_type1_dma_map,
    'size',
  ),
  VFIO_IOMMU_UNMAP_DMA: spec(
    'container',
    'VFIO_IOMMU_UNMAP_DMA',
    uapi.vfio_iommu_type1_dma_unmap,
    'size',
  ),
  VFIO_IOMMU_DIRTY_PAGES: spec(
    'container',
    'VFIO_IOMMU_DIRTY_PAGES',
    uapi.vfio_iommu_type1_dirty_bitmap,
    'flags',
  ),
  VFIO_IOMMU_ENABLE: bare('spapr', 'VFIO_IOMMU_ENABLE'),
  VFIO_IOMMU_DISABLE: bare('spapr', 'VFIO_IOMMU_DISABLE'),
  VFIO_IOMMU_SPAPR_TCE_GET_INFO: spec(
    'spapr',
    'VFIO_IOMMU_SPAPR_TCE_GET_INFO',
    other.vfio_iommu_spapr_tce_info,
    'dma32_window_size',
  ),
  VFIO_EEH_PE_OP: spec('spapr', 'VFIO_EEH_PE_OP', other.vfio_eeh_pe_op, 'op'),
  VFIO_IOMMU_SPAPR_REGISTER_MEMORY: spec(
    'spapr',
    'VFIO_IOMMU_SPAPR_REGISTER_MEMORY',
    other.vfio_iommu_spapr_register_memory,
    'size',
  ),
  VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY: spec(
    'spapr',
    'VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY',
    other.vfio_iommu_spapr_register_memory,
    'size',
  ),
  VFIO_IOMMU_SPAPR_TCE_CREATE: spec(
    'spapr',
    'VFIO_IOMMU_SPAPR_TCE_CREATE',
    other.vfio_iommu_spapr_tce_create,
    'start_addr',
  ),
  VFIO_IOMMU_SPAPR_TCE_REMOVE: spec(
    'spapr',
    'VFIO_IOMMU_SPAPR_TCE_REMOVE',
    other.vfio_iommu_spapr_tce_remove,
    'start_addr',
  ),
} as const;

const BY_FILE = new Map<VfioFileKind, Map<number, VfioIoctlSpec>>();
for (const row of Object.values(VFIO_IOCTLS)) {
  const rows = BY_FILE.get(row.file) ?? new Map<number, VfioIoctlSpec>();
  BY_FILE.set(row.file, rows.set(row.number, row));
}

/** The ioctl that a number means on a kind of file; undefined for a number that VFIO does not have there. */
export function vfioIoctl(file: VfioFileKind, number: number): VfioIoctlSpec | undefined {
  const own = BY_FILE.get(file)?.get(number);
  return own ?? (file === 'container' ? BY_FILE.get('spapr')?.get(number) : undefined);
}

/** Names a call for the trace, with its argument where that is a plain value. */
export function nameCall(file: VfioFileKind, { task, command, argument }: VfioCall): void {
  const { record } = task;
  if (record === undefined) return;
  const spec = vfioIoctl(file, command);
  if (spec === undefined) return;
  record.call = spec.name;
  if (spec.argument !== 'value') return;
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, argument, true);
  record.struct = spec.struct;
  record.input = bytes.subarray(0, spec.struct.size);
}
