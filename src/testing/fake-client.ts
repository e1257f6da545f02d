/** The client in this process under the names that tests use. */
export { SparseBacking } from '../base/sparse-backing.ts';
export { BufferMemory as FakeAddressSpace } from '../client/buffer-memory.ts';
export { InProcessClient as FakeClient } from '../client/in-process.ts';
