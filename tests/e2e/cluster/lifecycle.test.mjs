// A call goes on whatever happens to the control plane, and ends when its Meeting does.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { clusterTarget, openMeeting, unique } from '../lib/cluster-target.mjs';
import { SYSTEM, condition, find, kubectl, podMetrics, pods, waitForObject } from '../lib/kube.mjs';
import { killAll, waitBack } from '../lib/faults.mjs';
import { lintMetrics, names, sum } from '../lib/metrics.mjs';
import { waitFor } from '../lib/wait.mjs';

describe('the life of a call', { concurrency: false }, () => {
  /** @type {Stage} */ let stage;
  let target;

  before(async () => {
    target = await clusterTarget();
    stage = await Stage.open(target);
  });
  after(async () => {
    await stage?.close();
    await target?.close();
  });
  afterEach(() => stage.clear());

  async function pair(room) {
    const [alice, bob] = await Promise.all([stage.joined('alice', room), stage.joined('bob', room)]);
    await Promise.all([alice.publishCamera(), bob.publishCamera(), alice.publishTone(), bob.publishTone()]);
    await Promise.all([alice.waitDecoded('bob'), bob.waitDecoded('alice')]);
    return [alice, bob];
  }

  const interruptions = async (peer) =>
    (await peer.events())
      .map((e) => e.type)
      .filter((type) => /^(reconnecting|signalReconnecting|disconnected)$/.test(type));

  test('kill -9 of every controller does not disturb a call, and the controllers come back', async () => {
    const room = await target.room();
    const name = room.split('/')[1];
    const [alice, bob] = await pair(room);
    const before = await find('meeting', name, target.namespace);
    const victims = await killAll('controller');
    assert.ok(victims.length > 0);
    await Promise.all([alice.waitDecoded('bob'), bob.waitDecoded('alice'), alice.waitAudible('bob')]);
    // People join with a token minted meanwhile.
    const carol = await stage.joined('carol', room);
    await carol.waitDecoded('alice');
    await waitBack('controller', victims, stage.diagnose);
    // It works again, and has left the call where it was.
    await openMeeting(target.namespace, unique('after'), {});
    const now = await find('meeting', name, target.namespace);
    assert.deepEqual(now.status.assignment, before.status.assignment);
    assert.equal(condition(now, 'Ready').status, 'True');
    await Promise.all([alice.waitDecoded('bob'), bob.waitDecoded('alice')]);
    assert.deepEqual([await interruptions(alice), await interruptions(bob)], [[], []]);
  });

  test('restarting every gateway costs no media, and clients resume by themselves', async () => {
    const room = await target.room();
    const [alice, bob] = await pair(room);
    await kubectl(['-n', SYSTEM, 'rollout', 'restart', 'deployment/plenum-gateway']);
    await kubectl(['-n', SYSTEM, 'rollout', 'status', 'deployment/plenum-gateway', '--timeout=110s']);
    // Both sockets led to gateways that are gone now.
    for (const peer of [alice, bob]) {
      await peer.event('reconnected');
      await peer.until('is connected', async () => (await peer.view()).state === 'connected');
    }
    await Promise.all([alice.waitDecoded('bob'), bob.waitDecoded('alice'), bob.waitAudible('alice')]);
    await alice.call('sendData', { text: 'still here', reliable: true });
    await bob.event('dataReceived', (e) => e.text === 'still here' && e.identity === 'alice');
    const events = [...(await alice.events()), ...(await bob.events())].map((e) => e.type);
    assert.ok(!events.includes('disconnected') && !events.includes('participantDisconnected'), events.join());
    assert.ok(!events.includes('trackUnsubscribed'), 'a track was lost on the way');
    const carol = await stage.joined('carol', room);
    await carol.waitDecoded('alice');
  });

  test('metrics rise and fall with a call, and name nobody', async () => {
    const room = await target.room();
    const gauge = async (metric) => sum(await target.metrics(room), metric);
    const reach = (metric, accept) =>
      waitFor(async () => accept(await gauge(metric)), { what: metric, diagnose: stage.diagnose });
    const idle = await gauge('plenum_worker_participants');
    const packets = (await gauge('plenum_worker_rtp_packets_total')) ?? 0;
    await pair(room);
    await reach('plenum_worker_participants', (value) => value === idle + 2);
    await reach('plenum_worker_rtp_packets_total', (value) => value > packets);
    const text = await target.metrics(room);
    lintMetrics(text, 'the worker');
    for (const component of ['controller', 'gateway']) {
      for (const { metadata } of await pods(component)) {
        lintMetrics(await podMetrics(metadata.name, SYSTEM), metadata.name);
      }
    }
    assert.ok(names(text).length > 5);
    for (const name of [room, room.split('/')[1], 'alice', 'bob']) {
      assert.ok(!text.includes(name), `a metric names ${name}`);
    }
    await stage.clear();
    await reach('plenum_worker_participants', (value) => value === idle);
  });

  test('the status tells of the session, and of the last one', async () => {
    const room = await target.room({ departureTimeout: '1s' });
    const name = room.split('/')[1];
    await pair(room);
    const active = await waitForObject(
      'meeting',
      name,
      target.namespace,
      'is active with two',
      (m) => condition(m, 'Active')?.status === 'True' && m.status.participants === 2,
    );
    assert.equal(condition(active, 'Ready').reason, 'Active');
    await stage.clear();
    const idle = await waitForObject(
      'meeting',
      name,
      target.namespace,
      'is idle again',
      (m) => condition(m, 'Active')?.status === 'False' && m.status.lastSession?.end,
    );
    assert.equal(idle.status.lastSession.peak, 2);
    assert.equal(condition(idle, 'Ready').status, 'True');
  });

  test('deleting the Meeting ends the call with its reason', async () => {
    const room = await target.room();
    const name = room.split('/')[1];
    const [alice, bob] = await pair(room);
    await kubectl(['-n', target.namespace, 'delete', 'meeting', name, '--timeout=60s']);
    for (const peer of [alice, bob]) {
      const end = await peer.event('disconnected');
      assert.equal(end.reason, 'ROOM_DELETED');
    }
    assert.equal(await find('meeting', name, target.namespace), null);
  });
});
