// The metrics of a single server follow the call.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { devTarget } from '../lib/dev-target.mjs';
import { lintMetrics, sum } from '../lib/metrics.mjs';
import { waitFor } from '../lib/wait.mjs';

test('metrics rise and fall with a call', { skip: !!process.env.PLENUM_E2E_URL }, async (t) => {
  const target = await devTarget();
  t.after(() => target.close());
  const stage = await Stage.open(target);
  t.after(() => stage.close());
  const gauge = async (name) => sum(await target.metrics(), name);
  const reach = (name, value) =>
    waitFor(async () => (await gauge(name)) === value, {
      what: `${name} is ${value}`,
      diagnose: stage.diagnose,
    });

  await reach('plenum_worker_participants', 0);
  const room = `room-${randomUUID()}`;
  const [alice, bob] = await Promise.all([stage.joined('alice', room), stage.joined('bob', room)]);
  await alice.publishCamera();
  await bob.waitDecoded('alice');
  await reach('plenum_worker_participants', 2);
  await reach('plenum_worker_rooms', 1);
  const layer = 'plenum_worker_video_subscriptions';
  await waitFor(async () => sum(await target.metrics(), layer, { layer: 'high' }) === 1, {
    what: 'the layer that bob gets is shown',
    diagnose: stage.diagnose,
  });
  for (const name of [
    'rtp_loss_ratio',
    'rtp_jitter_seconds',
    'rtt_seconds',
    'quality_score_ratio',
    'stream_quality_score_ratio',
  ]) {
    const count = `plenum_worker_${name}_count`;
    await waitFor(async () => sum(await target.metrics(), count, { pool: 'dev' }) > 0, {
      what: `${count} of the pool rises`,
      diagnose: stage.diagnose,
    });
  }
  const text = await target.metrics();
  lintMetrics(text, 'the worker');
  // Rooms may be named in dev mode, people never.
  for (const name of ['alice', 'bob']) assert.ok(!text.includes(name), `a metric names ${name}`);
  await alice.leave();
  await bob.leave();
  await reach('plenum_worker_participants', 0);
});
