/** The recordings of VFIO programs, where they are there: `../shared/vfio`, or below UIOMMU_SHARED. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const folder = join(process.env['UIOMMU_SHARED'] ?? join(root, '..', 'shared'), 'vfio');

export type RecordingFile = { readonly name: string; readonly text: string };

/**
 * @param kind "type1" for containers and DMA, "vfio" for device files
 * @returns all recordings of that kind; where there are none, the test is skipped with the reason
 */
export function recordings(t: TestContext, kind: 'type1' | 'vfio'): RecordingFile[] {
  const pattern = new RegExp(`^${kind}-\\d+\\.txt\\.gz$`);
  const names = existsSync(folder) ? readdirSync(folder).filter((name) => pattern.test(name)) : [];
  if (names.length === 0) t.skip(`there are no recorded programs in ${folder}`);
  return names.map((name) => ({
    name,
    text: gunzipSync(readFileSync(join(folder, name))).toString(),
  }));
}
