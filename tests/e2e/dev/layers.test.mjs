// Layers within one stream (SVC): who asks for less gets a smaller picture, and the larger one again.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { devTarget } from '../lib/dev-target.mjs';
import { waitRising } from '../lib/wait.mjs';

/** Codec, mode, the largest and the least size. Encoders of this size keep up in software; Chromium leaves out
 * layers that would get too small. */
const CASES = [
  { videoCodec: 'vp9', scalabilityMode: 'L2T2_KEY', full: [640, 360], least: [320, 180] },
  { videoCodec: 'vp9', scalabilityMode: 'L2T3', full: [640, 360], least: [320, 180] },
  { videoCodec: 'vp9', scalabilityMode: 'L3T3_KEY', full: [960, 540], least: [240, 136] },
  { videoCodec: 'av1', scalabilityMode: 'L2T2_KEY', full: [640, 360], least: [320, 180] },
  { videoCodec: 'av1', scalabilityMode: 'L3T3_KEY', full: [640, 360], least: [320, 180] },
];

describe('layers within a stream', { concurrency: false }, () => {
  let target;
  let stage;

  before(async () => {
    target = await devTarget();
    stage = await Stage.open(target);
  });
  after(async () => {
    await stage?.close();
    await target?.close();
  });
  afterEach(() => stage.clear());

  for (const { videoCodec, scalabilityMode, full, least } of CASES) {
    test(`${videoCodec} ${scalabilityMode}: the size follows what is asked for, both ways`, async (t) => {
      const room = `room-${randomUUID()}`;
      const [alice, bob] = await Promise.all([stage.joined('alice', room), stage.joined('bob', room)]);
      const [width, height] = full;
      await alice.publishCamera({
        width,
        height,
        frameRate: 12,
        videoCodec,
        scalabilityMode,
        videoEncoding: { maxBitrate: 1_200_000, maxFramerate: 12 },
      });
      const inbound = () => bob.call('inbound', 'alice', 'Camera');
      const size = async ([w, h]) => {
        await bob.until(`alice's picture is ${w}x${h}`, async () => {
          const stats = await inbound();
          return stats?.frameWidth === w && stats.frameHeight === h;
        });
        await waitRising(async () => (await inbound())?.framesDecoded, {
          what: `pictures of ${w}x${h} go on`,
          diagnose: bob.diagnose,
        });
      };
      await size(full);
      const before = await inbound();
      assert.equal(before.codec?.toLowerCase(), `video/${videoCodec}`);

      await bob.call('setQuality', 'alice', 'Camera', 'LOW');
      await size(least);
      await bob.call('setQuality', 'alice', 'Camera', 'HIGH');
      await size(full);

      const now = await inbound();
      // A decoder that got what it can't decode asks for a key frame.
      assert.equal(now.pliCount, before.pliCount, JSON.stringify({ before, now }));
      t.diagnostic(
        `freezes ${now.freezeCount - before.freezeCount}, ` +
          `${(now.totalFreezesDuration - before.totalFreezesDuration).toFixed(2)} s`,
      );
    });
  }
});
