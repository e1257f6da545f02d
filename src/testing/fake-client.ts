/** The client in this process under the names that tests use. */
export {
  BufferMemory as FakeAddressSpace,
  InProcessClient as FakeClient,
  SparseBacking,
} from '../client/in-process.ts';
