/** `npm run compatibility`: writes docs/compatibility.md. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format } from 'prettier';
import { compatibilityPage } from './compatibility-page.ts';
import { ROOT } from './run-client.ts';

const file = join(ROOT, 'docs', 'compatibility.md');
writeFileSync(file, await format(compatibilityPage(), { parser: 'markdown', printWidth: 100 }));
console.log(`wrote ${file}`);
