/**
 * `npm run linux-vm`: a program on a real Linux, to see what uiommu has to answer.
 *
 *   npm run linux-vm -- [--kernel bzImage] [--seconds LIMIT] [--qemu ARGUMENTS] [--file PATH=FILE]... PROGRAM [ARGUMENT...]
 *
 * Builds Debian's newest kernel source once (some minutes; kept in the cache folder), with iommufd, its mock driver, fault
 * injection and VFIO, on top of the smallest configuration (linux-vm.config). `--qemu` adds devices, `--file` a file or folder of
 * this computer under a path of the machine. PROGRAM, with the libraries that it names, is all there
 * is beside it, as root, under qemu's software emulation. What it printed goes to standard output; the seconds it took, boot
 * not counted, and the kernel's warnings to standard error. Exit status: the program's; 1 where this computer lacks a tool or
 * the machine stops too early; 2 for an argument that makes no sense.
 *
 *   npm --silent run linux-vm -- ~/.cache/uiommu/…/built/corners 1 60 250
 *   npm --silent run linux-vm -- --qemu='-machine q35,kernel-irqchip=split -device intel-iommu,intremap=on -device edu' ./probe
 */
import { existsSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { numberOption, parseOptions, refuse } from './arguments.ts';
import { kernelTree, Skipped } from './kernel-source.ts';
import { progress } from './progress.ts';
import { checkTools, kernelImage, QEMU, runGuest } from './vm.ts';

const SCRIPT = 'linux-vm';

// What stands behind PROGRAM is the program's own.
const argv = process.argv.slice(2);
const behind = argv.findIndex(
  (word, i) => !word.startsWith('--') && !/^--\w+$/.test(argv[i - 1] ?? ''),
);
const own = behind < 0 ? argv : argv.slice(0, behind);
const [program, ...args] = behind < 0 ? [] : argv.slice(behind);
const { values } = parseOptions(SCRIPT, {
  args: own,
  options: {
    kernel: { type: 'string' },
    seconds: { type: 'string', default: '300' },
    qemu: { type: 'string', default: '' },
    file: { type: 'string', multiple: true, default: [] },
  },
});
const limitSeconds = numberOption(SCRIPT, { name: 'seconds', text: values.seconds });
const line = progress();

/** An argument that names a file. */
function fileArgument(what: string, path: string | undefined): string {
  if (path === undefined)
    return refuse(SCRIPT, `${what} is missing; see the head of scripts/linux-vm.ts`);
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isFile() !== true) refuse(SCRIPT, `${what}: ${path} is not a file`);
  return resolve(path);
}

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  process.once(signal, () => {
    process.exit(status);
  });
}
/** PATH=FILE: the path in the machine and what is to be found there. */
function fileInMachine(text: string): readonly [string, string] {
  const [, at, from] = /^(\/[^=]*)=(.+)$/.exec(text) ?? [];
  if (at === undefined || from === undefined || !existsSync(from)) {
    return refuse(SCRIPT, `--file takes PATH=FILE, an absolute path and a file, not "${text}"`);
  }
  return [at, resolve(from)];
}

const path = fileArgument('PROGRAM', program);
const given = values.kernel === undefined ? undefined : fileArgument('--kernel', values.kernel);
try {
  checkTools([QEMU]);
  const tree = await kernelTree(line, false);
  const image = given ?? (await kernelImage(tree, line));
  const guest = {
    program: path,
    args,
    files: new Map(values.file.map(fileInMachine)),
    qemu: values.qemu.split(/\s+/).filter((word) => word !== ''),
    seconds: limitSeconds,
  };
  const { output, status } = await runGuest({ image, tree, line }, guest);
  process.stdout.write(output);
  process.exitCode = status;
} catch (error) {
  line.clear();
  if (!(error instanceof Skipped)) throw error;
  console.error(`${SCRIPT}: ${error.message}`);
  process.exitCode = 1;
}
