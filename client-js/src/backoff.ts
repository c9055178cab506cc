/** How long to stay away after a failure. Pure. */

const FIRST_MS = 500;

/**
 * A moment between now and a limit that doubles with each failure ("full jitter"): those who were cut off together come
 * back spread out over the whole time, and not in step.
 */
export function fullJitter(failures: number, capMs: number, random: () => number = Math.random): number {
  const limit = Math.min(capMs, FIRST_MS * 2 ** Math.max(failures - 1, 0));
  return Math.round(limit * random());
}
