/** node dist/scripts/machine-schema.js: writes schema/machine.schema.json from the declaration of the machine file. */
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { machineSchema } from '../src/machine/file/schema.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const file = join(root, 'schema', 'machine.schema.json');
writeFileSync(file, `${JSON.stringify(machineSchema(), null, 2)}\n`);
console.log(`wrote ${file}`);
