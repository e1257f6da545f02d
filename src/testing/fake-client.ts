/** The client in this process under the names that tests use. */
export { BufferMemory as FakeAddressSpace, SparseBacking } from '../client/buffer-memory.ts';
export { InProcessClient as FakeClient } from '../client/in-process.ts';
