/**
 * How an ioctl number is put together: direction, size of the argument, type and number within the type.
 * After include/uapi/asm-generic/ioctl.h (x86 and arm64 use it as it is).
 */
const DIRECTION = { none: 0, write: 1, read: 2 } as const;

function encode(direction: number, type: string, number: number, size: number): number {
  // Multiplied, not shifted: direction 2 would make a shifted number negative.
  return direction * 2 ** 30 + size * 2 ** 16 + type.charCodeAt(0) * 2 ** 8 + number;
}

/** `_IO(type, number)`: says nothing about the argument. All of iommufd and VFIO are of this kind. */
export function _IO(type: string, number: number): number {
  return encode(DIRECTION.none, type, number, 0);
}

/** `_IOR(type, number, struct)`: the program reads `size` bytes back. */
export function _IOR(type: string, number: number, size: number): number {
  return encode(DIRECTION.read, type, number, size);
}

/** `_IOW(type, number, struct)`: the program hands `size` bytes in. */
export function _IOW(type: string, number: number, size: number): number {
  return encode(DIRECTION.write, type, number, size);
}

/** `_IOWR(type, number, struct)`: both ways. */
export function _IOWR(type: string, number: number, size: number): number {
  return encode(DIRECTION.read | DIRECTION.write, type, number, size);
}
