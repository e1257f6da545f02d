/**
 * What include/uapi/linux/vfio.h of Linux 7.3 declares for machines that uiommu does not model: the IOMMU of POWER (SPAPR TCE),
 * its error handling (EEH), and planes of graphics devices. Layouts and numbers, so that traces show such calls by name and
 * argument; they are refused as Linux refuses them elsewhere.
 */
import { _IO } from '../base/ioctl-number.ts';
import { struct, u32, u64, union, type Static } from '../base/struct.ts';
import { flags, hex, iova, oneOf, pointer } from './meaning.ts';
import { VFIO_BASE, VFIO_TYPE } from './vfio.ts';

export const VFIO_GFX_PLANE_TYPE_PROBE = 1 << 0;
export const VFIO_GFX_PLANE_TYPE_DMABUF = 1 << 1;
export const VFIO_GFX_PLANE_TYPE_REGION = 1 << 2;

export const vfio_device_gfx_plane_info = struct('vfio_device_gfx_plane_info', {
  argsz: u32,
  flags: flags(u32, 'VFIO_GFX_PLANE_TYPE_', {
    VFIO_GFX_PLANE_TYPE_PROBE,
    VFIO_GFX_PLANE_TYPE_DMABUF,
    VFIO_GFX_PLANE_TYPE_REGION,
  }),
  drm_plane_type: u32,
  drm_format: hex(u32),
  drm_format_mod: hex(u64),
  width: u32,
  height: u32,
  stride: u32,
  size: u32,
  x_pos: u32,
  y_pos: u32,
  x_hot: u32,
  y_hot: u32,
  id: union({ region_index: u32, dmabuf_id: u32 }),
  reserved: u32,
});
export type vfio_device_gfx_plane_info = Static<typeof vfio_device_gfx_plane_info>;
export const VFIO_DEVICE_QUERY_GFX_PLANE = _IO(VFIO_TYPE, VFIO_BASE + 14);
export const VFIO_DEVICE_GET_GFX_DMABUF = _IO(VFIO_TYPE, VFIO_BASE + 15);

export const VFIO_IOMMU_ENABLE = _IO(VFIO_TYPE, VFIO_BASE + 15);
export const VFIO_IOMMU_DISABLE = _IO(VFIO_TYPE, VFIO_BASE + 16);

export const vfio_iommu_spapr_tce_ddw_info = struct('vfio_iommu_spapr_tce_ddw_info', {
  pgsizes: hex(u64),
  max_dynamic_windows_supported: u32,
  levels: u32,
});
export type vfio_iommu_spapr_tce_ddw_info = Static<typeof vfio_iommu_spapr_tce_ddw_info>;

export const VFIO_IOMMU_SPAPR_INFO_DDW = 1 << 0;

export const vfio_iommu_spapr_tce_info = struct('vfio_iommu_spapr_tce_info', {
  argsz: u32,
  flags: flags(u32, 'VFIO_IOMMU_SPAPR_INFO_', { VFIO_IOMMU_SPAPR_INFO_DDW }),
  dma32_window_start: hex(u32),
  dma32_window_size: hex(u32),
  ddw: vfio_iommu_spapr_tce_ddw_info,
});
export type vfio_iommu_spapr_tce_info = Static<typeof vfio_iommu_spapr_tce_info>;
export const VFIO_IOMMU_SPAPR_TCE_GET_INFO = _IO(VFIO_TYPE, VFIO_BASE + 12);

export const vfio_eeh_pe_err = struct('vfio_eeh_pe_err', {
  type: u32,
  func: u32,
  addr: hex(u64),
  mask: hex(u64),
});
export type vfio_eeh_pe_err = Static<typeof vfio_eeh_pe_err>;

export const VFIO_EEH_PE_DISABLE = 0;
export const VFIO_EEH_PE_ENABLE = 1;
export const VFIO_EEH_PE_UNFREEZE_IO = 2;
export const VFIO_EEH_PE_UNFREEZE_DMA = 3;
export const VFIO_EEH_PE_GET_STATE = 4;
export const VFIO_EEH_PE_RESET_DEACTIVATE = 5;
export const VFIO_EEH_PE_RESET_HOT = 6;
export const VFIO_EEH_PE_RESET_FUNDAMENTAL = 7;
export const VFIO_EEH_PE_CONFIGURE = 8;
export const VFIO_EEH_PE_INJECT_ERR = 9;

export const vfio_eeh_pe_op = struct('vfio_eeh_pe_op', {
  argsz: u32,
  flags: hex(u32),
  op: oneOf(u32, 'VFIO_EEH_PE_', {
    VFIO_EEH_PE_DISABLE,
    VFIO_EEH_PE_ENABLE,
    VFIO_EEH_PE_UNFREEZE_IO,
    VFIO_EEH_PE_UNFREEZE_DMA,
    VFIO_EEH_PE_GET_STATE,
    VFIO_EEH_PE_RESET_DEACTIVATE,
    VFIO_EEH_PE_RESET_HOT,
    VFIO_EEH_PE_RESET_FUNDAMENTAL,
    VFIO_EEH_PE_CONFIGURE,
    VFIO_EEH_PE_INJECT_ERR,
  }),
  error: union({ err: vfio_eeh_pe_err }),
});
export type vfio_eeh_pe_op = Static<typeof vfio_eeh_pe_op>;
export const VFIO_EEH_PE_OP = _IO(VFIO_TYPE, VFIO_BASE + 21);

export const vfio_iommu_spapr_register_memory = struct('vfio_iommu_spapr_register_memory', {
  argsz: u32,
  flags: hex(u32),
  vaddr: pointer,
  size: iova,
});
export type vfio_iommu_spapr_register_memory = Static<typeof vfio_iommu_spapr_register_memory>;
export const VFIO_IOMMU_SPAPR_REGISTER_MEMORY = _IO(VFIO_TYPE, VFIO_BASE + 17);
export const VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY = _IO(VFIO_TYPE, VFIO_BASE + 18);

export const vfio_iommu_spapr_tce_create = struct('vfio_iommu_spapr_tce_create', {
  argsz: u32,
  flags: hex(u32),
  page_shift: u32,
  __resv1: u32,
  window_size: iova,
  levels: u32,
  __resv2: u32,
  start_addr: iova,
});
export type vfio_iommu_spapr_tce_create = Static<typeof vfio_iommu_spapr_tce_create>;
export const VFIO_IOMMU_SPAPR_TCE_CREATE = _IO(VFIO_TYPE, VFIO_BASE + 19);

export const vfio_iommu_spapr_tce_remove = struct('vfio_iommu_spapr_tce_remove', {
  argsz: u32,
  flags: hex(u32),
  start_addr: iova,
});
export type vfio_iommu_spapr_tce_remove = Static<typeof vfio_iommu_spapr_tce_remove>;
export const VFIO_IOMMU_SPAPR_TCE_REMOVE = _IO(VFIO_TYPE, VFIO_BASE + 20);
