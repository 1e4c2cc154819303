// The cases that any server of a call must pass, written once and run on each kind of target.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Stage } from './call.mjs';

/** Both versions of the client protocol: one peer connection, and two. */
const VERSIONS = [
  { version: 'v1', roomOptions: { singlePeerConnection: true }, connections: ['publisher'] },
  { version: 'v0', roomOptions: { singlePeerConnection: false }, connections: ['publisher', 'subscriber'] },
];

/**
 * @param {{
 *   open: () => Promise<import('./call.mjs').Target & {close?: () => Promise<void>}>,
 *   room: (target: any, options?: object) => Promise<string>,
 *   closeRoom?: (target: any, room: string) => Promise<void>,
 * }} options
 */
export function callCases({ open, room: newRoom, closeRoom = async () => {} }) {
  for (const { version, roomOptions, connections } of VERSIONS) {
    describe(`a call, ${version}`, { concurrency: false }, () => {
      /** @type {Stage} */ let stage;
      let target;
      let room;

      before(async () => {
        target = await open();
        stage = await Stage.open(target);
      });
      after(async () => {
        await stage?.close();
        await target?.close?.();
      });
      afterEach(async () => {
        await stage.clear();
        if (room) await closeRoom(target, room);
        room = undefined;
      });

      const joined = (identity, invite) => stage.joined(identity, room, { roomOptions, invite });

      /** People who all know of each other: data may outrun the news of who sent it. */
      async function gathered(...identities) {
        const peers = await Promise.all(identities.map((identity) => joined(identity)));
        await Promise.all(
          peers.map((peer) =>
            peer.until('everyone', async () => (await peer.view()).remote.length === peers.length - 1),
          ),
        );
        return peers;
      }

      /** Two people with camera and microphone on, who see and hear each other. */
      async function pair() {
        room = await newRoom(target);
        const [alice, bob] = await Promise.all([joined('alice'), joined('bob')]);
        await Promise.all(
          [alice, bob].map(async (peer) => {
            await peer.publishCamera();
            await peer.publishMicrophone();
          }),
        );
        await Promise.all([alice.waitDecoded('bob'), bob.waitDecoded('alice')]);
        return [alice, bob];
      }

      test('two browsers decode each other and hear each other', async (t) => {
        const [alice, bob] = await pair();
        const heard = await Promise.all([alice.waitAudible('bob'), bob.waitAudible('alice')]);
        t.diagnostic(`mean power ${heard.map((h) => h.power.toExponential(1)).join(' and ')}`);
        const transports = await alice.call('transports');
        assert.deepEqual(
          transports.map((c) => c.name),
          connections,
        );
        t.diagnostic(`connections ${JSON.stringify(transports)}`);
      });

      test('a third who joins late decodes both', async (t) => {
        await pair();
        const from = performance.now();
        const carol = await joined('carol');
        await Promise.all([carol.waitDecoded('alice'), carol.waitDecoded('bob')]);
        t.diagnostic(`join to both decoded: ${Math.round(performance.now() - from)} ms`);
        const stats = await carol.call('inbound', 'alice', 'Camera');
        assert.ok(stats.keyFramesDecoded >= 1, JSON.stringify(stats));
        await carol.waitAudible('alice');
      });

      test('data arrives, reliable and lossy, for all and for one', async () => {
        room = await newRoom(target);
        const [alice, bob, carol] = await gathered('alice', 'bob', 'carol');
        const got = (peer, text, kind) =>
          peer.event('dataReceived', (e) => e.text === text && e.identity === 'alice' && e.kind === kind);
        await alice.call('sendData', { text: 'to all', reliable: true, topic: 'greeting' });
        const [first] = await Promise.all([got(bob, 'to all', 'RELIABLE'), got(carol, 'to all', 'RELIABLE')]);
        assert.equal(first.topic, 'greeting');
        // Lossy may be lost: it is sent until it arrives.
        await bob.until('lossy data from alice', async () => {
          await alice.call('sendData', { text: 'lossy', reliable: false });
          return (await bob.events()).some((e) => e.text === 'lossy' && e.kind === 'LOSSY');
        });
        await alice.call('sendData', { text: 'for bob', reliable: true, to: ['bob'] });
        await alice.call('sendData', { text: 'end', reliable: true });
        await Promise.all([got(bob, 'for bob', 'RELIABLE'), got(carol, 'end', 'RELIABLE')]);
        assert.ok(!(await carol.events()).some((e) => e.text === 'for bob'));
        await bob.call('sendData', { text: 'back', reliable: true });
        await alice.event('dataReceived', (e) => e.text === 'back' && e.identity === 'bob');
      });

      test('reliable data keeps its order and its size', async () => {
        room = await newRoom(target);
        const [alice, bob] = await gathered('alice', 'bob');
        const sent = Array.from({ length: 20 }, (_, i) => `message ${i} `);
        for (const text of sent) await alice.call('sendData', { text, size: 12_000, reliable: true });
        await bob.until(
          'all messages',
          async () => (await bob.events()).filter((e) => e.type === 'dataReceived').length >= sent.length,
        );
        const got = (await bob.events()).filter((e) => e.type === 'dataReceived');
        assert.deepEqual(
          got.map((e) => e.text.replaceAll('\0', '')),
          sent,
        );
        assert.ok(got.every((e) => e.size === 12_000));
      });

      test('mute and unmute are seen, and stop and start the media', async () => {
        const [alice, bob] = await pair();
        await alice.call('setMuted', 'Camera', true);
        await bob.event('trackMuted', (e) => e.identity === 'alice' && e.source === 'camera');
        await bob.waitStill('alice');
        const mark = (await bob.events()).length;
        await alice.call('setMuted', 'Camera', false);
        await bob.event('trackUnmuted', (e) => e.identity === 'alice' && e.source === 'camera', mark);
        await bob.waitDecoded('alice');
        await alice.call('setMuted', 'Microphone', true);
        await bob.event('trackMuted', (e) => e.source === 'microphone', mark);
        await alice.call('setMuted', 'Microphone', false);
        await bob.event('trackUnmuted', (e) => e.source === 'microphone', mark);
        await bob.waitAudible('alice');
      });

      test('one who joins later sees who is muted', async () => {
        room = await newRoom(target);
        const alice = await joined('alice');
        await alice.publishMicrophone();
        await alice.call('setMuted', 'Microphone', true);
        const bob = await joined('bob');
        await bob.until('alice is muted', async () => (await bob.track('alice', 'microphone'))?.muted);
      });

      test('unsubscribing stops a track for one, and subscribing brings it back', async () => {
        const [alice, bob] = await pair();
        await bob.call('setSubscribed', 'alice', 'Camera', false);
        await bob.event('trackUnsubscribed', (e) => e.identity === 'alice' && e.source === 'camera');
        await alice.waitDecoded('bob');
        const mark = (await bob.events()).length;
        await bob.call('setSubscribed', 'alice', 'Camera', true);
        await bob.event('trackSubscribed', (e) => e.identity === 'alice', mark);
        await bob.waitDecoded('alice');
      });

      test('unpublishing is seen, and so is the next track', async () => {
        const [alice, bob] = await pair();
        await alice.call('unpublish', 'Camera');
        await bob.event('trackUnpublished', (e) => e.identity === 'alice' && e.source === 'camera');
        await alice.publishCamera({ width: 320, height: 240 });
        await bob.waitDecoded('alice', { width: 320, height: 240 });
        await bob.waitAudible('alice');
      });

      test('a leave is seen, and so is a page that closes', async () => {
        const [alice, bob] = await pair();
        const carol = await joined('carol');
        await Promise.all(
          [alice, bob].map((p) => p.event('participantConnected', (e) => e.identity === 'carol')),
        );
        await carol.leave();
        await bob.event('participantDisconnected', (e) => e.identity === 'carol');
        await alice.page.close({ runBeforeUnload: false });
        await bob.event('participantDisconnected', (e) => e.identity === 'alice');
        const { state, remote } = await bob.view();
        assert.deepEqual({ state, remote }, { state: 'connected', remote: [] });
      });

      test('who speaks is told to the others', async () => {
        room = await newRoom(target);
        const [alice, bob] = await Promise.all([joined('alice'), joined('bob')]);
        await alice.publishTone();
        await bob.event('activeSpeakersChanged', (e) => e.speakers.includes('alice'));
        const mark = (await bob.events()).length;
        await alice.call('stopTone');
        await bob.event('activeSpeakersChanged', (e) => !e.speakers.includes('alice'), mark);
      });

      test('name, metadata and attributes are told to the others', async () => {
        room = await newRoom(target);
        const alice = await joined('alice', {
          name: 'Alice A.',
          metadata: 'from the token',
          grant: { canUpdateOwnMetadata: true },
        });
        const bob = await joined('bob');
        const seen = async () => (await bob.view()).remote.find((p) => p.identity === 'alice');
        const first = await bob.until('alice', seen);
        assert.equal(first.name, 'Alice A.');
        assert.equal(first.metadata, 'from the token');
        await alice.call('setMetadata', { name: 'Alice B.', metadata: 'new', attributes: { hand: 'up' } });
        await bob.until('what changed', async () => {
          const now = await seen();
          return now?.name === 'Alice B.' && now.metadata === 'new' && now.attributes.hand === 'up';
        });
      });

      test('the layers of a simulcast camera follow what the viewer asks for', async () => {
        room = await newRoom(target);
        const [alice, bob] = await Promise.all([joined('alice'), joined('bob')]);
        await alice.publishCamera({ simulcast: true });
        await bob.waitDecoded('alice');
        await bob.call('setQuality', 'alice', 'Camera', 'LOW');
        await bob.waitDecoded('alice', { width: 320, height: 180 });
        await bob.call('setQuality', 'alice', 'Camera', 'HIGH');
        await bob.waitDecoded('alice', { width: 640, height: 360 });
      });

      for (const codec of ['H264', 'VP9', 'AV1']) {
        test(`a camera published in ${codec} is received in ${codec}`, async () => {
          room = await newRoom(target);
          const [alice, bob] = await Promise.all([joined('alice'), joined('bob')]);
          await alice.publishCamera({ videoCodec: codec.toLowerCase() });
          const stats = await bob.waitDecoded('alice');
          assert.equal(stats.codec, `video/${codec}`);
          assert.equal((await bob.track('alice', 'camera')).mimeType, `video/${codec}`);
          const carol = await joined('carol');
          assert.equal((await carol.waitDecoded('alice')).codec, `video/${codec}`);
        });
      }

      test('the same identity again ends the older connection', async () => {
        room = await newRoom(target);
        const older = await joined('alice');
        const bob = await joined('bob');
        await joined('alice');
        await older.event('disconnected', (e) => e.reason === 'DUPLICATE_IDENTITY');
        await bob.until('one alice', async () => {
          const { remote } = await bob.view();
          return remote.length === 1 && remote[0].identity === 'alice';
        });
      });

      test('a broken signalling socket is resumed, and nobody else notices', async () => {
        const [alice, bob] = await pair();
        const mark = (await bob.events()).length;
        await alice.call('breakSignal');
        await alice.event('reconnected');
        await Promise.all([alice.waitDecoded('bob'), bob.waitDecoded('alice')]);
        await alice.call('sendData', { text: 'still here', reliable: true });
        await bob.event('dataReceived', (e) => e.text === 'still here' && e.identity === 'alice');
        await bob.call('setMuted', 'Microphone', true);
        await alice.event('trackMuted', (e) => e.identity === 'bob');
        const news = (await bob.events()).slice(mark).map((e) => e.type);
        assert.ok(!news.some((type) => /^participant(Dis)?connected$/i.test(type)), news.join());
      });

      test('a grant without publishing cannot publish', async () => {
        room = await newRoom(target);
        const [alice, viewer] = await Promise.all([
          joined('alice'),
          joined('viewer', { grant: { canPublish: false, canPublishData: false } }),
        ]);
        await alice.publishMicrophone();
        await viewer.waitAudible('alice');
        await assert.rejects(viewer.publishMicrophone(), /permission|publish|NotAllowed/i);
        assert.deepEqual((await alice.view()).remote[0].tracks, []);
      });
    });
  }
}
