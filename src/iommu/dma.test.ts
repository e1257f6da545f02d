import assert from 'node:assert/strict';
import test from 'node:test';
import { ContainerLab } from '../testing/container-lab.ts';
import { DeviceDma, type DmaFault } from './dma.ts';

const PAGE = 4096;

class DmaLab {
  readonly lab = ContainerLab.ready();
  readonly faults: DmaFault[] = [];
  readonly messages: string[] = [];
  busMaster = true;
  readonly dma = new DeviceDma(
    { iommu: this.lab.iommu(0), requesterId: 0x100, busMaster: () => this.busMaster },
    {
      physical: this.lab.system.physical,
      report: (fault) => {
        this.faults.push(fault);
      },
      message: (requesterId, address, bytes) => {
        this.messages.push(
          `${requesterId.toString(16)} ${address.toString(16)} ${bytes.join(' ')}`,
        );
      },
    },
  );

  get reasons(): string[] {
    return this.faults.splice(0).map(({ reason, address }) => `${reason} ${address.toString(16)}`);
  }
}

const bytes = (count: number, from = 1): Uint8Array =>
  Uint8Array.from({ length: count }, (_, i) => (from + i) & 0xff);

test('a device reads and writes what is mapped, across pages', () => {
  const { lab, dma, faults } = new DmaLab();
  const vaddr = lab.client.allocate(4);
  assert.equal(lab.map(0x10_0000n, 4, { vaddr }), 'ok');
  const sent = bytes(2 * PAGE);
  assert.equal(dma.write(0x10_0800n, sent), true);
  assert.deepEqual(lab.client.read(vaddr + 0x800n, sent.length), sent);
  const back = new Uint8Array(sent.length);
  assert.equal(dma.read(0x10_0800n, back), true);
  assert.deepEqual(back, sent);
  assert.deepEqual(faults, []);
  lab.exit();
});

test('what is not mapped reads as zeros and drops writes, each page on its own', () => {
  const dmaLab = new DmaLab();
  const { lab, dma } = dmaLab;
  const vaddr = lab.client.allocate(3);
  lab.client.write(vaddr, bytes(3 * PAGE));
  assert.equal(lab.map(0x1000n, 1, { vaddr }), 'ok');
  assert.equal(lab.map(0x3000n, 1, { vaddr: vaddr + 0x2000n }), 'ok');
  const back = bytes(3 * PAGE);
  assert.equal(dma.read(0x1000n, back), false);
  assert.deepEqual(back.subarray(0, PAGE), lab.client.read(vaddr, PAGE));
  assert.ok(back.subarray(PAGE, 2 * PAGE).every((byte) => byte === 0));
  assert.deepEqual(back.subarray(2 * PAGE), lab.client.read(vaddr + 0x2000n, PAGE));
  assert.deepEqual(dmaLab.reasons, ['not mapped 2000']);
  assert.equal(dma.write(0x1ffcn, bytes(8)), false);
  assert.deepEqual(dmaLab.reasons, ['not mapped 2000']);
  assert.deepEqual(lab.client.read(vaddr + 0xffcn, 4), bytes(4));
  lab.exit();
});

test('permissions are those of the mapping', () => {
  const dmaLab = new DmaLab();
  const { lab, dma } = dmaLab;
  assert.equal(lab.map(0x1000n, 1, { flags: 1 }), 'ok');
  assert.equal(lab.map(0x2000n, 1, { flags: 2 }), 'ok');
  assert.equal(dma.write(0x1000n, bytes(4)), false);
  assert.equal(dma.read(0x1000n, bytes(4)), true);
  assert.equal(dma.write(0x2000n, bytes(4)), true);
  assert.equal(dma.read(0x2000n, bytes(4)), false);
  assert.deepEqual(dmaLab.reasons, ['not writeable 1000', 'not readable 2000']);
  lab.exit();
});

test('no request leaves a device without bus mastering, none passes the blocking domain', () => {
  const dmaLab = new DmaLab();
  const { lab, dma } = dmaLab;
  assert.equal(lab.map(0x1000n, 1), 'ok');
  dmaLab.busMaster = false;
  assert.equal(dma.write(0x1000n, bytes(4)), false);
  assert.equal(dma.write(0xfee0_0000n, bytes(4)), false);
  dmaLab.busMaster = true;
  assert.deepEqual(dmaLab.messages, []);
  assert.equal(lab.leave(0), 'ok');
  assert.equal(dma.write(0x1000n, bytes(4)), false, 'the kernel has mapped nothing for it');
  assert.deepEqual(dmaLab.reasons, [
    'no bus mastering 1000',
    'no bus mastering fee00000',
    'not mapped 1000',
  ]);
  lab.exit();
});

test('a write to the interrupt window is a message, a read from it a fault', () => {
  const dmaLab = new DmaLab();
  const { lab, dma } = dmaLab;
  assert.equal(dma.write(0xfee0_1000n, Uint8Array.of(0x41, 0, 0, 0)), true);
  assert.deepEqual(dmaLab.messages, ['100 fee01000 65 0 0 0']);
  assert.equal(dma.read(0xfee0_1000n, bytes(4)), false);
  assert.deepEqual(dmaLab.reasons, ['interrupt window fee01000']);
  lab.exit();
});

test('addresses wrap around at 64 bits, and a PASID that has nothing attached is blocked', () => {
  const dmaLab = new DmaLab();
  const { lab, dma } = dmaLab;
  const vaddr = lab.client.allocate(1);
  assert.equal(lab.map(0n, 1, { vaddr }), 'ok');
  assert.equal(dma.write(2n ** 64n - 4n, bytes(8)), false);
  assert.deepEqual(lab.client.read(vaddr, 4), bytes(4, 5));
  assert.equal(dma.write(0n, bytes(4), 7), false);
  assert.deepEqual(dmaLab.reasons, ['not mapped fffffffffffffffc', 'blocked 0']);
  lab.exit();
});
