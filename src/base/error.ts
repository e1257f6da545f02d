/**
 * The base of every error that uiommu throws on purpose: refusals of the machine, wrong input of people, a host that cannot
 * do what was asked. Programs tell them apart by class and by `code`, which is stable; people read the message.
 * Anything else that is thrown is a bug of uiommu.
 */
export abstract class UiommuError extends Error {
  /** "EINVAL" for a refusal of the machine, "INPUT", "USAGE", … for the others */
  abstract readonly code: string;
}
