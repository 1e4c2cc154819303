// The judges themselves, on objects made by hand.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { argoHealth, kstatus } from '../lib/health.mjs';

const condition = (type, status, reason = type) => ({ type, status, reason, message: `${reason} "it" is` });
const object = (conditions, { observed = 3, ...metadata } = {}) => ({
  metadata: { name: 'standup', generation: 3, ...metadata },
  status: { observedGeneration: observed, conditions },
});

const CASES = [
  ['no status at all', { metadata: { generation: 1 } }, 'Current', 'Progressing'],
  ['never observed', object([], { observed: -1 }), 'InProgress', 'Progressing'],
  [
    'an older generation observed',
    object([condition('Ready', 'True')], { observed: 2 }),
    'InProgress',
    'Progressing',
  ],
  ['ready', object([condition('Ready', 'True', 'Idle')]), 'Current', 'Healthy'],
  ['suspended', object([condition('Ready', 'True', 'Suspended')]), 'Current', 'Suspended'],
  ['not ready', object([condition('Ready', 'False', 'NoCapacity')]), 'InProgress', 'Progressing'],
  [
    'stalled',
    object([condition('Ready', 'False', 'PoolNotFound'), condition('Stalled', 'True', 'PoolNotFound')]),
    'Failed',
    'Degraded',
  ],
  [
    'reconciling while ready',
    object([condition('Ready', 'True', 'Idle'), condition('Reconciling', 'True', 'Moving')]),
    'InProgress',
    'Progressing',
  ],
  [
    'being deleted',
    object([condition('Ready', 'True')], { deletionTimestamp: '2026-01-01T00:00:00Z' }),
    'Terminating',
    'Progressing',
  ],
];

for (const [name, given, expected, argo] of CASES) {
  test(name, () => {
    assert.equal(kstatus(given), expected);
    assert.equal(argoHealth(given).status, argo);
  });
}

test('the message names the reason', () => {
  assert.equal(argoHealth(object([condition('Ready', 'True', 'Idle')])).message, 'Idle: Idle "it" is');
});
