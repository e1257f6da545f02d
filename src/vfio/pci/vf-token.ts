/**
 * The tokens by which the user of a physical function and those of its virtual functions trust each other. A virtual function
 * whose physical function is bound to the same driver opens only with the token of that one; the physical function keeps its
 * token while virtual functions are open.
 *
 * After drivers/vfio/pci/vfio_pci_core.c: vfio_pci_core_match_token_uuid.
 */
import { Errno } from '../../base/errno.ts';
import type { PciDevice } from '../../machine/pci/device.ts';

type Token = {
  /** 16 bytes; none can match before somebody set one */
  uuid: Uint8Array | undefined;
  /** virtual functions that are open */
  users: number;
};

export class VfTokens {
  readonly #byPhysfn = new Map<PciDevice, Token>();

  /** A function is bound to the driver. */
  add(pci: PciDevice): void {
    if (pci.sriovOffset !== 0) this.#byPhysfn.set(pci, { uuid: undefined, users: 0 });
  }

  remove(pci: PciDevice): void {
    this.#byPhysfn.delete(pci);
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

function unwanted(pci: PciDevice): Errno {
  return new Errno(
    'EINVAL',
    `${pci.name} takes no token: it has no virtual functions in user hands`,
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
