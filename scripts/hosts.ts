/**
 * `npm run hosts`: is what uiommu says about a computer what its kernel does? Boots random machines with PCI devices on a real
 * Linux (vm.ts), runs uiommu in each, and compares with the kernel (hosts-guest.ts): groups, captures, and for every device
 * the answers of both interfaces of VFIO, before and after the commands that `why` prints.
 *
 *   npm run hosts -- [--seeds A-B] [--kernel bzImage]
 *
 * Closes with `hosts: I of M answers as Linux`. Skipped by name where qemu or a compiler is missing. Exit status: 0 if all agree or
 * it was skipped, 1 if not, 2 for wrong arguments.
 */
import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { numberOption, parseOptions, refuse } from './arguments.ts';
import { kernelTree, Skipped } from './kernel-source.ts';
import { progress } from './progress.ts';
import { ROOT } from './run-client.ts';
import { Random } from '../src/testing/random.ts';
import { checkTools, kernelImage, QEMU, runGuest } from './vm.ts';

const SCRIPT = 'hosts';
const MOST_CARDS = 5;

const { values } = parseOptions(SCRIPT, {
  options: {
    seeds: { type: 'string', default: '1-5' },
    kernel: { type: 'string' },
    seconds: { type: 'string', default: '900' },
  },
});
const seconds = numberOption(SCRIPT, { name: 'seconds', text: values.seconds });
const line = progress();

function seedsOf(text: string): number[] {
  const range = /^(\d+)(?:-(\d+))?$/.exec(text);
  if (range === null) return refuse(SCRIPT, `--seeds takes A or A-B, not "${text}"`);
  const [first, last] = [Number(range[1]), Number(range[2] ?? range[1])];
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

const CARDS = ['edu', 'e1000e', 'nvme,serial=SERIAL', 'virtio-net-pci', 'pci-testdev'];

/** Arguments of qemu for a machine with an Intel IOMMU and random cards: alone, behind a switch or bridge, as functions of one slot. */
function randomMachine(seed: number): string[] {
  const random = new Random(seed);
  const devices: string[] = [];
  const card = (bus: string, address: string): void => {
    const type = CARDS[random.below(CARDS.length)] ?? 'edu';
    devices.push(`${type.replace('SERIAL', `s${devices.length}`)},bus=${bus},addr=${address}`);
  };
  const cards = 2 + random.below(MOST_CARDS - 1);
  for (let i = 1; i <= cards; i++) {
    const port = `rp${i}`;
    const slot = `chassis=${i},slot=${i},addr=0x${(i + 1).toString(16)}`;
    const acs = random.below(3) === 0 ? ',disable-acs=on' : '';
    devices.push(`pcie-root-port,id=${port},bus=pcie.0,${slot}${acs}`);
    switch (random.below(5)) {
      case 0: // two functions of one card
        card(port, '0x0.0,multifunction=on');
        card(port, '0x0.1');
        break;
      case 1: // behind a bridge to conventional PCI
        devices.push(`pcie-pci-bridge,id=br${i},bus=${port}`);
        devices.push(`pci-testdev,bus=br${i},addr=0x1.0`, `edu,bus=br${i},addr=0x2.0`);
        break;
      case 2: // behind a switch
        devices.push(`x3130-upstream,id=up${i},bus=${port},addr=0x0.0`);
        for (const down of [0, 1]) {
          const id = `dn${i}${down}`;
          const place = `chassis=${10 * i + down},slot=${down},addr=0x${down}.0`;
          devices.push(`xio3130-downstream,id=${id},bus=up${i},${place}`);
          card(id, '0x0.0');
        }
        break;
      default:
        card(port, '0x0.0');
    }
  }
  if (random.below(2) === 0) card('pcie.0', '0x10.0');
  const machine = ['-machine', 'q35,kernel-irqchip=split', '-nodefaults', '-vga', 'none'];
  const iommu = [
    '-device',
    `intel-iommu,intremap=${random.below(4) === 0 ? 'off' : 'on'},device-iotlb=on`,
  ];
  return [...machine, ...iommu, ...devices.flatMap((device) => ['-device', device])];
}

/** Node, uiommu as the clone has it, and a shell for the commands that `why` prints. */
function guestFiles(): Map<string, string> {
  const native = join('node_modules', '@koromix', `koffi-linux-${process.arch}`);
  const packages = ['yaml', 'koffi'].map((name) => join('node_modules', name));
  // Of koffi's binaries the one for this computer's C library, which goes along.
  const binary = ['package.json', 'index.js', 'index.cjs', `linux_${process.arch}`];
  const own = [
    'package.json',
    'dist/src',
    'dist/scripts/hosts-guest.js',
    ...packages,
    ...binary.map((name) => join(native, name)),
  ];
  const files = own.filter((path) => existsSync(join(ROOT, path)));
  return new Map([
    ...files.map((path) => [`/uiommu/${path}`, join(ROOT, path)] as const),
    ['/bin/sh', realpathSync('/bin/sh')],
  ]);
}

type Line = { what: string; same: boolean; linux?: unknown; uiommu?: unknown; failed?: boolean };

function linesOf(output: string): Line[] {
  return output
    .split('\n')
    .filter((text) => text.startsWith('{"what"'))
    .map((text) => JSON.parse(text) as Line);
}

async function main(): Promise<number> {
  checkTools([QEMU]);
  const tree = await kernelTree(line, false);
  const image = values.kernel ?? (await kernelImage(tree, line));
  let same = 0;
  let all = 0;
  let broken = false;
  for (const seed of seedsOf(values.seeds)) {
    const guest = {
      program: process.execPath,
      args: ['/uiommu/dist/scripts/hosts-guest.js'],
      files: guestFiles(),
      qemu: randomMachine(seed),
      seconds,
    };
    const { output, status } = await runGuest({ image, tree, line }, guest);
    const lines = linesOf(output);
    const compared = lines.filter(({ failed }) => failed !== true);
    for (const { what, same: agrees, linux, uiommu } of compared) {
      if (agrees) continue;
      console.log(`machine ${seed}: ${what}\n  Linux   ${JSON.stringify(linux)}`);
      console.log(`  uiommu  ${JSON.stringify(uiommu)}`);
    }
    const agreeing = compared.filter((each) => each.same).length;
    console.log(`machine ${seed}: ${agreeing} of ${compared.length} answers as Linux`);
    if (status !== 0) {
      broken = true;
      console.log(
        `machine ${seed}: the comparison ended with status ${status}:\n${output.slice(-2000)}`,
      );
    }
    same += agreeing;
    all += compared.length;
  }
  console.log(`hosts: ${same} of ${all} answers as Linux`);
  return same === all && !broken ? 0 : 1;
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    process.exit(130);
  });
}
try {
  process.exitCode = await main();
} catch (error) {
  line.clear();
  if (!(error instanceof Skipped)) throw error;
  console.log(`SKIPPED hosts: ${error.message}`);
}
