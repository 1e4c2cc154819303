// Sixty people, twelve rooms on several workers: every one arrives, none twice, none lost.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { PageDriver } from '../../e2e/lib/breakout-drivers.mjs';
import { unique, workerPool } from '../../e2e/lib/cluster-target.mjs';
import { Conference } from '../../e2e/lib/conference.mjs';
import { SYSTEM, apply, condition, find, mintToken, remove, waitForObject } from '../../e2e/lib/kube.mjs';
import { waitFor } from '../../e2e/lib/wait.mjs';
import { Group } from '../lib/crowd.mjs';

const PEOPLE = 60;
const ROOMS = 12;
const IN_BROWSERS = ['host', 'ann', 'bob', 'cleo'];
const GROUPS = 4;
const SEATS = 5;
/** Sixty people fill most of such a worker, so that their rooms are worth a second one. */
const CAPACITY = 80;
const LIMIT_MS = 180_000;

describe('a crowd in breakout rooms', { concurrency: false }, () => {
  /** @type {Conference} */ let conference;
  /** @type {Group[]} */ let groups = [];
  const pool = unique('crowd');

  before(async () => {
    conference = await Conference.open();
    await apply(workerPool(pool, { replicas: 2, capacity: { participants: CAPACITY } }));
    await waitForObject(
      'mediaworkerpool',
      pool,
      SYSTEM,
      'is ready',
      (object) => condition(object, 'Ready')?.status === 'True' && object.status.readyReplicas === 2,
    );
  });
  after(async () => {
    await Promise.all(groups.map((group) => group.stop()));
    await conference?.close();
    await remove('mediaworkerpool', pool, SYSTEM, '--wait=false');
  });

  /** Everybody's place, once nobody is in two rooms. */
  async function settled(what, accept) {
    let places;
    await waitFor(
      async () => {
        places = await conference.whereabouts();
        return [...places.values()].every((room) => !room.includes('+')) && accept(places);
      },
      {
        what,
        limitMs: LIMIT_MS,
        stepMs: 500,
        diagnose: async () => `${JSON.stringify([...(places ?? [])])}\n${await conference.diagnose()}`,
      },
    );
    return places;
  }

  /** Every client is connected, and those in browsers see exactly whom the server has in their room. */
  async function agree(places, gone = new Set()) {
    for (const name of IN_BROWSERS) {
      const together = [...places].filter(([other, room]) => other !== name && room === places.get(name));
      await conference.people.get(name).sees(...together.map(([other]) => other));
    }
    await waitFor(
      async () => {
        const views = (await Promise.all(groups.map((group) => group.view()))).flat();
        const wrong = views.filter(({ identity, connected }) => !gone.has(identity) && !connected);
        return wrong.length === 0 || Promise.reject(new Error(JSON.stringify(wrong.slice(0, 3))));
      },
      { what: 'every client is connected', limitMs: LIMIT_MS, stepMs: 1000 },
    );
  }

  const count = (places) => {
    const counts = new Map();
    for (const room of places.values()) counts.set(room, (counts.get(room) ?? 0) + 1);
    return counts;
  };

  test('sixty people are spread over twelve rooms and recalled', async (t) => {
    await conference.meeting({
      maxParticipants: CAPACITY,
      breakouts: { closingCountdown: '10s' },
      workerPoolRef: { name: pool, namespace: SYSTEM },
    });
    const host = await conference.joins('host', { role: 'host' });
    for (const name of IN_BROWSERS.slice(1)) await conference.joins(name);
    groups = Array.from({ length: GROUPS }, () => new Group());
    for (let i = 0; i < PEOPLE - IN_BROWSERS.length; i++) {
      const identity = `p${i}`;
      const { status } = await mintToken(conference.namespace, conference.name, {
        identity,
        role: 'participant',
        ttlSeconds: 3600,
      });
      await groups[i % GROUPS].join({ identity, url: status.url, token: status.token });
    }
    const start = await settled('sixty in the main room', (places) => places.size === PEOPLE);
    await agree(start);

    const driver = new PageDriver(conference, host);
    await driver.create(ROOMS, { mode: 'automatic', max: SEATS });
    const spread = await settled(
      'all but the host in rooms',
      (places) =>
        places.size === PEOPLE && [...places].every(([who, room]) => (who === 'host') === (room === '')),
    );
    const sizes = [...count(spread)].filter(([room]) => room !== '').map(([, size]) => size);
    assert.equal(sizes.length, ROOMS);
    assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1, `evenly: ${sizes}`);
    const rooms = await conference.rooms();
    const workers = [...new Set(rooms.map((room) => room.status.assignment.workerUID))];
    t.diagnostic(
      `rooms per worker: ${workers.map((w) => rooms.filter((r) => r.status.assignment.workerUID === w).length)}`,
    );
    assert.ok(workers.length > 1, 'all rooms are on one worker');
    await agree(spread);

    // A full room takes nobody more: who was sent there stays, and everybody learns why.
    const full = [...count(spread)].find(([room, size]) => size === SEATS && room !== spread.get('ann'))[0];
    await host.page.evaluate(() => {
      globalThis.refusals = [];
      globalThis.plenum.room.on('dataReceived', (payload, _participant, _kind, topic) => {
        if (topic !== 'plenum.v1') return;
        const said = JSON.parse(new TextDecoder().decode(payload));
        if (said.signal === 'participant-switched' && said.failed) globalThis.refusals.push(said);
      });
    });
    await driver.assign('ann', full);
    await host.until('is told that ann could not go there', async () => {
      const refusals = await host.page.evaluate(() => globalThis.refusals);
      return refusals.some(({ identity, failed }) => identity === 'ann' && failed === 'MeetingFull');
    });
    assert.deepEqual(await settled('nobody has moved', (places) => places.size === PEOPLE), spread);

    // In the middle of the recall a whole process of people is gone without a word.
    const victims = groups.pop();
    await driver.closeAll(10);
    await victims.kill();
    const gone = new Set(victims.identities);
    const back = await settled(
      'the others are back in the main room',
      (places) =>
        [...places].every(([who, room]) => gone.has(who) || room === '') &&
        [...places.keys()].filter((who) => !gone.has(who)).length === PEOPLE - gone.size,
    );
    assert.equal(back.get('host'), '');
    const left = await settled(
      'the killed are forgotten',
      (places) => ![...places.keys()].some((who) => gone.has(who)),
    );
    await agree(left, gone);
    for (const room of await conference.rooms())
      await waitFor(
        async () => {
          const { status } = await find('breakoutroom', room.metadata.name, conference.namespace);
          return (status.participants ?? 0) === 0 && !status.assignment;
        },
        { what: `${room.metadata.name} is empty and gives its place back`, limitMs: LIMIT_MS },
      );
  });
});
