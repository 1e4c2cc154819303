// What clients of another stack must be able to do, among themselves and with browsers.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { dispose } from '@livekit/rtc-node';
import { Stage } from '../../e2e/lib/call.mjs';
import { NativePeer, WIDTH, HEIGHT } from './native-peer.mjs';

const RED = [200, 30, 30];
const BLUE = [30, 30, 200];

/**
 * @param {{open: () => Promise<any>, room: (target: any) => Promise<string>,
 *   closeRoom?: (target: any, room: string) => Promise<void>}} options
 */
export function interopCases({ open, room: newRoom, closeRoom = async () => {} }) {
  describe('the native stack', { concurrency: false }, () => {
    let target;
    let room;
    /** @type {NativePeer[]} */
    let peers = [];
    /** @type {Stage | undefined} */
    let stage;

    before(async () => {
      target = await open();
    });
    afterEach(async () => {
      await Promise.all(peers.map((peer) => peer.leave().catch(() => {})));
      peers = [];
      await stage?.close();
      stage = undefined;
      if (room) await closeRoom(target, room);
      room = undefined;
    });
    after(async () => {
      await target?.close?.();
      await dispose();
    });

    async function joined(identity) {
      const peer = new NativePeer(identity);
      peers.push(peer);
      return peer.join(await target.invite({ identity, room }));
    }

    test('two see and hear each other, and a third who joins late sees both', async (t) => {
      room = await newRoom(target);
      const [alice, bob] = await Promise.all([joined('alice'), joined('bob')]);
      await Promise.all([
        alice.publishCamera(RED),
        alice.publishTone(440),
        bob.publishCamera(BLUE),
        bob.publishTone(880),
      ]);
      const [blue, red] = await Promise.all([alice.waitSeen('bob'), bob.waitSeen('alice')]);
      assert.ok(red.colour[0] > red.colour[2] + 60, `alice is not red: ${red.colour}`);
      assert.ok(blue.colour[2] > blue.colour[0] + 60, `bob is not blue: ${blue.colour}`);
      const heard = await Promise.all([alice.waitHeard('bob'), bob.waitHeard('alice')]);
      t.diagnostic(`loudest: ${heard.map((h) => h.loudest).join(' and ')} of 32768`);
      const carol = await joined('carol');
      await Promise.all([carol.waitSeen('alice'), carol.waitSeen('bob'), carol.waitHeard('alice')]);
    });

    test('data arrives both ways, reliable and lossy', async () => {
      room = await newRoom(target);
      const [alice, bob] = await Promise.all([joined('alice'), joined('bob')]);
      await alice.until('bob is there', () => alice.room.remoteParticipants.has('bob'));
      await bob.until('alice is there', () => bob.room.remoteParticipants.has('alice'));
      await alice.send('hello', { reliable: true, topic: 'greeting' });
      assert.equal((await bob.waitData('hello', 'alice')).topic, 'greeting');
      await bob.send('hello back', { reliable: true });
      await alice.waitData('hello back', 'bob');
      await bob.until('lossy data', async () => {
        await alice.send('lossy', { reliable: false });
        return bob.data.some((d) => d.text === 'lossy');
      });
    });

    test('a leave is seen', async () => {
      room = await newRoom(target);
      const [alice, bob] = await Promise.all([joined('alice'), joined('bob')]);
      await bob.until('alice is there', () => bob.room.remoteParticipants.has('alice'));
      await alice.leave();
      await bob.until('alice left', () => bob.left.includes('alice'));
    });

    test('a browser and a native client see and hear each other and share data', async () => {
      room = await newRoom(target);
      stage = await Stage.open(target);
      const [native, browser] = await Promise.all([joined('native'), stage.joined('browser', room)]);
      await Promise.all([native.publishCamera(RED), native.publishTone(440)]);
      await browser.publishCamera();
      await browser.publishTone();
      await Promise.all([
        browser.waitDecoded('native', { width: WIDTH, height: HEIGHT }),
        browser.waitAudible('native'),
        native.waitSeen('browser', { width: 640, height: 360 }),
        native.waitHeard('browser'),
      ]);
      await native.send('from native', { reliable: true });
      await browser.event('dataReceived', (e) => e.text === 'from native' && e.identity === 'native');
      await browser.call('sendData', { text: 'from browser', reliable: true });
      await native.waitData('from browser', 'browser');
    });
  });
}
