// What people do with kubectl: columns, tokens, participants, and what RBAC says to it.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { clusterTarget } from '../lib/cluster-target.mjs';
import { apply, json, kubectl, mintToken, waitForObject, condition } from '../lib/kube.mjs';

/** Rows of a kubectl table by column. */
function table(text) {
  const [header, ...rows] = text.trimEnd().split('\n');
  const columns = [...header.matchAll(/\S+(?: \S+)*/g)].map((m) => ({ name: m[0], at: m.index }));
  const cell = (row, i) => row.slice(columns[i].at, columns[i + 1]?.at).trim();
  return rows.map((row) => Object.fromEntries(columns.map((c, i) => [c.name, cell(row, i)])));
}

describe('kubectl', { concurrency: false }, () => {
  /** @type {Stage} */ let stage;
  let target;
  let ns;

  before(async () => {
    target = await clusterTarget();
    ns = target.namespace;
    stage = await Stage.open(target);
  });
  after(async () => {
    await stage?.close();
    await target?.close();
  });
  afterEach(() => stage.clear());

  test('get meeting -o wide tells where it stands', async () => {
    const room = await target.room({ title: 'Daily' });
    const name = room.split('/')[1];
    await stage.joined('alice', room);
    const meeting = await waitForObject(
      'meeting',
      name,
      ns,
      'is active',
      (m) => condition(m, 'Active')?.status === 'True' && m.status.participants === 1,
    );
    const [row] = table(await kubectl(['-n', ns, 'get', 'meeting', name, '-o', 'wide']));
    const { READY, REASON, WORKER, ACTIVE, PARTICIPANTS, TITLE } = row;
    assert.deepEqual(
      { READY, REASON, WORKER, ACTIVE, PARTICIPANTS, TITLE },
      {
        READY: 'True',
        REASON: 'Active',
        WORKER: meeting.status.assignment.worker,
        ACTIVE: 'True',
        PARTICIPANTS: '1',
        TITLE: 'Daily',
      },
    );
    assert.equal(row['JOIN URL'], meeting.status.joinURL);
    assert.match(meeting.status.joinURL, new RegExp(`^https?://.+/m/${ns}/${name}$`));
    assert.match(meeting.status.signalURL, /^wss?:\/\//);
  });

  test('a token of each role is minted, and carries that role', async () => {
    const room = await target.room();
    const name = room.split('/')[1];
    for (const role of ['host', 'cohost', 'participant', 'viewer']) {
      const { status } = await mintToken(ns, name, { identity: role, role, ttlSeconds: 600 });
      const claims = JSON.parse(Buffer.from(status.token.split('.')[1], 'base64url').toString());
      assert.equal(claims.sub, role);
      assert.equal(claims.video.room, room);
      const seconds = (Date.parse(status.expirationTimestamp) - Date.now()) / 1000;
      assert.ok(seconds > 0 && seconds <= 660, status.expirationTimestamp);
      assert.match(status.url, /^wss?:\/\//);
    }
    const viewer = await stage.joined('viewer', room, { invite: { role: 'viewer' } });
    await assert.rejects(viewer.publishMicrophone(), /permission|publish|NotAllowed/i);
  });

  test('get participants and delete participant', async () => {
    const room = await target.room();
    const [alice, bob] = [await stage.joined('alice', room), await stage.joined('bob', room)];
    await alice.publishMicrophone();
    const people = await alice.until('listed', async () => {
      const rows = table(await kubectl(['-n', ns, 'get', 'participants']));
      return rows.length === 2 && rows.some((r) => /microphone|audio/i.test(r.TRACKS)) && rows;
    });
    assert.ok(people.some((r) => r.NAME.includes('alice') && r.MEETING === room.split('/')[1]));
    const { items } = await json('-n', ns, 'get', 'participants');
    const { name } = items.find((p) => JSON.stringify(p).includes('"bob"')).metadata;
    const ticket = await target.invite({ identity: 'bob', room });
    await kubectl(['-n', ns, 'delete', 'participant', name]);
    const end = await bob.event('disconnected');
    assert.equal(end.reason, 'PARTICIPANT_REMOVED');
    await alice.event('participantDisconnected', (e) => e.identity === 'bob');
    // The tokens from before are worth nothing now.
    const again = await stage.peer('bob again');
    const refused = await again.tryJoin(ticket);
    assert.equal(refused.ok, false);
    assert.match(refused.error.message, /TokenRevoked/);
    await assert.rejects(kubectl(['-n', ns, 'delete', 'participant', 'nobody']), /not ?found/i);
  });

  test('RBAC says who may mint tokens, list people and send them away', async () => {
    const room = await target.room();
    const name = room.split('/')[1];
    const user = (account) => `--as=system:serviceaccount:${ns}:${account}`;
    const binding = (account, role) => ({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: account, namespace: ns },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
      subjects: [{ kind: 'ServiceAccount', name: account, namespace: ns }],
    });
    await apply(binding('reader', 'view'), binding('editor', 'edit'));
    const alice = await stage.joined('alice', room);
    const spec = { identity: 'mallory', role: 'host', ttlSeconds: 60 };

    await assert.rejects(mintToken(ns, name, spec, user('nobody')), /forbidden/i);
    await assert.rejects(mintToken(ns, name, spec, user('reader')), /forbidden/i);
    await assert.rejects(kubectl(['-n', ns, 'get', 'participants', user('nobody')]), /forbidden/i);
    await assert.rejects(kubectl(['-n', ns, 'delete', 'participant', 'alice', user('reader')]), /forbidden/i);
    assert.equal((await alice.view()).state, 'connected');

    assert.match(await kubectl(['-n', ns, 'get', 'participants', user('reader')]), /alice/);
    const { status } = await mintToken(ns, name, spec, user('editor'));
    assert.ok(status.token);
    // Rights in one namespace are none in another.
    await assert.rejects(mintToken('default', 'standup', spec, user('editor')), /forbidden/i);
  });
});
