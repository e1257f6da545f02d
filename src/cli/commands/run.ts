/** `uiommu run`: an unmodified program on a machine made of software. */
import { closeSync, openSync } from 'node:fs';

import type { Kernel } from '../../kernel/kernel.ts';
import type { Launcher } from '../../supervisor/launch.ts';
import type { Observer, TimedCall, WaitingCall } from '../../supervisor/trace/observer.ts';
import type { RunOptions, RunResult } from '../../supervisor/supervisor.ts';
import { UsageError, type Command } from '../command.ts';
import { writeAll } from '../output.ts';

const HELP = `usage: uiommu run [OPTIONS] [--] PROGRAM [ARGUMENTS]

Runs an unmodified program on a simulated machine: it finds /dev/iommu there, whatever this computer has.
No root is needed, nothing is installed. Standard input, output and terminal are the program's own; the exit status is
the program's, 128+N if signal N killed it, 125 if uiommu itself failed. Waits for background processes.

  -m, --machine NAME   the machine: a machine file, a capture, or built in: selftest (default), pc.
                       Devices that the file gives to vfio-pci have their nodes below /dev/vfio.
      --profile NAME   rules of groups and ownership: linux (default), singleton, shared, subgroup, strict-acs
      --trace[=FILE]   print each call to the machine, decoded, with the reason of every refusal
      --json           the trace as JSON, one object a line
      --summary        print a summary at the end: refusals, leaks
      --check          check all invariants after each call (slow; finds bugs of uiommu)
      --as-root        run as root on the simulated machine (all capabilities, unlimited RLIMIT_MEMLOCK)

Traces go to standard error unless a FILE is given.

examples:
  uiommu run --trace -- ./my-vmm --device 0000:01:00.0
  uiommu run -m selftest --trace=calls.txt --summary -- ./iommufd
  uiommu run -m host.yaml --trace -- ./my-driver /dev/vfio/devices/vfio0
  uiommu run -- sh -c 'ls -l /dev/iommu'
`;

const DEFAULT_MACHINE = 'selftest';

type Options = {
  machine: string;
  profile: string | undefined;
  /** undefined: no trace; '': standard error */
  trace: string | undefined;
  json: boolean;
  summary: boolean;
  check: boolean;
  asRoot: boolean;
  argv: readonly string[];
};

function parse(args: readonly string[]): Options {
  const options: Options = {
    machine: DEFAULT_MACHINE,
    profile: undefined,
    trace: undefined,
    json: false,
    summary: false,
    check: false,
    asRoot: false,
    argv: [],
  };
  let at = 0;
  for (; at < args.length && args[at]?.startsWith('-') === true && args[at] !== '--'; at++) {
    const [name = '', ...rest] = (args[at] ?? '').split('=');
    const value = rest.length > 0 ? rest.join('=') : undefined;
    const field = VALUES[name];
    if (field === undefined) setFlag(options, name, value);
    else options[field] = valueOf(name, value ?? args[++at]);
  }
  if (args[at] === '--') at++;
  options.argv = args.slice(at);
  if (options.argv.length === 0) {
    throw new UsageError(
      'run: no program given; usage: uiommu run [OPTIONS] [--] PROGRAM [ARGUMENTS]',
    );
  }
  return options;
}

const VALUES: Readonly<Record<string, 'machine' | 'profile'>> = {
  '-m': 'machine',
  '--machine': 'machine',
  '--profile': 'profile',
};

function valueOf(name: string, value: string | undefined): string {
  if (value !== undefined && value !== '') return value;
  throw new UsageError(`run: ${name} needs a name; "uiommu help run" lists what there is`);
}

function setFlag(options: Options, name: string, value: string | undefined): void {
  if (name === '--trace') {
    options.trace = value ?? options.trace ?? '';
    return;
  }
  if (value !== undefined) throw new UsageError(`run: ${name} takes no value`);
  switch (name) {
    case '--json':
      options.json = true;
      options.trace ??= '';
      return;
    case '--summary':
      options.summary = true;
      return;
    case '--check':
      options.check = true;
      return;
    case '--as-root':
      options.asRoot = true;
      return;
    default:
      throw new UsageError(`run: unknown option ${name}; "uiommu help run" lists the options`);
  }
}

async function boot({ machine, check, profile }: Options): Promise<Kernel> {
  if (machine === DEFAULT_MACHINE && (profile ?? 'linux') === 'linux') {
    const { bootSelftest } = await import('../../kernel/selftest-machine.ts');
    return bootSelftest({ check });
  }
  // Loaded when asked for: most runs are on the default machine, and start-up counts.
  const { bootMachine } = await import('../../kernel/boot.ts');
  const { machineFrom } = await import('../machine-argument.ts');
  const { chosenProfile } = await import('../options.ts');
  const rules = chosenProfile(profile);
  const described = machineFrom(machine);
  if (described.kind === 'selftest' && rules !== 'linux') {
    throw new UsageError(
      `--profile ${rules} is for machines with PCI devices; ${described.name} is the one of the mock driver, which has none`,
    );
  }
  return bootMachine(described, { check, profile: rules });
}

const STDERR = 2;

/** How events become lines, without their ends. */
type Rendering = {
  readonly call: (event: TimedCall, withPid: boolean) => string;
  readonly waiting: (event: WaitingCall, withPid: boolean) => string;
};

/** Writes events as they happen. */
class TraceWriter implements Observer {
  readonly #fd: number;
  readonly #rendering: Rendering;
  #firstPid: number | undefined;
  #several = false;
  #failed = false;

  constructor(fd: number, rendering: Rendering) {
    this.#fd = fd;
    this.#rendering = rendering;
  }

  call(event: TimedCall): void {
    this.#write(this.#rendering.call(event, this.#severalPids(event)));
  }

  waiting(event: WaitingCall): void {
    this.#write(this.#rendering.waiting(event, this.#severalPids(event)));
  }

  // A full disk ends the trace, not the program.
  #write(line: string): void {
    if (this.#failed) return;
    const failure = writeAll(this.#fd, `${line}\n`);
    if (failure === undefined) return;
    this.#failed = true;
    writeAll(STDERR, `uiommu: the trace ends here: ${failure.message}\n`);
  }

  #severalPids({ pid }: { readonly pid: number }): boolean {
    this.#firstPid ??= pid;
    if (pid !== this.#firstPid) this.#several = true;
    return this.#several;
  }

  released(): void {
    // close is the kernel's own business, like all calls that are not the machine's
  }
}

function both(observers: readonly Observer[]): Observer | undefined {
  const [first, second] = observers;
  if (first === undefined || second === undefined) return first;
  return {
    call: (event) => {
      for (const observer of observers) observer.call(event);
    },
    waiting: (event) => {
      for (const observer of observers) observer.waiting(event);
    },
    released: (name) => {
      for (const observer of observers) observer.released(name);
    },
  };
}

function openTrace(path: string): number {
  try {
    return path === '' ? STDERR : openSync(path, 'w');
  } catch (error) {
    throw new UsageError(`run: cannot write the trace: ${(error as Error).message}`);
  }
}

// Told apart from the program's own failures as far as one number can, the way env, timeout and container tools do it.
const OWN_FAILURE = 125;

/** @returns the result, or the exit status where uiommu failed */
async function supervise(options: RunOptions, launcher: Launcher): Promise<RunResult | number> {
  const supervisor = await import('../../supervisor/supervisor.ts');
  try {
    return await supervisor.Supervisor.run(options, launcher);
  } catch (error) {
    const { EngineError: engine, LaunchError: launch, UnsupportedError: unsupported } = supervisor;
    const known = [engine, launch, unsupported].some((type) => error instanceof type);
    if (!known) throw error;
    writeAll(STDERR, `uiommu: ${(error as Error).message}\n`);
    return error instanceof launch ? error.status : OWN_FAILURE;
  }
}

async function run(args: readonly string[]): Promise<number> {
  const options = parse(args);
  // First of all: it takes down what the program is to be started with.
  const { startLauncher } = await import('../../supervisor/launch.ts');
  return runOn(startLauncher(), options);
}

async function runOn(launcher: Launcher, options: Options): Promise<number> {
  const kernel = await boot(options);
  const observers: Observer[] = [];
  let traceFile: number | undefined;
  if (options.trace !== undefined) {
    const format = await import('../../supervisor/trace/format.ts');
    traceFile = openTrace(options.trace);
    const { eventJson, eventText, waitingJson, waitingText } = format;
    const rendering = options.json
      ? { call: eventJson, waiting: waitingJson }
      : { call: eventText, waiting: waitingText };
    observers.push(new TraceWriter(traceFile, rendering));
  }
  const summary = options.summary
    ? new (await import('../../supervisor/trace/summary.ts')).Summary()
    : undefined;
  if (summary !== undefined) observers.push(summary);
  const observer = both(observers);
  const result = await supervise(
    {
      argv: options.argv,
      kernel,
      asRoot: options.asRoot,
      ...(observer === undefined ? {} : { observer }),
    },
    launcher,
  );
  if (typeof result === 'number') return result;
  const { status, leaks } = result;
  if (traceFile !== undefined && traceFile !== STDERR) closeSync(traceFile);
  if (summary !== undefined) writeAll(STDERR, summary.text(status, leaks));
  else for (const leak of leaks) writeAll(STDERR, `uiommu: left behind: ${leak}\n`);
  return status;
}

export const runCommand: Command = {
  name: 'run',
  summary: 'run an unmodified program on a simulated machine',
  help: HELP,
  run,
};
