/**
 * IOMMU_OPTION, and what else concerns a context as a whole: DESTROY, CHANGE_PROCESS.
 *
 * After iommufd_option, iommufd_destroy (drivers/iommu/iommufd/main.c), iommufd_option_rlimit_mode,
 * iommufd_ioas_option_huge_pages and iommufd_ioas_change_process (ioas.c).
 */
import { Errno } from '../base/errno.ts';
import {
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  type iommu_destroy,
  type iommu_ioas_change_process,
  type iommu_option,
} from '../uapi/iommufd.ts';
import { payerOf, type Payer } from '../pinning/accounting.ts';
import { Ioas } from './ioas.ts';
import type { Pages } from '../pinning/pages.ts';
import type { Ucmd } from './ucmd.ts';
import { reservedSet } from '../uapi/refusals.ts';

export function destroy({ context, cmd }: Ucmd<iommu_destroy>): undefined {
  context.objects.destroy(cmd.id);
}

export function option(ucmd: Ucmd<iommu_option>): undefined {
  const { cmd } = ucmd;
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  switch (cmd.option_id) {
    case IOMMU_OPTION_RLIMIT_MODE:
      rlimitMode(ucmd);
      break;
    case IOMMU_OPTION_HUGE_PAGES:
      hugePages(ucmd);
      break;
    default:
      throw new Errno('EOPNOTSUPP', `option ${cmd.option_id} is not known`);
  }
  ucmd.respondField('val64');
}

function rlimitMode({ context, task, cmd }: Ucmd<iommu_option>): void {
  if (cmd.object_id !== 0) {
    throw new Errno(
      'EOPNOTSUPP',
      `RLIMIT_MODE concerns the whole file, not object ${cmd.object_id}`,
    );
  }
  if (cmd.op === IOMMU_OPTION_OP_GET) {
    cmd.val64 = context.accountMode === 'mm' ? 1n : 0n;
    return;
  }
  if (cmd.op !== IOMMU_OPTION_OP_SET) throw unknownOp(cmd.op);
  if (!task.capable('CAP_SYS_RESOURCE')) {
    throw new Errno('EPERM', 'changing RLIMIT_MODE needs CAP_SYS_RESOURCE');
  }
  if (!context.objects.isEmpty) {
    throw new Errno('EBUSY', 'RLIMIT_MODE can only be set before the first object is made');
  }
  if (cmd.val64 !== 0n && cmd.val64 !== 1n) throw badValue(cmd.val64);
  context.accountMode = cmd.val64 === 1n ? 'mm' : 'user';
}

function hugePages({ context, cmd }: Ucmd<iommu_option>): void {
  const { iopt } = context.objects.get(Ioas, cmd.object_id);
  if (cmd.op === IOMMU_OPTION_OP_GET) {
    cmd.val64 = iopt.largePagesOff ? 0n : 1n;
    return;
  }
  if (cmd.op !== IOMMU_OPTION_OP_SET) throw unknownOp(cmd.op);
  if (cmd.val64 === 0n) iopt.disableLargePages();
  else if (cmd.val64 === 1n) iopt.enableLargePages();
  else throw badValue(cmd.val64);
}

function unknownOp(op: number): Errno {
  return new Errno('EOPNOTSUPP', `operation ${op} is neither SET nor GET`);
}

function badValue(value: bigint): Errno {
  return new Errno('EINVAL', `value ${value} is neither 0 nor 1`);
}

/** Moves the charge for all pinned pages to the calling process, all or nothing. */
export function ioasChangeProcess({
  context,
  task,
  cmd,
}: Ucmd<iommu_ioas_change_process>): undefined {
  if (cmd.__reserved !== 0) throw reservedSet(cmd.__reserved);
  const { accounting, faults } = context.environment;
  const sets = new Set<Pages>();
  for (const ioas of context.objects.live()) {
    if (!(ioas instanceof Ioas)) continue;
    faults.alloc('list of IOAS');
    for (const area of ioas.iopt.areas) {
      if (area.pages.source.kind !== 'file') {
        throw new Errno(
          'EINVAL',
          `area ${String(area)} of ${String(ioas)} is not backed by a file`,
        );
      }
      sets.add(area.pages);
    }
  }
  const caller = payerOf(task, context.accountMode);
  const moves = [...sets]
    .map((pages) => ({ pages, payer: { ...caller, mode: pages.payer.mode } }))
    .filter(({ pages, payer }) => isAnother(pages.payer, payer));
  const done: typeof moves = [];
  try {
    for (const move of moves) {
      accounting.charge(move.payer, move.pages.pinned);
      done.push(move);
    }
  } catch (error) {
    for (const { pages, payer } of done) accounting.uncharge(payer, pages.pinned);
    throw error;
  }
  for (const { pages, payer } of moves) {
    accounting.uncharge(pages.payer, pages.pinned);
    pages.payer = payer;
  }
}

/** After need_charge_update: nobody pays in mode none, and the process counts in the others. */
function isAnother(old: Payer, payer: Payer): boolean {
  switch (payer.mode) {
    case 'none':
      return false;
    case 'mm':
    case 'locked':
      return old.memory !== payer.memory;
    case 'user':
      return old.uid !== payer.uid || old.memory !== payer.memory;
  }
}
