/**
 * The tokens by which the user of a physical function and those of its virtual functions trust each other. A virtual function
 * whose physical function is bound to the same driver opens only with the token of that one; the physical function keeps its
 * token while virtual functions are open.
 *
 * After drivers/vfio/pci/vfio_pci_core.c: vfio_pci_core_match, vfio_pci_core_match_token_uuid.
 */
import { Errno } from '../../base/errno.ts';
import { bytesOfHex } from '../../machine/hex.ts';
import type { PciDevice } from '../../machine/pci/device.ts';

export const UUID_BYTES = 16;

type Token = {
  /** 16 bytes; none can match before somebody set one */
  uuid: Uint8Array | undefined;
  /** virtual functions that are open */
  users: number;
};

export class VfTokens {
  readonly #byPhysfn = new Map<PciDevice, Token>();

  /** A physical function is bound to the driver. */
  add(pci: PciDevice): void {
    this.#byPhysfn.set(pci, { uuid: undefined, users: 0 });
  }

  remove(pci: PciDevice): void {
    this.#byPhysfn.delete(pci);
  }

  /** The function has virtual functions, so it has a token. */
  has(pci: PciDevice): boolean {
    return this.#byPhysfn.has(pci);
  }

  /** FEATURE: a new token, whoever uses the old one. */
  set(pci: PciDevice, uuid: Uint8Array): void {
    const token = this.#byPhysfn.get(pci);
    if (token !== undefined) token.uuid = uuid;
  }

  #ofPhysfn(pci: PciDevice): Token | undefined {
    return pci.physfn && this.#byPhysfn.get(pci.physfn);
  }

  opened(pci: PciDevice): void {
    const token = this.#ofPhysfn(pci);
    if (token !== undefined) token.users++;
  }

  closed(pci: PciDevice): void {
    const token = this.#ofPhysfn(pci);
    if (token !== undefined) token.users--;
  }

  /**
   * @param given 16 bytes, or undefined for none
   * @throws Errno EACCES for a missing or wrong token, EINVAL for one that nobody asked for
   */
  match(pci: PciDevice, given: Uint8Array | undefined): void {
    if (pci.physfn !== undefined) {
      const token = this.#ofPhysfn(pci);
      if (token !== undefined) refuseOther(pci, token, given);
      else if (given !== undefined) throw unwanted(pci);
      return;
    }
    const own = this.#byPhysfn.get(pci);
    if (own === undefined) {
      if (given !== undefined) throw unwanted(pci);
    } else if (own.users > 0) {
      refuseOther(pci, own, given);
    } else if (given !== undefined) {
      own.uuid = given.slice();
    }
  }
}

const OPTION = 'vf_token=';
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/i;

/**
 * The token in what GET_DEVICE_FD names after the device, as in "0000:04:10.0 vf_token=UUID".
 * @param options what follows the address
 * @returns 16 bytes; undefined for no token
 * @throws Errno EINVAL for another option, a second token, and what is no UUID
 */
export function tokenOption(options: string): Uint8Array | undefined {
  let token: Uint8Array | undefined;
  for (let rest = options.replace(/^ +/, ''); rest !== '';) {
    const uuid = rest.startsWith(OPTION) ? UUID.exec(rest.slice(OPTION.length))?.[0] : undefined;
    if (uuid === undefined || token !== undefined) {
      throw new Errno('EINVAL', `"${rest}" is not one vf_token=UUID`);
    }
    token = bytesOfHex(uuid.replaceAll('-', ''));
    rest = rest.slice(OPTION.length + uuid.length).replace(/^ +/, '');
  }
  return token;
}

function unwanted(pci: PciDevice): Errno {
  return new Errno(
    'EINVAL',
    `${pci.name} takes no token: user space has none of its virtual functions`,
  );
}

function refuseOther(pci: PciDevice, token: Token, given: Uint8Array | undefined): void {
  if (given === undefined) {
    throw new Errno('EACCES', `${pci.name} opens only with the token of its physical function`);
  }
  if (token.uuid?.every((byte, i) => byte === given[i]) !== true) {
    throw new Errno('EACCES', `the token is not that of the physical function of ${pci.name}`);
  }
}
