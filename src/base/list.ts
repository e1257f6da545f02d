/** Lists whose order means something, so that they are no sets. */

/** Takes the first occurrence of an item out of a list, if it is in it. */
export function remove<T>(list: T[], item: T): void {
  const index = list.indexOf(item);
  if (index >= 0) list.splice(index, 1);
}
