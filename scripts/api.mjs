// The public types: a report of each entry of the library in docs/api/, so that a change of the surface is seen in review.
//   npm run api              writes the reports
//   npm run api -- --check   fails where a report is out of date
import { Extractor, ExtractorConfig } from '@microsoft/api-extractor';
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { LIBRARY } from './package.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const reports = join(root, 'docs', 'api');
const quiet = { default: { logLevel: 'none' } };

/** @param local writes the report; without, it is only compared */
function report(name, local) {
  const config = ExtractorConfig.prepare({
    configObject: {
      mainEntryPointFilePath: join(root, 'dist', 'src', `${name}.d.ts`),
      projectFolder: root,
      compiler: { tsconfigFilePath: join(root, 'tsconfig.json') },
      apiReport: {
        enabled: true,
        reportFolder: reports,
        reportTempFolder: join(root, 'dist', 'api'),
        reportFileName: name === 'index' ? 'uiommu' : name,
      },
      docModel: { enabled: false },
      dtsRollup: { enabled: false },
      tsdocMetadata: { enabled: false },
      messages: {
        compilerMessageReporting: { default: { logLevel: 'error' } },
        extractorMessageReporting: quiet,
        tsdocMessageReporting: quiet,
      },
    },
    configObjectFullPath: join(root, 'package.json'),
    packageJsonFullPath: join(root, 'package.json'),
  });
  return Extractor.invoke(config, {
    localBuild: local,
    showVerboseMessages: false,
    messageCallback: (message) => {
      message.logLevel = message.logLevel === 'error' ? 'error' : 'none';
    },
  });
}

const check = process.argv.includes('--check');
mkdirSync(join(root, 'dist', 'api'), { recursive: true });
// What is in the kernel's headers is compared with the C compiler (test/uapi), and needs no report.
const changed = LIBRARY.filter((name) => report(name, !check).apiReportChanged);
if (check && changed.length > 0) {
  console.error(`docs/api is out of date for ${changed.join(', ')}; expected: npm run api`);
  process.exit(1);
}
