// What nobody watches is not sent, and comes back at once: seen at the publisher's own encoder.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { devTarget } from '../lib/dev-target.mjs';

const SIMULCAST = { simulcast: true };
const FULL = { width: 640, height: 360 };
const LEAST = { width: 320, height: 180 };

/** In the page: which encodings of the camera are switched on, by name, `` where there is but one. */
function encodings() {
  const { room } = globalThis;
  const { sender } = room.localParticipant.getTrackPublication('camera').track;
  return sender
    .getParameters()
    .encodings.filter((encoding) => encoding.active)
    .map((encoding) => encoding.rid ?? '');
}

/** In the page: shows the other's camera in a box of that size. */
function show([identity, width, height]) {
  const element = globalThis.document.querySelector(`video[data-identity="${identity}"]`);
  Object.assign(element.style, {
    display: width > 0 ? 'block' : 'none',
    width: `${width}px`,
    height: `${height}px`,
  });
}

function setEnabled([identity, enabled]) {
  const { room } = globalThis;
  room.remoteParticipants.get(identity).getTrackPublication('camera').setEnabled(enabled);
}

for (const { version, singlePeerConnection } of [
  { version: 'v1', singlePeerConnection: true },
  { version: 'v0', singlePeerConnection: false },
]) {
  describe(`wishes, ${version}`, { concurrency: false }, () => {
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

    const joined = (identity, options = {}) =>
      stage.joined(identity, room, { roomOptions: { singlePeerConnection, ...options } });

    async function pair(options) {
      room = `room-${randomUUID()}`;
      return Promise.all([joined('alice'), joined('bob', options)]);
    }

    const sends = (peer, ...layers) =>
      peer.until(`sends ${layers.join() || 'nothing'}`, async () => {
        const now = await peer.page.evaluate(encodings);
        return now.join() === layers.join() && { now };
      });

    test('a layer that nobody wants is not encoded, and the track that nobody watches is not sent', async () => {
      const [alice, bob] = await pair();
      await alice.publishCamera(SIMULCAST);
      await bob.waitDecoded('alice', FULL);
      await sends(alice, 'q', 'h');
      await bob.call('setQuality', 'alice', 'Camera', 'LOW');
      await sends(alice, 'q');
      await bob.waitDecoded('alice', LEAST);
      await bob.call('setQuality', 'alice', 'Camera', 'HIGH');
      await sends(alice, 'q', 'h');
      await bob.waitDecoded('alice', FULL);

      await bob.page.evaluate(setEnabled, ['alice', false]);
      await sends(alice);
      await bob.page.evaluate(setEnabled, ['alice', true]);
      await sends(alice, 'q', 'h');
      await bob.waitDecoded('alice', FULL);

      await bob.leave();
      await sends(alice);
      const carol = await joined('carol');
      await carol.waitDecoded('alice', FULL);
      await sends(alice, 'q', 'h');
    });

    test('a camera of one size is switched off and on as a whole', async () => {
      const [alice, bob] = await pair();
      await alice.publishCamera();
      await bob.waitDecoded('alice', FULL);
      await bob.call('setSubscribed', 'alice', 'Camera', false);
      await sends(alice);
      await bob.call('setSubscribed', 'alice', 'Camera', true);
      await bob.waitDecoded('alice', FULL);
      await bob.call('setQuality', 'alice', 'Camera', 'LOW');
      await bob.waitDecoded('alice', FULL);
    });

    test('the layer follows the box that the picture is shown in', async () => {
      const [alice, bob] = await pair({ adaptiveStream: true });
      await alice.publishCamera(SIMULCAST);
      await bob.event('trackSubscribed', (e) => e.identity === 'alice');
      await bob.page.evaluate(show, ['alice', 640, 360]);
      await bob.waitDecoded('alice', FULL);
      await bob.page.evaluate(show, ['alice', 200, 112]);
      await bob.waitDecoded('alice', LEAST);
      await sends(alice, 'q');
      await bob.page.evaluate(show, ['alice', 0, 0]);
      await sends(alice);
      await bob.page.evaluate(show, ['alice', 640, 360]);
      await sends(alice, 'q', 'h');
      await bob.waitDecoded('alice', FULL);
    });

    test('a second codec that nobody needs is not published', async () => {
      const [alice, bob] = await pair();
      await alice.page.evaluate(() =>
        globalThis.room.localParticipant.setCameraEnabled(
          true,
          { resolution: { width: 640, height: 360, frameRate: 12 } },
          { videoCodec: 'vp9', backupCodec: true },
        ),
      );
      const codec = async (peer) => (await peer.waitDecoded('alice', FULL)).codec;
      assert.equal(await codec(bob), 'video/VP9');
      // The wish goes to nothing and comes back: with it the client publishes what else is wanted.
      await bob.leave();
      await sends(alice);
      const carol = await joined('carol');
      assert.equal(await codec(carol), 'video/VP9');
      const published = await alice.page.evaluate(() => {
        const { track } = globalThis.room.localParticipant.getTrackPublication('camera');
        return [...track.simulcastCodecs].filter(([, info]) => info.sender).map(([name]) => name);
      });
      assert.deepEqual(published, []);
    });
  });
}
