// Sound as stock clients send and receive it: redundant data where both have it, and what encoders are told.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { devTarget } from '../lib/dev-target.mjs';

for (const [version, singlePeerConnection] of [
  ['v1', true],
  ['v0', false],
]) {
  describe(`sound, ${version}`, { concurrency: false, skip: !!process.env.PLENUM_E2E_URL }, () => {
    /** @type {Stage} */ let stage;
    let target;
    let room;

    before(async () => {
      target = await devTarget();
      stage = await Stage.open(target);
    });
    after(async () => {
      await stage?.close();
      await target?.close?.();
    });
    afterEach(() => stage.clear());

    /** These people; `bare` ones have a browser without redundant data. */
    async function gathered(identities, bare = []) {
      room = `room-${randomUUID()}`;
      return Promise.all(
        identities.map(async (identity) => {
          const peer = await stage.peer(identity);
          if (bare.includes(identity)) await peer.call('withoutRed');
          const ticket = await target.invite({ identity, room });
          return peer.join({ ...ticket, roomOptions: { singlePeerConnection } });
        }),
      );
    }

    const sent = (peer) => peer.call('outbound', 'Microphone');
    const got = (peer, identity) => peer.call('inbound', identity, 'Microphone');
    const sends = (peer, codec) =>
      peer.until(`sends ${codec}`, async () => {
        const stats = await sent(peer);
        return stats?.packetsSent > 20 && stats.codec === codec && stats;
      });
    /** Nothing is lost here, so the decoder has no use for what comes along, and says how much it was. */
    const redundant = async (peer, identity) => {
      const { packetsDiscarded, packetsReceived } = await peer.until(`packets of ${identity}`, async () => {
        const stats = await got(peer, identity);
        return stats?.packetsReceived > 50 && stats;
      });
      return packetsDiscarded / packetsReceived;
    };

    test('redundant data is sent and received by default', async (t) => {
      const [alice, bob] = await gathered(['alice', 'bob']);
      await alice.publishMicrophone();
      await sends(alice, 'audio/red');
      await bob.waitAudible('alice');
      const share = await redundant(bob, 'alice');
      t.diagnostic(`redundant: ${share}`);
      assert.ok(share > 0.5, `${share}`);
      assert.equal((await bob.track('alice', 'microphone')).mimeType, 'audio/red');
      const answer = await alice.call('answeredAudio', 'Microphone');
      assert.match(answer, /^audio \d+ UDP\/TLS\/RTP\/SAVPF 63 111\r\n/);
      assert.match(answer, /a=fmtp:63 111\/111\r\n/);
      assert.match(answer, /a=rtcp-fb:111 nack\r\n/);
      assert.match(answer, /a=fmtp:111 .*usedtx=1/);
      assert.doesNotMatch(answer, /[; ]stereo=1/);
    });

    test('a browser without redundant data hears one that has it', async () => {
      const [alice, bob, carol] = await gathered(['alice', 'bob', 'carol'], ['bob']);
      await alice.publishMicrophone();
      await sends(alice, 'audio/red');
      await Promise.all([bob.waitAudible('alice'), carol.waitAudible('alice')]);
      const [bare, full] = await Promise.all([redundant(bob, 'alice'), redundant(carol, 'alice')]);
      assert.ok(bare < 0.1 && full > 0.5, `${bare} ${full}`);
    });

    test('a browser that has redundant data hears one without it', async () => {
      const [alice, bob] = await gathered(['alice', 'bob'], ['alice']);
      await alice.publishMicrophone();
      await sends(alice, 'audio/opus');
      await bob.waitAudible('alice');
      assert.equal((await bob.track('alice', 'microphone')).mimeType, 'audio/opus');
    });

    test('what a client announces of its sound is what its encoder is told', async () => {
      const [alice, bob] = await gathered(['alice', 'bob']);
      await alice.publishMicrophone({ red: false, dtx: false, forceStereo: true });
      await sends(alice, 'audio/opus');
      await bob.waitAudible('alice');
      assert.ok((await redundant(bob, 'alice')) < 0.1);
      const answer = await alice.call('answeredAudio', 'Microphone');
      assert.match(answer, /^audio \d+ UDP\/TLS\/RTP\/SAVPF 111 63\r\n/);
      assert.match(answer, /a=fmtp:111 .*;stereo=1/);
      assert.doesNotMatch(answer, /usedtx=1/);
    });
  });
}
