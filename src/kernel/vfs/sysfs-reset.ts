/**
 * The files `reset` and `reset_method` of a function.
 *
 * After drivers/pci/pci-sysfs.c (reset_store, reset_method_show, reset_method_store).
 */
import { Errno } from '../../base/errno.ts';
import {
  offersMethod,
  tryResetFunction,
  type Functions,
  RESET_METHODS,
  type ResetMethod,
} from '../../machine/pci/reset.ts';
import type { PciFunction } from '../pci-function.ts';
import { quoted, unsignedOrInvalid, word } from './parse.ts';
import { atOnce, writable, type Attribute } from './tree.ts';

export function resetAttributes(
  known: PciFunction,
  functions: Functions,
): Record<string, Attribute> {
  const { managed } = known;
  return {
    reset: writable(
      atOnce((text) => {
        if (unsignedOrInvalid(text) !== 1n) throw new Errno('EINVAL', 'only 1 resets');
        managed.whileAwake(() => {
          tryResetFunction(managed, functions);
        });
      }),
    ),
    reset_method: writable(
      atOnce((text) => {
        managed.resetMethods = chosenMethods(known, text);
      }),
      {
        show: () =>
          managed.resetMethods.length === 0 ? '' : `${managed.resetMethods.join(' ')}\n`,
      },
    ),
  };
}

function chosenMethods({ pci }: PciFunction, text: string): ResetMethod[] {
  const written = word(text);
  if (written === '') return [];
  if (written === 'default') return RESET_METHODS.filter((method) => offersMethod(pci, method));
  const names = text.split('\0', 1)[0]?.split(' ') ?? [];
  const chosen = names.map((name) => name.trim()).filter((name) => name !== '');
  return chosen.map((name) => {
    const method = RESET_METHODS.find((each) => each === name);
    if (method === undefined) throw new Errno('EINVAL', `${quoted(name)} is not a reset method`);
    if (!offersMethod(pci, method)) {
      throw new Errno('EINVAL', `${pci.name} does not support reset method ${method} now`);
    }
    return method;
  });
}
