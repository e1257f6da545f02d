/** `-m FILE` and `--host`: the machine that a command is about, whatever it comes as. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { InputError } from '../base/input-error.ts';
import { nearestWords } from '../base/nearest.ts';
import { addressesOf } from '../host/device-names.ts';
import { readHost } from '../host/read-host.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import { BUILTIN_MACHINES } from '../machine/builtin.ts';
import { isKernelLog, kernelLogAsFile } from '../machine/file/kernel-log.ts';
import { isLspci, lspciAsFile } from '../machine/file/lspci.ts';
import { parseDump } from '../machine/file/recording.ts';
import type { Machine } from '../machine/machine.ts';
import { formatAddress, parseAddress } from '../machine/pci/address.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { UsageError } from './command.ts';
import { whatIs } from './pci-words.ts';

const GZIP = [0x1f, 0x8b];

/**
 * Reads a machine file, a capture, a recording, what lspci prints, or a kernel log, also compressed; "-" is standard input; or a
 * built-in machine.
 */
export function machineFrom(file: string): Machine {
  const builtin = Object.hasOwn(BUILTIN_MACHINES, file) ? BUILTIN_MACHINES[file] : undefined;
  const text = builtin ?? readText(file);
  try {
    return machineOf(text, file);
  } catch (error) {
    if (error instanceof InputError) throw new UsageError(error.message);
    throw error;
  }
}

function machineOf(text: string, file: string): Machine {
  if (isRecording(text)) return parseDump(text, file);
  if (isLspci(text)) return loadMachine(lspciAsFile(text, file), file);
  if (isKernelLog(text)) return loadMachine(kernelLogAsFile(text, file), file);
  return loadMachine(text, file);
}

function readText(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file === '-' ? 0 : file);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const names = Object.keys(BUILTIN_MACHINES).join(', ');
    throw new UsageError(
      `there is no machine "${file}" to read (${why}); expected a file or one of ${names}`,
    );
  }
  const zipped = bytes[0] === GZIP[0] && bytes[1] === GZIP[1];
  if (!zipped) return bytes.toString();
  try {
    return gunzipSync(bytes).toString();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new UsageError(`${file} begins as a gzip file and cannot be unpacked (${why})`);
  }
}

function isRecording(text: string): boolean {
  return /^(?:#[^\n]*\n)*dev [0-9a-f]{4,8}:/.test(text);
}

/** The machine of the options; without `-m` it is this host. */
export function chosenMachine(options: {
  machine?: string | undefined;
  host?: boolean | undefined;
}): Machine {
  if (options.machine !== undefined && options.host === true) {
    throw new UsageError('--host and -m are two machines; expected one of them');
  }
  return options.machine === undefined ? readHost() : machineFrom(options.machine);
}

/**
 * The device that somebody means: an address, with or without domain, a slot with one function, or a label; on this host also a
 * network interface, a disk, or a device file.
 */
export function deviceNamed(machine: Machine, written: string): PciDevice {
  const found = candidates(machine, written);
  const [first] = found;
  if (first === undefined) throw new UsageError(unknownDevice(machine, written));
  if (found.length === 1) return first;
  const list = found.map((device) => `${device.name} (${whatIs(device)})`).join(', ');
  throw new UsageError(`"${written}" is several devices; expected one of ${list}`);
}

function candidates(machine: Machine, written: string): PciDevice[] {
  const known = [...machine.devices];
  const address = parseAddress(written);
  if (address !== undefined) return known.filter(({ name }) => name === formatAddress(address));
  const slot = SLOT.exec(written);
  if (slot !== null) {
    const first = parseAddress(`${written}.0`);
    const start = first && formatAddress(first).slice(0, -1);
    return known.filter(({ name }) => start !== undefined && name.startsWith(start));
  }
  const labelled = known.filter(({ facts }) => facts.label === written);
  if (labelled.length > 0 || machine.source !== 'host') return labelled;
  const addresses = addressesOf(written);
  return known.filter(({ name }) => addresses.includes(name));
}

// [DOMAIN:]BUS:SLOT without a function
const SLOT = /^(?:[0-9a-f]{4,8}:)?[0-9a-f]{1,2}:[01]?[0-9a-f]$/i;

function unknownDevice(machine: Machine, written: string): string {
  const known = [...machine.devices];
  const labels = known.map(({ facts }) => facts.label).filter((label) => label !== undefined);
  const address = parseAddress(written);
  const name = address === undefined ? written : formatAddress(address);
  const close = nearestWords(name, [...known.map((device) => device.name), ...labels], 3);
  const hint =
    close.length > 0
      ? `did you mean ${close.join(' or ')}?`
      : `uiommu ls shows the ${known.length} devices there are`;
  return `there is no device "${written}" in ${machine.name}; ${hint}`;
}
