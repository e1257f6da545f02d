/** The JSON Schema of machine files, for editors. schema/machine.schema.json is this; a test compares them. */
import { MACHINE_SHAPE } from './machine-shape.ts';
import { jsonSchema } from './shape.ts';

export function machineSchema(): Record<string, unknown> {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'uiommu machine file',
    ...jsonSchema(MACHINE_SHAPE),
  };
}
