// WHIP and WHEP on a single server: what they bring in and out, beside stock clients.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Stage } from '../lib/call.mjs';
import { devTarget } from '../lib/dev-target.mjs';
import { waitRising } from '../lib/wait.mjs';

const SCRIPT = fileURLToPath(new URL('../page/whip.js', import.meta.url));
/** `ParticipantInfo.Kind` */
const INGRESS = 1;
const EGRESS = 2;

describe('WHIP and WHEP', { skip: !!process.env.PLENUM_E2E_URL }, () => {
  let target, stage;
  before(async () => {
    target = await devTarget();
    stage = await Stage.open(target);
  });
  afterEach(() => stage.clear());
  after(async () => {
    await stage?.close();
    await target?.close();
  });

  /** A page that speaks `protocol` with the server in the name of `identity`. */
  async function speaker(protocol, identity, room, { grant, path = `/${room}` } = {}) {
    const peer = await stage.peer(identity);
    await peer.page.addScriptTag({ path: SCRIPT });
    const { url, token } = await target.invite({ identity, room, grant });
    const endpoint = `${url.replace(/^ws/, 'http')}/${protocol}${path}`;
    const call = (name, ...args) => peer.page.evaluate(([n, a]) => globalThis.whip[n](...a), [name, args]);
    return { peer, call, options: { url: endpoint, token } };
  }

  const kindOf = (peer, identity) =>
    peer.page.evaluate((id) => globalThis.room.remoteParticipants.get(id)?.kind ?? null, identity);

  for (const simulcast of [false, true]) {
    test(`an encoder publishes${simulcast ? ' in layers' : ''}, trickles, restarts and leaves`, async () => {
      const room = randomUUID();
      const alice = await stage.joined('alice', room);
      const { call, options } = await speaker('whip', 'camera', room);
      const made = await call('publish', { ...options, simulcast });
      assert.equal(made.status, 201, JSON.stringify(made));
      assert.equal(made.acceptPatch, 'application/trickle-ice-sdpfrag');
      await alice.waitDecoded('camera');
      await alice.waitAudible('camera');
      assert.equal(await kindOf(alice, 'camera'), INGRESS);

      assert.equal((await call('trickle')).status, 204);
      assert.equal((await call('trickle', '"another"')).status, 412);
      assert.equal((await call('trickle', null)).status, 428);
      const before = await call('numbers');
      const restarted = await call('restart');
      assert.equal(restarted.status, 200, JSON.stringify(restarted));
      assert.notEqual(restarted.etag, made.etag);
      assert.match(restarted.body, /a=candidate:/);
      assert.notEqual((await call('numbers')).ufrag, before.ufrag);
      await alice.waitDecoded('camera');
      assert.equal((await call('trickle', made.etag)).status, 412);

      assert.equal(await call('end'), 200);
      await alice.event('participantDisconnected', (e) => e.identity === 'camera');
      assert.equal(await call('end'), 404);
      assert.equal((await call('trickle')).status, 404);
    });
  }

  test('a closed tab is a participant less', async () => {
    const room = randomUUID();
    const alice = await stage.joined('alice', room);
    const { peer, call, options } = await speaker('whip', 'camera', room, { path: '' });
    assert.equal((await call('publish', { ...options, url: `${options.url}?source=screen` })).status, 201);
    await alice.waitDecoded('camera', { source: 'ScreenShare' });
    await peer.page.close();
    await alice.event('participantDisconnected', (e) => e.identity === 'camera');
  });

  test('a player is shown who publishes first, and the next without another word', async () => {
    const room = randomUUID();
    const watcher = await stage.joined('watcher', room);
    const { peer, call, options } = await speaker('whep', 'player', room, { grant: { canPublish: false } });
    // Nobody publishes yet.
    assert.equal((await call('play', options)).status, 201);
    await watcher.until('the player is there', async () => (await kindOf(watcher, 'player')) === EGRESS);
    const decodes = async (what) => {
      await waitRising(async () => (await call('numbers')).video?.frames, {
        what: `the player decodes ${what}`,
        diagnose: stage.diagnose,
      });
      await waitRising(async () => (await call('numbers')).audio?.energy, {
        what: `the player hears ${what}`,
        diagnose: stage.diagnose,
      });
      return call('numbers');
    };
    const alice = await stage.joined('alice', room);
    await alice.publishCamera();
    await alice.publishTone();
    const first = await decodes('alice');
    const bob = await stage.joined('bob', room);
    await bob.publishCamera({ width: 320, height: 180 });
    await bob.publishTone();
    await watcher.waitDecoded('bob', { width: 320, height: 180 });
    await alice.leave();
    await peer.until('the player is shown bob', async () => (await call('numbers')).video.width === 320);
    const second = await decodes('bob');
    assert.deepEqual([second.video.ssrc, second.audio.ssrc], [first.video.ssrc, first.audio.ssrc]);
    assert.equal((await call('restart')).status, 200);
    await decodes('bob after an ICE restart');
    assert.equal(await call('end'), 200);
    await watcher.event('participantDisconnected', (e) => e.identity === 'player');
  });

  test('a player may ask for one participant', async () => {
    const room = randomUUID();
    const alice = await stage.joined('alice', room);
    await alice.publishCamera();
    const bob = await stage.joined('bob', room);
    await bob.publishCamera({ width: 320, height: 180 });
    await alice.waitDecoded('bob', { width: 320, height: 180 });
    const { peer, call, options } = await speaker('whep', 'player', room);
    assert.equal((await call('play', { ...options, url: `${options.url}?participant=bob` })).status, 201);
    await peer.until('the player is shown bob', async () => (await call('numbers')).video?.width === 320);
  });

  test('what a server does not take is refused with a code and words', async () => {
    const room = randomUUID();
    const { call, options } = await speaker('whip', 'camera', room);
    const viewer = await speaker('whip', 'viewer', room, { grant: { canPublish: false } });
    const deaf = await speaker('whep', 'deaf', room, { grant: { canSubscribe: false } });
    const refused = async (answer, status, code) => {
      const { problem, ...rest } = await answer;
      assert.deepEqual([rest.status, problem?.code], [status, code]);
      assert.ok(problem.cause && problem.remedy);
    };
    await refused(call('publish', { ...options, token: '' }), 401, 'TokenMissing');
    await refused(call('publish', { ...options, token: 'x' }), 401, 'TokenMalformed');
    await refused(call('publish', { ...options, url: `${options.url}-not` }), 403, 'TokenWrongMeeting');
    await refused(call('play', options), 400, 'SdpInvalid');
    await refused(viewer.call('publish', viewer.options), 403, 'NotPermitted');
    await refused(deaf.call('play', deaf.options), 403, 'NotPermitted');
    for (const [method, status] of [
      ['GET', 405],
      ['POST', 415],
    ]) {
      const headers = { authorization: `Bearer ${options.token}` };
      const body = method === 'POST' ? '{}' : undefined;
      assert.equal((await fetch(options.url, { method, headers, body })).status, status);
    }
  });
});
