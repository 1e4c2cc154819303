// Other WebRTC stacks in a call with Chromium: each publishes and receives sound and pictures.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, afterEach, before, describe, test } from 'node:test';
import { dispose } from '@livekit/rtc-node';
import { Stage } from '../../e2e/lib/call.mjs';
import { launch } from '../../e2e/lib/browser.mjs';
import { devTarget } from '../../e2e/lib/dev-target.mjs';
import { STACKS } from '../lib/stacks.mjs';
import { tcpOnly } from '../lib/tcp-only.mjs';

describe('another stack', { concurrency: false }, () => {
  let target;
  let relayed;
  /** @type {Stage} */ let stage;
  /** @type {import('../lib/stacks.mjs').Participant | undefined} */
  let guest;

  before(async () => {
    target = await devTarget();
    relayed = await tcpOnly(target);
    stage = await Stage.open(target, [launch]);
  });
  afterEach(async () => {
    await guest?.leave();
    guest = undefined;
    await stage.clear();
  });
  after(async () => {
    await stage?.close();
    await relayed?.close();
    await target?.close();
    await dispose();
  });

  for (const { stack, protocol, enter, relayed: throughRelay } of STACKS) {
    test(`${stack} over ${protocol} and Chromium see and hear each other`, async () => {
      const room = `room-${randomUUID()}`;
      const host = await stage.joined('host', room);
      guest = await enter(throughRelay ? relayed : target, 'guest', room);
      await Promise.all([
        guest.publish(),
        (async () => {
          await host.publishCamera();
          await host.publishTone();
        })(),
      ]);
      await Promise.all([
        host.waitDecoded('guest', guest.size),
        host.waitAudible('guest'),
        guest.waitSeen('host', { width: 640, height: 360 }),
        guest.waitHeard('host'),
      ]);
      const protocols = await guest.protocols();
      assert.ok(protocols.length > 0 && protocols.every((p) => p === protocol), `over ${protocols}`);
    });
  }
});
