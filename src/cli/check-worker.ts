/** A thread of `uiommu check`: expands the batches of states that it is sent. */
import { parentPort, workerData } from 'node:worker_threads';
import { worldOf, type Task } from '../check/exploration.ts';
import { Expander } from '../check/explorer.ts';

const expander = new Expander(worldOf(workerData as Task));

parentPort?.on('message', (states: Uint32Array) => {
  parentPort?.postMessage(expander.expand(states));
});
