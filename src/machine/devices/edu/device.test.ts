import assert from 'node:assert/strict';
import test from 'node:test';
import { EduModel } from './device.ts';
import { EDU_DMA } from './dma-engine.ts';
import { EDU, EDU_IDENTIFICATION, EDU_STATUS_INTERRUPT } from './spec.ts';

const FACTORIAL_OVER = 1;
const DMA_OVER = 0x100;

class EduLab {
  readonly memory = new Uint8Array(64);
  readonly levels: boolean[] = [];
  readonly messages: number[] = [];
  byMessage = false;
  readonly model: EduModel;

  constructor() {
    const { levels, messages, memory } = this;
    const byMessage = (): boolean => this.byMessage;
    this.model = new EduModel(
      {
        setLevel: (high) => levels.push(high),
        get messages() {
          return byMessage();
        },
        message: (vector) => messages.push(vector),
      },
      {
        read: (address, into) => {
          into.set(memory.subarray(Number(address), Number(address) + into.length));
          return true;
        },
        write: (address, bytes) => {
          memory.set(bytes, Number(address));
          return true;
        },
      },
    );
  }

  get(offset: number, bytes = 4): bigint {
    return this.model.read(0, offset, bytes);
  }

  put(offset: number, value: bigint, bytes = 4): void {
    this.model.write(0, offset, bytes, value);
  }

  copy(source: bigint, destination: bigint, command: bigint): void {
    this.put(EDU_DMA.SOURCE, source, 8);
    this.put(EDU_DMA.DESTINATION, destination, 8);
    this.put(EDU_DMA.COUNT, 4n, 8);
    this.put(EDU_DMA.COMMAND, command);
  }
}

test('registers below 0x80 answer accesses of 4 bytes only', () => {
  const lab = new EduLab();
  assert.equal(lab.get(EDU.IDENTIFICATION), BigInt(EDU_IDENTIFICATION));
  assert.equal(lab.get(EDU.IDENTIFICATION, 2), 0xffffn);
  lab.put(EDU.LIVENESS, 0x1234_5678n);
  assert.equal(lab.get(EDU.LIVENESS), 0xedcb_a987n);
  lab.put(EDU.LIVENESS, 0n, 1);
  assert.equal(lab.get(EDU.LIVENESS), 0xedcb_a987n);
  assert.equal(lab.model.read(1, EDU.IDENTIFICATION, 4), 0xffff_ffffn);
  assert.equal(lab.get(0x10), 0xffff_ffffn);
});

test('a factorial interrupts when asked to; the pin falls with the last acknowledged bit', () => {
  const lab = new EduLab();
  lab.put(EDU.FACTORIAL, 5n);
  assert.equal(lab.get(EDU.FACTORIAL), 120n);
  assert.deepEqual(lab.levels, []);
  lab.put(EDU.STATUS, BigInt(EDU_STATUS_INTERRUPT));
  lab.put(EDU.FACTORIAL, 13n);
  assert.equal(lab.get(EDU.FACTORIAL), 6_227_020_800n & 0xffff_ffffn);
  lab.put(EDU.INTERRUPT_RAISE, 0x10n);
  assert.equal(lab.get(EDU.INTERRUPT_STATUS), BigInt(FACTORIAL_OVER | 0x10));
  lab.put(EDU.INTERRUPT_ACKNOWLEDGE, 1n);
  assert.deepEqual(lab.levels, [true, true]);
  lab.put(EDU.INTERRUPT_ACKNOWLEDGE, 0x10n);
  assert.deepEqual(lab.levels, [true, true, false]);
});

test('DMA copies memory into the buffer and back, and interrupts by message where messages are on', () => {
  const lab = new EduLab();
  lab.byMessage = true;
  lab.memory.set([1, 2, 3, 4]);
  lab.copy(0n, 0x4_0000n, 1n);
  assert.deepEqual(lab.messages, []);
  lab.copy(0x4_0000n, 32n, 7n);
  assert.deepEqual([...lab.memory.subarray(32, 37)], [1, 2, 3, 4, 0]);
  assert.deepEqual(lab.messages, [0]);
  assert.equal(lab.get(EDU.INTERRUPT_STATUS), BigInt(DMA_OVER));
  assert.equal(lab.get(EDU_DMA.DESTINATION, 8), 32n);
  assert.equal(lab.get(EDU_DMA.COMMAND) & 1n, 0n);
});

test('a reset leaves registers as they are', () => {
  const lab = new EduLab();
  lab.put(EDU.FACTORIAL, 4n);
  lab.model.reset();
  assert.equal(lab.get(EDU.FACTORIAL), 24n);
});
