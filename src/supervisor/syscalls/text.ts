/** Arguments of calls as people read them. */
import { AT_FDCWD, O_ACCMODE } from '../../os/numbers.ts';

const ACCESS = ['O_RDONLY', 'O_WRONLY', 'O_RDWR', 'O_ACCMODE'];
// include/uapi/asm-generic/fcntl.h; octal as there
const FLAGS: readonly (readonly [number, string])[] = [
  [0o100, 'O_CREAT'],
  [0o200, 'O_EXCL'],
  [0o400, 'O_NOCTTY'],
  [0o1000, 'O_TRUNC'],
  [0o2000, 'O_APPEND'],
  [0o4000, 'O_NONBLOCK'],
  [0o200000, 'O_DIRECTORY'],
  [0o400000, 'O_NOFOLLOW'],
  [0o2000000, 'O_CLOEXEC'],
  [0o10000000, 'O_PATH'],
];

export function flagText(flags: number): string {
  const names = [ACCESS[flags & O_ACCMODE] ?? ''];
  let rest = flags & ~O_ACCMODE;
  for (const [bit, name] of FLAGS) {
    if ((rest & bit) === 0) continue;
    names.push(name);
    rest &= ~bit;
  }
  if (rest !== 0) names.push(`0${rest.toString(8)}`);
  return names.join('|');
}

/** Path and, for the "at" calls, the directory it starts from. */
export function pathText(plain: boolean, directory: number, path: string): string[] {
  const text = JSON.stringify(path);
  if (plain) return [text];
  return [directory === AT_FDCWD ? 'AT_FDCWD' : String(directory), text];
}
