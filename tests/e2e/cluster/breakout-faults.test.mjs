// Breakout rooms when parts of the installation die, and when several decide at once.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Conference } from '../lib/conference.mjs';
import { KubectlDriver, PageDriver } from '../lib/breakout-drivers.mjs';
import { killAll, killPod, waitBack } from '../lib/faults.mjs';
import { find, json, pods } from '../lib/kube.mjs';

describe('breakout rooms under stress', { concurrency: false }, () => {
  /** @type {Conference} */ let conference;

  before(async () => {
    conference = await Conference.open();
  });
  after(() => conference?.close());
  afterEach(() => conference.clear());

  async function gather(guests, spec = {}) {
    await conference.meeting({ breakouts: { closingCountdown: '10s' }, ...spec });
    const people = { host: await conference.joins('host', { role: 'host' }) };
    for (const guest of guests) people[guest] = await conference.joins(guest);
    return people;
  }

  test('controller, gateways and workers are killed one after another: rooms, people and the timer are as before', async () => {
    const { host, ann, bob } = await gather(['ann', 'bob']);
    const driver = new PageDriver(conference, host);
    const [one, two] = await driver.create(2, { people: [['ann'], ['bob']], minutes: 30 });
    await conference.stand({ host: '', ann: one, bob: two });
    const ends = await ann.shown('timer', {}, 'data-closes-at');
    const before = await conference.rooms();
    const asBefore = async (what) => {
      await conference.stand({ host: '', ann: one, bob: two });
      await host.until(`after ${what}: everyone sends sound and picture again`, async () => {
        const { items } = await json('-n', conference.namespace, 'get', 'participants');
        return items.length === 3 && items.every((item) => item.status.tracks?.length === 2);
      });
      for (const person of [host, ann, bob]) {
        await person.until(`after ${what}: the timer is as before`, async () => {
          const timer = person.$('timer').first();
          return (await timer.isVisible()) && (await timer.getAttribute('data-closes-at')) === ends;
        });
        await person.until(`after ${what}: is connected`, async () =>
          person.page.evaluate(() => globalThis.plenum.room.state === 'connected'),
        );
      }
      const now = await conference.rooms();
      const facts = (rooms) =>
        rooms.map(({ metadata, spec, status }) => [metadata.name, spec, status.closesAt]);
      assert.deepEqual(facts(now), facts(before), `after ${what}`);
    };
    for (const component of ['controller', 'gateway']) {
      const victims = await killAll(component);
      await waitBack(component, victims, () => conference.diagnose());
      await asBefore(`the loss of the ${component}s`);
    }
    // The worker of the main room, which is the hub, and then that of a breakout room.
    const holders = [
      async () => (await conference.current()).status.assignment,
      async () => (await find('breakoutroom', one, conference.namespace)).status.assignment,
    ];
    for (const holder of holders) {
      const { worker } = await holder();
      const victims = await pods('worker');
      await killPod(
        victims.find((pod) => pod.metadata.name === worker),
        'worker',
      );
      await waitBack('worker', victims, () => conference.diagnose());
      await asBefore('the loss of a worker');
    }
    // And it all still works.
    await driver.assign('bob', one);
    await conference.stand({ host: '', ann: one, bob: one });
    await ann.watches('bob');
  });

  test('the newest word wins: a host over Git, and Git over the host', async () => {
    const { host } = await gather(['ann']);
    const git = new KubectlDriver(conference);
    const page = new PageDriver(conference, host);
    const [one, two] = await git.create(2, { people: [['ann'], []] });
    await conference.stand({ ann: one });
    const applied = await find('breakoutroom', one, conference.namespace);
    await page.assign('ann', two);
    await conference.stand({ ann: two });
    await page.rename(one, 'Renamed by a host');
    await host.until(
      'the new title is told',
      async () =>
        (await host.$('room-item', { room: one }).innerText()).includes('Renamed') ||
        (await host.$('room-item', { room: one }).getByTestId('room-rename').inputValue()).includes(
          'Renamed',
        ),
    );
    const after = await find('breakoutroom', one, conference.namespace);
    assert.deepEqual(after.spec, applied.spec, 'nobody writes what Git applied');
    // The same objects again change nothing; another word does.
    await git.put(one, {});
    await conference.stand({ ann: two });
    await git.assign('ann', two);
    await host.until("the host's decision about ann is void", async () => {
      const { status } = await conference.current();
      return !status.session.breakouts.moves?.some((move) => move.identity === 'ann');
    });
    await git.assign('ann', one);
    await conference.stand({ ann: one });
  });

  test('two hosts at once: one after the other, and both see the same in the end', async () => {
    await gather(['ann']);
    const host = conference.people.get('host');
    const second = await conference.joins('second', { role: 'host' });
    const drivers = [new PageDriver(conference, host), new PageDriver(conference, second)];
    const [one, two] = await drivers[0].create(2);
    await drivers[1].panel();
    await second.shown('room-item', { room: two });
    await Promise.all([drivers[0].assign('ann', one), drivers[1].assign('ann', two)]);
    let place;
    await host.until('ann is in one of the two', async () => {
      place = (await conference.whereabouts()).get('ann');
      return place === one || place === two;
    });
    const { status } = await conference.current();
    const decided = status.session.breakouts.moves.filter((move) => move.identity === 'ann');
    assert.equal(decided.length, 1, 'one decision stands');
    await conference.stand({ ann: decided[0].room });
    for (const person of [host, second])
      await person.until('sees ann there', async () =>
        person.$('overview-person', { identity: 'ann', room: decided[0].room }).first().isVisible(),
      );
  });

  test('the same person in a second window ends the first, in whatever room it is', async () => {
    const { host, ann } = await gather(['ann']);
    const driver = new PageDriver(conference, host);
    const [one] = await driver.create(1, { people: [['ann']] });
    await conference.stand({ ann: one });
    await driver.assign('ann', null);
    await conference.stand({ ann: '' });
    await driver.assign('ann', one);
    const again = await conference.joins('ann', { as: 'ann again' });
    assert.equal(await ann.shown('message', {}, 'data-code'), 'DuplicateIdentity');
    await conference.stand({ ann: one });
    await again.until('is connected', () =>
      again.page.evaluate(() => globalThis.plenum.room.state === 'connected'),
    );
  });
});
