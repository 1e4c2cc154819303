// What a server must refuse, and what must not disturb anybody else.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { SessionDescription, SignalRequest } from '@livekit/protocol';
import { Stage } from './call.mjs';
import { badTokens } from './tokens.mjs';

/** Asks the endpoint that clients ask when their socket was refused. */
async function validate(http, path, token) {
  const query = token ? `?access_token=${encodeURIComponent(token)}` : '';
  const response = await fetch(`${http}${path}/validate${query}`, {
    headers: { origin: 'http://localhost:1' },
  });
  return {
    status: response.status,
    body: await response.text(),
    readableFromAnywhere: response.headers.get('access-control-allow-origin') !== null,
  };
}

/** A named part of a test: hooks run around whole tests, and these share one call. */
async function step(name, run) {
  try {
    await run();
  } catch (error) {
    throw new Error(`${name}: ${error.message}`, { cause: error });
  }
}

const hasCode = (text, codes) => codes.some((code) => text.includes(code));

/**
 * @param {{
 *   open: () => Promise<any>,
 *   room: (target: any, options?: object) => Promise<string>,
 *   otherRoom: string,
 *   closeRoom?: (target: any, room: string) => Promise<void>,
 * }} options
 */
export function refusalCases({ open, room: newRoom, otherRoom, closeRoom = async () => {} }) {
  describe('refusals', { concurrency: false }, () => {
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

    test('bad tokens get their code, over HTTP and in the stock client', async () => {
      room = await newRoom(target);
      const tokens = await badTokens(await target.keysOf(room), room, otherRoom);
      const { url } = await target.invite({ identity: 'judge', room });
      const http = url.replace(/^ws/, 'http');
      const peer = await stage.peer('mallory');
      for (const { name, token, codes, status, anyRoom, strict } of tokens) {
        if ((anyRoom && !target.roomsAreObjects) || (strict && !target.ours)) continue;
        await step(name, async () => {
          const answer = await validate(http, '/rtc', token);
          assert.ok(answer.readableFromAnywhere, 'no Access-Control-Allow-Origin');
          if (target.ours) {
            assert.ok([status].flat().includes(answer.status), JSON.stringify(answer));
            assert.ok(hasCode(answer.body, codes), answer.body);
            assert.ok(!token || !answer.body.includes(token), 'the token is echoed');
          }
          if (!token) return; // The stock client does not try without one.
          for (const singlePeerConnection of [true, false]) {
            const joined = await peer.tryJoin({ url, token, roomOptions: { singlePeerConnection } });
            assert.equal(joined.ok, false);
            assert.ok([401, 403, 404].includes(joined.error.status), JSON.stringify(joined.error));
            if (target.ours) assert.ok(hasCode(joined.error.message, codes), joined.error.message);
          }
        });
      }
    });

    test('a client that talks nonsense is dropped, and nobody else notices', async () => {
      room = await newRoom(target);
      const [alice, bob] = await Promise.all([stage.joined('alice', room), stage.joined('bob', room)]);
      await alice.publishCamera();
      await bob.waitDecoded('alice');
      const nonsense = new SignalRequest({
        message: { case: 'offer', value: new SessionDescription({ type: 'offer', sdp: 'v=what?', id: 7 }) },
      });
      const frames = [
        { name: 'bytes that are no message', bytes: new Uint8Array(64).fill(0xff) },
        { name: 'a session description that is none', bytes: nonsense.toBinary() },
        { name: 'a frame of two megabytes', bytes: new Uint8Array(2 << 20) },
      ];
      for (const { name, bytes } of frames) {
        await step(name, async () => {
          const mallory = await stage.peer('mallory');
          const identity = name.replaceAll(' ', '-');
          const { url, token } = await target.invite({ identity, room });
          const end = await mallory.page.evaluate(sendRaw, [
            `${url}/rtc?access_token=${token}&protocol=15&sdk=js&version=2.0.0&auto_subscribe=1`,
            Buffer.from(bytes).toString('base64'),
          ]);
          assert.ok(end.greeted, `no greeting before the nonsense: ${JSON.stringify(end)}`);
          await mallory.page.context().close();
          stage.peers = stage.peers.filter((peer) => peer !== mallory);
          await bob.waitDecoded('alice');
        });
      }
      assert.ok(!(await bob.events()).some((e) => /reconnecting|disconnected$/i.test(e.type) && !e.identity));
    });
  });
}

/** In the page: a bare socket that sends one frame after its greeting and waits for the end. */
function sendRaw([url, base64]) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.binaryType = 'arraybuffer';
    let greeted = false;
    socket.onmessage = () => {
      if (greeted) return;
      greeted = true;
      socket.send(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)));
    };
    socket.onclose = (event) => resolve({ greeted, code: event.code, reason: event.reason });
  });
}
