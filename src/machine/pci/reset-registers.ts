/** Registers of capabilities that decide how a function is reset. PCI Express Base 6.0, sections 7.5.2, 7.5.3.3 and 7.9.17. */
export const CAP_PM = 0x01;
export const PM_CONTROL = 4;
export const PM_NO_SOFT_RESET = 0x08;
export const CAP_AF = 0x13;
export const AF_CAPABILITIES = 3;
export const AF_TP = 0x01;
export const AF_FLR = 0x02;
export const EXPRESS_DEVICE_CAPABILITIES = 0x04;
export const FUNCTION_LEVEL_RESET = 0x1000_0000;
