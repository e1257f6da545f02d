import assert from 'node:assert/strict';
import test from 'node:test';
import type { DmaPort } from '../../dma.ts';
import { EDU_DMA, EduDmaEngine } from './dma-engine.ts';

const BUFFER = 0x4_0000n;

class Bus implements DmaPort {
  readonly memory = new Uint8Array(0x4000);
  readonly log: string[] = [];

  read(address: bigint, into: Uint8Array): boolean {
    this.log.push(`read ${address.toString(16)}+${into.length}`);
    into.set(this.memory.subarray(Number(address), Number(address) + into.length));
    return true;
  }

  write(address: bigint, bytes: Uint8Array): boolean {
    this.log.push(`write ${address.toString(16)}+${bytes.length}`);
    this.memory.set(bytes, Number(address));
    return true;
  }
}

function copy(engine: EduDmaEngine, source: bigint, destination: bigint, count: bigint): void {
  engine.write(EDU_DMA.SOURCE, source);
  engine.write(EDU_DMA.DESTINATION, destination);
  engine.write(EDU_DMA.COUNT, count);
}

test('memory goes to the buffer and from there to memory; the run bit is clear afterwards', () => {
  const bus = new Bus();
  const engine = new EduDmaEngine(bus, () => undefined);
  bus.memory.set([1, 2, 3, 4], 0x1000);
  copy(engine, 0x1000n, BUFFER + 8n, 4n);
  engine.write(EDU_DMA.COMMAND, 1n);
  assert.equal(engine.read(EDU_DMA.COMMAND), 0n);
  copy(engine, BUFFER + 8n, 0x2000n, 4n);
  engine.write(EDU_DMA.COMMAND, 3n);
  assert.equal(engine.read(EDU_DMA.COMMAND), 2n);
  assert.deepEqual([...bus.memory.subarray(0x2000, 0x2004)], [1, 2, 3, 4]);
  assert.deepEqual(bus.log, ['read 1000+4', 'write 2000+4']);
});

test('bus addresses are cut to 28 bits, and a transfer that leaves the buffer is not made', () => {
  const bus = new Bus();
  const engine = new EduDmaEngine(bus, () => undefined);
  copy(engine, 0xf000_1000n, BUFFER, 4n);
  engine.write(EDU_DMA.COMMAND, 1n);
  for (const [start, count] of [
    [BUFFER - 1n, 4n],
    [BUFFER + 4093n, 4n],
    [BUFFER, 4097n],
    [0n, 2n ** 64n - 1n],
  ] as const) {
    copy(engine, 0x1000n, start, count);
    engine.write(EDU_DMA.COMMAND, 1n);
  }
  assert.deepEqual(bus.log, ['read 1000+4']);
});

test('nothing happens without the run bit; the interrupt bit asks for one interrupt', () => {
  const bus = new Bus();
  let interrupts = 0;
  const engine = new EduDmaEngine(bus, () => interrupts++);
  copy(engine, 0n, BUFFER, 4n);
  engine.write(EDU_DMA.COMMAND, 6n);
  assert.deepEqual([bus.log, interrupts], [[], 0]);
  engine.write(EDU_DMA.COMMAND, 5n);
  assert.deepEqual([bus.log, interrupts], [['read 0+4'], 1]);
  assert.equal(engine.read(0xa0), undefined);
});
