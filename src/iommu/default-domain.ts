/**
 * Which kind of default domain a group gets: what drivers insist on, what untrusted devices force, what was asked for.
 *
 * After drivers/iommu/iommu.c: iommu_get_default_domain_type, iommu_get_def_domain_type.
 */
import { Errno } from '../base/errno.ts';
import type { IommuDevice } from './domain.ts';
import type { IommuGroup } from './group.ts';

export type DefaultDomainKind = 'identity' | 'dma' | 'dma-fq';

/**
 * @param wanted an explicit request; undefined for none
 * @returns the kind, or undefined where only the boot options are left to ask
 * @throws Errno EINVAL when the request, the drivers and the trust of the members contradict each other
 */
export function chooseDefaultDomainKind(
  group: IommuGroup,
  wanted: DefaultDomainKind | undefined,
): DefaultDomainKind | undefined {
  const untrusted = group.members.findLast((device) => device.untrusted);
  const preferred = driverKind(group.members);
  if (untrusted !== undefined && preferred !== undefined && preferred !== 'dma') {
    throw new Errno(
      'EINVAL',
      `${untrusted.name} is not trusted, but the IOMMU driver wants group ${group.id} on ${preferred}`,
    );
  }
  const forced = untrusted === undefined ? preferred : 'dma';
  if (wanted !== undefined && forced !== undefined && wanted !== forced) {
    throw new Errno(
      'EINVAL',
      untrusted === undefined
        ? `the IOMMU driver wants group ${group.id} on ${forced}, not ${wanted}`
        : `${untrusted.name} is not trusted, so group ${group.id} stays on ${forced}`,
    );
  }
  return wanted ?? forced;
}

// Members of one group must agree; where they do not, identity wins.
function driverKind(members: readonly IommuDevice[]): 'identity' | 'dma' | undefined {
  const kinds = members.map((device) => device.ops.defaultDomainType?.(device));
  if (kinds.includes('identity')) return 'identity';
  return kinds.includes('dma') ? 'dma' : undefined;
}
