// What the gateway and the worker behind it refuse.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { clusterTarget } from '../lib/cluster-target.mjs';
import { kubectl, mintToken } from '../lib/kube.mjs';
import { refusalCases } from '../lib/refusal-cases.mjs';

refusalCases({
  open: clusterTarget,
  room: (target) => target.room(),
  otherRoom: 'default/no-such-meeting',
  closeRoom: (target, room) => target.closeRoom(room),
});

describe('refusals of a Meeting', { concurrency: false }, () => {
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

  test('a full meeting turns the next one away, and takes them when somebody left', async () => {
    const room = await target.room({ maxParticipants: 2 });
    const alice = await stage.joined('alice', room);
    const bob = await stage.joined('bob', room);
    const carol = await stage.peer('carol');
    const ticket = await target.invite({ identity: 'carol', room });
    const refused = await carol.tryJoin(ticket);
    assert.equal(refused.ok, false);
    assert.match(refused.error.message, /MeetingFull/);
    assert.equal((await alice.view()).remote.length, 1);
    await bob.leave();
    await alice.event('participantDisconnected', (e) => e.identity === 'bob');
    await carol.until('is let in', async () => (await carol.tryJoin(ticket)).ok);
    await stage.clear();
  });

  test('a token of one meeting opens no other', async () => {
    const [room, other] = [await target.room(), await target.room()];
    const { token } = await target.invite({ identity: 'alice', room: other });
    const { url } = await target.invite({ identity: 'judge', room });
    // The token says which meeting it is for: there is no other place to say it, so this joins `other`.
    const peer = await stage.peer('alice');
    await peer.join({ url, token });
    assert.equal((await peer.view()).name, other);
    await stage.clear();
  });

  test('a locked meeting lets nobody new in', async () => {
    const room = await target.room();
    const name = room.split('/')[1];
    const alice = await stage.joined('alice', room);
    await kubectl([
      '-n',
      target.namespace,
      'patch',
      'meeting',
      name,
      '--type=merge',
      '-p',
      '{"spec":{"locked":true}}',
    ]);
    const bob = await stage.peer('bob');
    await bob.until('is turned away', async () => {
      const { token } = await target.invite({ identity: 'bob', room });
      const answer = await bob.tryJoin({ url: (await target.invite({ identity: 'bob', room })).url, token });
      if (answer.ok) await bob.leave();
      return !answer.ok && /MeetingLocked/.test(answer.error.message);
    });
    assert.equal((await alice.view()).state, 'connected');
    await stage.clear();
  });

  test('the live API refuses what makes no sense, with a sentence', async () => {
    const room = await target.room();
    const name = room.split('/')[1];
    const refused = [
      [{ identity: '', role: 'host' }, /identity/i],
      [{ identity: 'x'.repeat(200), role: 'host' }, /identity|128/i],
      [{ identity: 'alice', role: 'king' }, /role/i],
      [{ identity: 'alice', role: 'host', ttlSeconds: -1 }, /ttl|-1/i],
    ];
    for (const [spec, words] of refused) {
      await assert.rejects(mintToken(target.namespace, name, spec), words, JSON.stringify(spec));
    }
    await assert.rejects(mintToken(target.namespace, 'no-such', { identity: 'alice' }), /not ?found/i);
  });
});
