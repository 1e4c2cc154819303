// A camera with three layers on a network that narrows and widens: what somebody at its end sees.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { BadLink, NEAR } from '../lib/bad-link.mjs';
import { CHROMIUM, launch, launchApart } from '../lib/browser.mjs';
import { Stage } from '../lib/call.mjs';
import { devTarget } from '../lib/dev-target.mjs';
import { waitRising } from '../lib/wait.mjs';

/** Heights of the layers, the highest and the lowest: this size is the smallest that clients send three of. */
const [WIDTH, FULL, LEAST] = [960, 540, 180];
const FPS = 15;
const WIDE = 'clear delay=20ms rate=3M';
const NARROW = 'clear delay=20ms rate=400k';
/** What nobody should see. */
const LONG_S = 0.5;
/**
 * What a line forces that narrows at once: its queue of 300 ms is full before anybody can know, and then the first
 * picture of the lowest layer, a whole one, has to come behind it.
 */
const FORCED_S = 1;

/** In the page: writes down every freeze that the browser counts of a track, with its length, once it is over. */
function watchFreezes(identity) {
  const seen = (globalThis.freezes = []);
  let last = null;
  const look = async () => {
    const now = await globalThis.harness.inbound(identity, 'Camera');
    if (now && last && now.freezeCount > last.freezeCount) {
      const seconds = now.totalFreezesDuration - last.totalFreezesDuration;
      seen.push({ at: performance.now(), seconds: seconds / (now.freezeCount - last.freezeCount) });
    }
    last = now ?? last;
    setTimeout(look, 100);
  };
  void look();
}

describe('layers on a network that changes', { concurrency: false }, () => {
  let link;
  let target;
  let stage;

  before(async () => {
    link = await BadLink.open();
    target = await devTarget(NEAR);
    const apart = await link.atFarEnd(CHROMIUM);
    stage = await Stage.open(target, [launch, () => launchApart(apart)]);
  });
  after(async () => {
    await stage?.close();
    await target?.close();
    await link?.close();
  });
  afterEach(() => stage.clear());

  test('a narrow line gets the lowest layer and no pause, and a wide one the highest again', async (t) => {
    await link.set('both', 'clear delay=20ms');
    await link.set('down', WIDE);
    const alice = await stage.joined('alice', 'narrow');
    const bob = await stage.joined('bob', 'narrow');
    await alice.publishTone();
    await alice.publishCamera({ width: WIDTH, height: FULL, frameRate: FPS, simulcast: true });
    const inbound = () => bob.call('inbound', 'alice', 'Camera');
    const height = (wanted) =>
      bob.until(`alice's picture is ${wanted} high`, async () => (await inbound())?.frameHeight === wanted);
    const framesGoOn = async (count) => {
      const start = (await inbound()).framesDecoded;
      const what = `${count} more pictures`;
      await bob.until(what, async () => (await inbound()).framesDecoded >= start + count);
    };
    await height(FULL);
    await bob.page.evaluate(watchFreezes, 'alice');
    await framesGoOn(3 * FPS);
    const freezes = () => bob.page.evaluate(() => globalThis.freezes.splice(0));
    const longest = (list) => Math.max(0, ...list.map((freeze) => freeze.seconds));
    await freezes();

    await link.set('down', NARROW);
    await height(LEAST);
    await framesGoOn(FPS);
    const down = await freezes();
    await framesGoOn(15 * FPS);
    const narrow = await freezes();
    assert.equal((await inbound()).frameHeight, LEAST, 'stays on the layer that fits');

    await link.set('down', WIDE);
    await height(FULL);
    await framesGoOn(3 * FPS);
    const up = await freezes();

    const paused = (await bob.events()).filter((event) => event.streamState === 'paused');
    t.diagnostic(JSON.stringify({ down, narrow, up }));
    assert.deepEqual(paused, [], 'the only picture is never taken away');
    assert.ok(longest(down) <= LONG_S + FORCED_S, `down: ${JSON.stringify(down)}`);
    assert.ok(longest(narrow) <= LONG_S, `narrow: ${JSON.stringify(narrow)}`);
    assert.ok(longest(up) <= LONG_S, `up: ${JSON.stringify(up)}`);
    await waitRising(async () => (await inbound()).framesDecoded, {
      what: 'it goes on',
      diagnose: bob.diagnose,
    });
  });
});
