// Waiting for a condition: the only way a test of this suite lets time pass.

/** Generous, so that a busy machine is slow and not wrong. */
export const LIMIT_MS = Number(process.env.PLENUM_E2E_LIMIT_MS ?? 60_000);
const STEP_MS = 100;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Asks `probe` again and again until it answers something truthy, and answers that.
 * A probe that throws has not answered yet; its last error is part of the failure.
 *
 * @template T
 * @param {() => T | Promise<T>} probe
 * @param {{what: string, limitMs?: number, stepMs?: number, diagnose?: (what: string) => Promise<string>}} options
 * @returns {Promise<NonNullable<T>>}
 */
export async function waitFor(probe, { what, limitMs = LIMIT_MS, stepMs = STEP_MS, diagnose }) {
  const end = performance.now() + limitMs;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= end) break;
    await pause(stepMs);
  }
  const seen = last instanceof Error ? `${last.name}: ${last.message}` : JSON.stringify(last);
  const more = diagnose ? `\n${await diagnose(what).catch((e) => `no diagnosis: ${e.message}`)}` : '';
  throw new Error(`not seen within ${limitMs} ms: ${what}; last answer: ${seen}${more}`);
}

/**
 * Waits until `sample` has grown twice in a row: a counter that moves, not one that moved once.
 *
 * @param {() => Promise<number | null | undefined>} sample
 * @param {Parameters<typeof waitFor>[1]} options
 */
export async function waitRising(sample, options) {
  const seen = [];
  await waitFor(async () => {
    const value = await sample();
    if (typeof value === 'number' && (seen.length === 0 || value > seen.at(-1))) seen.push(value);
    return seen.length >= 3;
  }, options);
  return seen;
}
