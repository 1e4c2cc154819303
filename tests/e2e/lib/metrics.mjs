// The Prometheus text format, as far as a test needs it.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';

/** Fails where Prometheus' own linter finds fault with an exposition. */
export function lintMetrics(text, whose) {
  const result = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  if (result.error)
    throw new Error(`promtool cannot run (tests/cluster/tools installs it): ${result.error.message}`);
  assert.deepEqual([result.status, result.stdout + result.stderr], [0, ''], `promtool on ${whose}`);
}

/**
 * The sum over all series of one metric whose labels match.
 *
 * @param {string} text
 * @param {string} name
 * @param {Record<string, string>} [labels]
 */
export function sum(text, name, labels = {}) {
  let total = 0;
  let found = false;
  for (const line of text.split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(\{.*\})?\s+(\S+)/.exec(line);
    if (!match || match[1] !== name) continue;
    const has = ([k, v]) => match[2]?.includes(`${k}="${v}"`);
    if (!Object.entries(labels).every(has)) continue;
    found = true;
    total += Number(match[3]);
  }
  return found ? total : null;
}

/** The names of all metrics. */
export function names(text) {
  return [...text.matchAll(/^# TYPE (\S+) /gm)].map((m) => m[1]);
}
