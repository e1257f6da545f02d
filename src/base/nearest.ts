/** The word somebody meant: the closest of those that exist, by number of single-letter edits (swaps count as one). */

/** Edits from `a` to `b`: insert, delete, replace, swap neighbours. Gives up and answers `limit + 1` above `limit`. */
function distance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) > limit) return limit + 1;
  let before: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1];
      let best = Math.min(
        (last[j] ?? 0) + 1,
        (row[j - 1] ?? 0) + 1,
        (last[j - 1] ?? 0) + (same ? 0 : 1),
      );
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, (before[j - 2] ?? 0) + 1);
      }
      row.push(best);
    }
    before = last;
    last = row;
  }
  return last[b.length] ?? limit + 1;
}

/**
 * The words of `known` that are close to `word`, closest first.
 * @param most how many to give at most
 */
export function nearestWords(word: string, known: Iterable<string>, most = 3): string[] {
  const lower = word.toLowerCase();
  const limit = Math.max(2, Math.floor(word.length / 3));
  const scored: { word: string; score: number }[] = [];
  for (const candidate of known) {
    const score = distance(lower, candidate.toLowerCase(), limit);
    if (score <= limit) scored.push({ word: candidate, score });
  }
  return scored
    .sort((a, b) => a.score - b.score)
    .slice(0, most)
    .map((entry) => entry.word);
}

/** The closest word; undefined if none is close. */
export function nearestWord(word: string, known: Iterable<string>): string | undefined {
  return nearestWords(word, known, 1)[0];
}
