/**
 * A device for tests of the supervisor alone: its ioctls do one thing with the client's memory or files each. All take a
 * struct of four 64-bit words.
 */
import type { Outcome } from '../../src/base/answer-later.ts';
import { Errno } from '../../src/base/errno.ts';
import type {
  Backing,
  OpenFile,
  PageRun,
  ReadBuffer,
  Task,
  WriteBuffer,
} from '../../src/base/task.ts';
import { fixed, over } from '../../src/kernel/vfs/tree.ts';
import { Kernel } from '../../src/kernel/kernel.ts';

const STUB_NAME = 'uiommu-stub';
export const STUB_PATH = `/dev/${STUB_NAME}`;

const PAGE = 4096n;
const EBUSY = 16;

/** Numbers of the ioctls: type ';', no size. */
export const STUB = {
  /** words[1] = words[0] + 1 */
  ECHO: 0x3b01,
  /** takes words[0] milliseconds between copying in and out */
  SLEEP: 0x3b02,
  /** pins words[1] bytes at words[0], for writing if words[2]; words[3] = number of the pin */
  PIN: 0x3b03,
  /** words[2] = the 64-bit word at byte words[1] of pin words[0] */
  PEEK: 0x3b04,
  /** writes words[2] there */
  POKE: 0x3b05,
  /** words[2] = 1 if pins words[0] and words[1] begin with the same page */
  SAME: 0x3b06,
  /** words[1] = number of runs that pin words[0] has */
  RUNS: 0x3b07,
  /** gives a stream; words[1] = its file number */
  STREAM: 0x3b08,
  /** puts the byte words[0] into the stream given last */
  PUSH: 0x3b09,
  /** pins the file of number words[0] in whole; words[1] = its size, words[2] = may be pinned, words[3] = number of the pin */
  FILE: 0x3b0a,
  /** breaks the contract of the engine */
  CRASH: 0x3b0b,
  /** words[0] = pid of the caller as the engine sees it, words[1] = tid, words[2] = uid, words[3] = capabilities asked for */
  WHO: 0x3b0c,
  /** is answered later: by ANSWER if words[0] is 0, with 5 when a file of the device is closed if it is 1 */
  WAIT: 0x3b0d,
  /** gives the value words[0], or the negative errno, to whoever waits longest */
  ANSWER: 0x3b0e,
  /** words[0] = number of calls that wait */
  WAITING: 0x3b0f,
} as const;

type Words = [bigint, bigint, bigint, bigint];

/** A byte with which a write to a stream waits for ANSWER. */
const WAITING_BYTE = 0xff;
const CLOSED = 5;

type Wait = { readonly forClose: boolean; readonly answer: (outcome: Outcome) => void };

class Stream implements OpenFile {
  readonly name = 'stub-stream';
  onReadable?: () => void;
  readonly written: number[] = [];
  readonly #stub: Stub;
  #bytes: number[] = [];

  constructor(stub: Stub) {
    this.#stub = stub;
  }

  push(byte: number): void {
    this.#bytes.push(byte);
    this.onReadable?.();
  }

  readable(): boolean {
    return this.#bytes.length > 0;
  }

  read(_task: Task, buffer: ReadBuffer): number {
    const taken = this.#bytes.splice(0, buffer.length);
    buffer.put(0, Uint8Array.from(taken));
    this.onReadable?.();
    return taken.length;
  }

  write(task: Task, buffer: WriteBuffer): number {
    const bytes = buffer.take(0, buffer.length);
    if (bytes[0] === WAITING_BYTE) return this.#stub.wait(task, false);
    // What is written can be read back, plus one.
    for (const byte of bytes) this.push(byte + 1);
    return buffer.length;
  }

  release(): void {
    this.#bytes = [];
  }
}

/** All opens of the device share its pins, so that processes can look at each other's. */
class Stub {
  readonly pins: PageRun[][] = [];
  streams: Stream[] = [];
  #waits: Wait[] = [];

  readonly operations: Readonly<Record<number, (words: Words, task: Task) => void>> = {
    [STUB.ECHO]: (words) => {
      words[1] = words[0] + 1n;
    },
    [STUB.SLEEP]: (words) => {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(words[0]));
    },
    [STUB.PIN]: (words, { memory }) => {
      const count = Number((words[1] + PAGE - 1n) / PAGE);
      words[3] = this.#pin(memory.resolve(Number(words[0] / PAGE), count, words[2] !== 0n));
    },
    [STUB.PEEK]: (words) => {
      const bytes = new Uint8Array(8);
      const { backing, offset } = this.#at(words[0], words[1]);
      backing.read(offset, bytes);
      words[2] = new DataView(bytes.buffer).getBigUint64(0, true);
    },
    [STUB.POKE]: (words) => {
      const bytes = new Uint8Array(8);
      new DataView(bytes.buffer).setBigUint64(0, words[2], true);
      const { backing, offset } = this.#at(words[0], words[1]);
      backing.write(offset, bytes);
    },
    [STUB.SAME]: (words) => {
      const [a, b] = [this.#at(words[0], 0n), this.#at(words[1], 0n)];
      words[2] = a.backing === b.backing && a.offset === b.offset ? 1n : 0n;
    },
    [STUB.RUNS]: (words) => {
      words[1] = BigInt(this.pins[Number(words[0])]?.length ?? 0);
    },
    [STUB.STREAM]: (words, task) => {
      const stream = new Stream(this);
      words[1] = BigInt(task.install(stream, { cloexec: true }));
      this.streams.push(stream);
    },
    [STUB.PUSH]: (words) => {
      this.streams.at(-1)?.push(Number(words[0]));
    },
    [STUB.FILE]: (words, task) => {
      const { backing, size, pinnable } = task.fileMemory(Number(words[0]));
      words[1] = BigInt(size);
      words[2] = pinnable ? 1n : 0n;
      words[3] = this.#pin([{ backing, page: 0, count: Math.max(1, Math.ceil(size / 4096)) }]);
    },
    [STUB.CRASH]: () => {
      throw new TypeError('the stub breaks on purpose');
    },
    [STUB.WHO]: (words, task) => {
      words[0] = BigInt(task.pid);
      words[1] = BigInt(task.tid);
      words[2] = BigInt(task.uid);
      words[3] = task.capable('CAP_SYS_ADMIN') ? 1n : 0n;
    },
    [STUB.ANSWER]: (words) => {
      const given = Number(BigInt.asIntN(64, words[0]));
      const outcome = given === -EBUSY ? new Errno('EBUSY', 'the stub refuses later') : given;
      this.#waits.shift()?.answer(outcome);
    },
    [STUB.WAITING]: (words) => {
      words[0] = BigInt(this.#waits.length);
    },
  };

  /** A call that is answered later. */
  wait(task: Task, forClose: boolean): number {
    const what = forClose ? 'a file of the device to be closed' : 'ANSWER';
    return task.answerLater(`waits for ${what}`, (answer) => {
      this.#waits.push({ forClose, answer });
    });
  }

  /** A file of the device has been closed. */
  closed(): void {
    const over = this.#waits.filter(({ forClose }) => forClose);
    this.#waits = this.#waits.filter(({ forClose }) => !forClose);
    for (const { answer } of over) answer(CLOSED);
  }

  #pin(runs: PageRun[]): bigint {
    return BigInt(this.pins.push(runs) - 1);
  }

  #at(pin: bigint, offset: bigint): { backing: Backing; offset: number } {
    let page = Number(offset / PAGE);
    for (const run of this.pins[Number(pin)] ?? []) {
      if (page < run.count) {
        return { backing: run.backing, offset: (run.page + page) * 4096 + Number(offset % PAGE) };
      }
      page -= run.count;
    }
    throw new Errno('ENOENT', `pin ${pin} has no byte ${offset}`);
  }
}

class StubFile implements OpenFile {
  readonly name = STUB_PATH;
  readonly #stub: Stub;

  constructor(stub: Stub) {
    this.#stub = stub;
  }

  ioctl(task: Task, command: number, argument: bigint): number {
    const bytes = new Uint8Array(32);
    task.memory.copyIn(argument, bytes);
    const view = new DataView(bytes.buffer);
    const words = [0, 8, 16, 24].map((at) => view.getBigUint64(at, true)) as Words;
    if (command === STUB.WAIT) return this.#stub.wait(task, words[0] !== 0n);
    const operation = this.#stub.operations[command];
    if (operation === undefined) throw new Errno('ENOTTY', `no ioctl 0x${command.toString(16)}`);
    operation(words, task);
    words.forEach((word, i) => {
      view.setBigUint64(8 * i, word, true);
    });
    task.memory.copyOut(argument, bytes);
    return 0;
  }

  // Pins are kept: other processes look at them.
  release(): void {
    this.#stub.closed();
  }
}

/** A machine with nothing but the device. */
export function stubKernel(): Kernel {
  const stub = new Stub();
  const open = (): OpenFile => new StubFile(stub);
  return new Kernel({
    names: fixed({
      dev: over({ [STUB_NAME]: { kind: 'node', major: 510, minor: 7, mode: 0o660, open } }),
    }),
    memory: {
      pinnedPages: (backing) =>
        stub.pins
          .flat()
          .filter((run) => run.backing === backing)
          .map(({ page, count }) => ({ page, count })),
      forget: () => undefined,
    },
  });
}
