import assert from 'node:assert/strict';
import test from 'node:test';
import type { DeviceModel } from '../device-model.ts';
import type { InterruptSink } from '../interrupt.ts';
import { buildConfig } from './config-builder.ts';
import { REGISTER } from './config-space.ts';
import { FunctionHardware } from './hardware.ts';
import { CAP, COMMAND, EXP, MSI, STATUS } from './pci-regs.ts';
import { describedBits } from './register-bits.ts';

const ENDPOINT = { vendor: 0x1234, device: 1, classCode: 0xff0000, portType: 0, msi: 4 };

function hardware() {
  const config = buildConfig(ENDPOINT);
  let resets = 0;
  let sink: InterruptSink | undefined;
  const model: DeviceModel = {
    memory: () => undefined,
    read: () => 0n,
    write: () => undefined,
    reset: () => {
      resets++;
    },
  };
  const made = new FunctionHardware(config, describedBits(config, {}), (interrupts) => {
    sink = interrupts;
    return model;
  });
  assert.ok(sink);
  return { made, config, sink, resets: () => resets };
}

test('Interrupt Status shows the level of the pin, whether or not INTx is disabled', () => {
  const { made, config, sink } = hardware();
  let handled = 0;
  made.pin.handle(() => {
    handled++;
    return false;
  });
  made.registers.write(REGISTER.COMMAND, 2, COMMAND.INTX_DISABLE);
  sink.setLevel(true);
  assert.notEqual(config.u16(REGISTER.STATUS) & STATUS.INTERRUPT, 0);
  assert.equal(handled, 0);
  made.registers.write(REGISTER.COMMAND, 2, 0);
  assert.equal(handled, 1);
  sink.setLevel(false);
  assert.equal(config.u16(REGISTER.STATUS) & STATUS.INTERRUPT, 0);
});

test('a message of a masked vector is pending, and sent when the mask goes', () => {
  const { made, config, sink } = hardware();
  const msi = config.findCapability(CAP.MSI);
  const sent: number[] = [];
  made.onMessage = (vector) => {
    sent.push(vector);
  };
  made.registers.write(REGISTER.COMMAND, 2, COMMAND.MASTER);
  made.registers.write(msi + MSI.FLAGS, 2, MSI.ENABLE);
  made.registers.write(msi + MSI.MASK_64, 4, 0b0110);
  sink.message(2);
  assert.deepEqual(sent, []);
  assert.equal(config.u32(msi + MSI.PENDING_64), 0b0100);
  made.registers.write(msi + MSI.MASK_64, 4, 0b0010);
  assert.deepEqual(sent, [2]);
  assert.equal(config.u32(msi + MSI.PENDING_64), 0);
});

test('a reset puts registers of the header back and tells the model', () => {
  const { made, config, resets } = hardware();
  made.registers.write(REGISTER.COMMAND, 2, COMMAND.MASTER | COMMAND.MEMORY);
  made.reset();
  assert.equal(config.u16(REGISTER.COMMAND), 0);
  assert.equal(resets(), 1);
});

test('the FLR bit starts a reset only where the function has one, and never reads as 1', () => {
  const { made, config, resets } = hardware();
  const express = config.findCapability(CAP.EXPRESS);
  made.registers.write(express + EXP.DEVICE_CONTROL, 2, EXP.FLR);
  assert.equal(resets(), 0);
  config.setU32(express + EXP.DEVICE_CAP, EXP.FLR_CAPABLE);
  made.registers.write(express + EXP.DEVICE_CONTROL, 2, EXP.FLR);
  assert.equal(resets(), 1);
  assert.equal(config.u16(express + EXP.DEVICE_CONTROL) & EXP.FLR, 0);
});
