// Frames encrypted end to end pass the worker as they are, and it still knows what it needs to.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { devTarget } from '../lib/dev-target.mjs';

const FULL = { width: 640, height: 360 };
const LEAST = { width: 320, height: 180 };

describe('end-to-end encryption', { concurrency: false }, () => {
  let target;
  /** @type {Stage} */ let stage;
  let room;

  before(async () => {
    target = await devTarget();
    stage = await Stage.open(target);
  });
  after(async () => {
    await stage?.close();
    await target?.close();
  });
  afterEach(() => stage.clear());

  async function joined(identity, passphrase = 'a secret between us') {
    const peer = await stage.peer(identity);
    return peer.join({ ...(await target.invite({ identity, room })), passphrase });
  }

  for (const videoCodec of ['vp8', 'h264', 'vp9']) {
    test(`${videoCodec} is seen by those who have the key, in every layer, and by nobody else`, async () => {
      room = `room-${randomUUID()}`;
      const [alice, bob, eve] = await Promise.all([joined('alice'), joined('bob'), joined('eve', 'guessed')]);
      const simulcast = videoCodec !== 'vp9';
      await alice.publishCamera({ videoCodec, simulcast });
      await bob.waitDecoded('alice', FULL);
      const track = await bob.track('alice', 'camera');
      assert.equal(track.encryption, 'GCM', 'subscribers are told');
      if (simulcast) {
        await bob.call('setQuality', 'alice', 'Camera', 'LOW');
        await bob.waitDecoded('alice', LEAST);
        await bob.call('setQuality', 'alice', 'Camera', 'HIGH');
        await bob.waitDecoded('alice', FULL);
      }
      // One who comes later needs a key frame that the server recognises as one.
      const carol = await joined('carol');
      await carol.waitDecoded('alice', FULL);
      const spied = await eve.call('inbound', 'alice', 'Camera');
      assert.ok(spied.packetsReceived > 0 && spied.framesDecoded === 0, JSON.stringify(spied));
    });
  }

  test('sound and data arrive', async () => {
    room = `room-${randomUUID()}`;
    const [alice, bob, eve] = await Promise.all([joined('alice'), joined('bob'), joined('eve', 'guessed')]);
    await alice.publishTone();
    await bob.waitAudible('alice');
    // The level is in the header: who speaks is known without the key.
    await bob.event('activeSpeakersChanged', (e) => e.speakers.includes('alice'));
    await bob.until('alice', async () => (await bob.view()).remote.some((p) => p.identity === 'alice'));
    await alice.call('sendData', { text: 'between us', reliable: true });
    await bob.event('dataReceived', (e) => e.text === 'between us' && e.identity === 'alice');
    assert.ok(!(await eve.events()).some((e) => e.type === 'dataReceived' && e.text === 'between us'));
  });
});
