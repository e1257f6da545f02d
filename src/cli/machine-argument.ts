/** `-m FILE` and `--host`: the machine that a command is about, whatever it comes as. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { InputError } from '../base/input-error.ts';
import { nearestWords } from '../base/nearest.ts';
import { readHost } from '../host/read-host.ts';
import { loadMachine } from '../iommu/load-machine.ts';
import { BUILTIN_MACHINES } from '../machine/builtin.ts';
import { parseDump } from '../machine/file/recording.ts';
import type { Machine } from '../machine/machine.ts';
import { formatAddress, parseAddress } from '../machine/pci/address.ts';
import type { PciDevice } from '../machine/pci/device.ts';
import { UsageError } from './command.ts';

const GZIP = [0x1f, 0x8b];

/** Reads a machine file, a capture or a recording, also compressed; "-" is standard input; or a built-in machine. */
export function machineFrom(file: string): Machine {
  const builtin = Object.hasOwn(BUILTIN_MACHINES, file) ? BUILTIN_MACHINES[file] : undefined;
  const text = builtin ?? readText(file);
  try {
    return isRecording(text) ? parseDump(text, file) : loadMachine(text, file);
  } catch (error) {
    if (error instanceof InputError) throw new UsageError(error.message);
    throw error;
  }
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

/** The device that somebody means: an address, with or without domain, or a label. */
export function deviceNamed(machine: Machine, written: string): PciDevice {
  const address = parseAddress(written);
  const name = address === undefined ? written : formatAddress(address);
  const found =
    machine.get(name) ?? [...machine.devices].find(({ facts }) => facts.label === written);
  if (found !== undefined) return found;
  const known = [...machine.devices];
  const labels = known.map(({ facts }) => facts.label).filter((label) => label !== undefined);
  const close = nearestWords(name, [...known.map((device) => device.name), ...labels], 3);
  const hint =
    close.length > 0
      ? `did you mean ${close.join(' or ')}?`
      : `uiommu ls shows the ${known.length} devices there are`;
  throw new UsageError(`there is no device "${written}" in ${machine.name}; ${hint}`);
}
