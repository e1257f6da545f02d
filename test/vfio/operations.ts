/** The operations of vfiofuzz by the first word of their lines. */
import * as access from './replay-access.ts';
import * as calls from './replay-calls.ts';
import * as opens from './replay-opens.ts';
import type { Operations } from './replay.ts';

export const VFIOFUZZ: Operations = {
  open: opens.open,
  open_group: opens.openGroup,
  set_container: opens.setContainer,
  set_iommu: opens.setIommu,
  get_device: opens.getDevice,
  open_cdev: opens.openCdev,
  early: opens.early,
  bind_iommufd: opens.bindIommufd,
  attach: opens.attach,
  dump: opens.dump,
  clear: opens.clear,
  close: opens.close,
  status: opens.status,
  unset_container: opens.unsetContainer,
  info: calls.info,
  region: calls.region,
  irq: calls.irq,
  set_irqs: calls.setIrqs,
  edu: calls.edu,
  signal: calls.signal,
  reset: calls.reset,
  hot_info: calls.hotInfo,
  hot_reset: calls.hotReset,
  feature: calls.feature,
  cfgr: access.configRead,
  cfgw: access.configWrite,
  read: access.readRegion,
  write: access.writeRegion,
  mmap: access.mmap,
  touch: access.touch,
  ioeventfd: access.ioeventfd,
  unknown: opens.unexpected,
  bind: opens.unexpected,
  detach: opens.unexpected,
  gfx: opens.unexpected,
  iommu_map: opens.unexpected,
};
