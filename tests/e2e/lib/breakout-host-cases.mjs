// What only a host in the meeting can do with breakout rooms, beyond rows V1 to V15.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { PageDriver } from './breakout-drivers.mjs';
import { Conference } from './conference.mjs';

/** A shuffle of two people over two rooms leaves them where they are half of the time. */
const SHUFFLES = 20;

export function hostCases() {
  describe('what hosts do with breakout rooms', { concurrency: false }, () => {
    /** @type {Conference} */ let conference;

    before(async () => {
      conference = await Conference.open();
    });
    after(() => conference?.close());
    afterEach(() => conference.clear());

    async function gather(...guests) {
      await conference.meeting({ breakouts: { closingCountdown: '10s' } });
      const host = await conference.joins('host', { role: 'host' });
      const people = { host };
      for (const guest of guests) people[guest] = await conference.joins(guest);
      return { ...people, driver: new PageDriver(conference, host) };
    }

    /** Ticks or clears one of the rules, and waits until the person has been told. */
    async function rule(host, id, on, person, field) {
      await host.$(id).setChecked(on);
      await person.until(`is told that ${field} is ${on}`, () =>
        person.page.evaluate(
          ([name, value]) => globalThis.plenum.breakouts.state[name] === value,
          [field, on],
        ),
      );
    }

    /** The code with which the server refuses a request of the SDK, or that it was granted. */
    const refused = (person, method, ...args) =>
      person.page.evaluate(
        ([name, rest]) =>
          globalThis.plenum.breakouts[name](...rest).then(
            () => 'granted',
            (error) => error.code ?? String(error),
          ),
        [method, args],
      );

    test('shuffle deals people out anew, as evenly as before', async () => {
      const { host, driver } = await gather('ann', 'bob');
      const ids = await driver.create(2, { mode: 'automatic' });
      const dealt = async () => {
        let places;
        await host.until('each room has one person', async () => {
          places = await conference.whereabouts();
          return [places.get('ann'), places.get('bob')].sort().join() === [...ids].sort().join();
        });
        return places.get('ann');
      };
      const first = await dealt();
      let now = first;
      for (let i = 0; i < SHUFFLES && now === first; i++) {
        await host.click('shuffle-button');
        await host.until('may shuffle again', () => host.$('shuffle-button').isEnabled());
        const { moves } = (await conference.current()).status.session.breakouts;
        const wanted = moves.find(({ identity }) => identity === 'ann').room;
        await conference.stand({ ann: wanted });
        now = await dealt();
      }
      assert.notEqual(now, first, 'nobody ever changed rooms');
      assert.equal((await conference.whereabouts()).get('host'), '', 'hosts stay');
    });

    test('extend moves the end of all rooms by as much as was asked', async () => {
      const { host, ann, driver } = await gather('ann');
      const [one] = await driver.create(2, { people: [['ann']], minutes: 5 });
      await conference.stand({ ann: one });
      const before = Number(await ann.shown('timer', {}, 'data-closes-at'));
      await host.click('extend-button', { minutes: 5 });
      for (const person of [ann, host])
        await person.until('sees the new end', async () => {
          const end = Number(await person.$('timer').first().getAttribute('data-closes-at'));
          return end === before + 5 * 60_000;
        });
    });

    test('a host listens to a room without being in it', async () => {
      const { host, ann, driver } = await gather('ann', 'bob');
      const [one] = await driver.create(1, { people: [['ann', 'bob']] });
      await conference.stand({ host: '', ann: one, bob: one });
      const listen = host.$('room-item', { room: one }).getByTestId('room-listen');
      const pressed = (on) =>
        host.until(`listening is shown as ${on}`, async () => {
          const idle = await listen.isEnabled();
          return idle && (await listen.getAttribute('aria-pressed')) === String(on);
        });
      await listen.click();
      await pressed(true);
      await listen.click();
      await pressed(false);
      // What is heard: the element that plays a sound is in no document.
      await host.page.evaluate(async (room) => {
        globalThis.listening = await globalThis.plenum.breakouts.listen(room, {
          url: globalThis.location.origin,
        });
      }, one);
      const heard = () =>
        host.page.evaluate(async () => {
          const [room] = globalThis.listening.rooms;
          const tracks = [...room.remoteParticipants.values()]
            .flatMap((person) => [...person.trackPublications.values()])
            .map((publication) => publication.track)
            .filter((track) => track?.kind === 'audio');
          const stats = await Promise.all(tracks.map((track) => track.getReceiverStats()));
          return {
            state: room.state,
            playing: tracks.filter((track) => track.attachedElements.some((e) => e.srcObject?.active)).length,
            bytes: stats.map((one) => one?.bytesReceived ?? 0),
          };
        });
      await host.until('hears the two', async () => {
        const { playing, bytes } = await heard();
        return playing === 2 && bytes.every((count) => count > 0);
      });
      await ann.sees('bob');
      await conference.stand({ host: '', ann: one, bob: one });
      await host.page.evaluate(() => globalThis.listening.stop());
      const { state, playing } = await heard();
      assert.deepEqual({ state, playing }, { state: 'disconnected', playing: 0 });
      assert.equal(await refused(ann, 'listen', one), 'NotPermitted');
    });

    test('who may not return stays until the rooms close, and may again when it is allowed', async () => {
      const { host, ann, driver } = await gather('ann');
      const [one] = await driver.create(1, { people: [['ann']] });
      await conference.stand({ ann: one });
      await ann.shown('return-main');
      await rule(host, 'settings-return', false, ann, 'allowReturnToMain');
      await ann.until('has no way back', async () => !(await ann.$('return-main').isVisible()));
      assert.equal(await refused(ann, 'returnToMain'), 'NotPermitted');
      await conference.stand({ ann: one });
      await rule(host, 'settings-return', true, ann, 'allowReturnToMain');
      await ann.shown('return-main');
      await ann.click('return-main');
      await conference.stand({ ann: '' });
    });

    test('a move is refused where that is allowed, and only there', async () => {
      const { host, ann, driver } = await gather('ann');
      const [one, two] = await driver.create(2);
      await rule(host, 'settings-cancel', true, ann, 'allowCancel');
      await driver.assign('ann', one);
      await ann.shown('moving-cancel');
      await ann.click('moving-cancel');
      await ann.until('the notice is gone', async () => !(await ann.$('moving-notice').isVisible()));
      await conference.stand({ ann: '' });
      await rule(host, 'settings-cancel', false, ann, 'allowCancel');
      await driver.assign('ann', two);
      await ann.shown('moving-notice', { to: two });
      assert.equal(await ann.$('moving-cancel').isVisible(), false);
      await conference.stand({ ann: two });
    });

    test('a host silences somebody in another room, and takes a camera down', async () => {
      const { host, ann, bob, driver } = await gather('ann', 'bob');
      const [one] = await driver.create(1, { people: [['ann', 'bob']] });
      await conference.stand({ host: '', ann: one, bob: one });
      await bob.watches('ann');
      const sid = async (source) => {
        const { tracks } = await ann.devices();
        return tracks.find((track) => track.source === source)?.sid;
      };
      const seen = (source) =>
        bob.page.evaluate((wanted) => {
          const publication = globalThis.plenum.room.remoteParticipants
            .get('ann')
            .getTrackPublication(wanted);
          return publication ? { muted: publication.isMuted } : null;
        }, source);
      const asHost = (method, ...args) =>
        host.page.evaluate(([name, rest]) => globalThis.plenum.breakouts[name](...rest), [method, args]);
      await asHost('mute', 'ann', await sid('microphone'));
      await ann.until('is shown as muted', async () =>
        (await ann.devices()).tracks.some((track) => track.source === 'microphone' && track.muted),
      );
      await bob.until('sees that ann is muted', async () => (await seen('microphone'))?.muted);
      await asHost('unpublish', 'ann', await sid('camera'));
      await bob.until('sees no camera of ann', async () => (await seen('camera')) === null);
      await ann.until('sends no camera', async () => (await sid('camera')) === undefined);
      assert.equal(await refused(bob, 'mute', 'ann'), 'NotPermitted');
      await conference.stand({ host: '', ann: one, bob: one });
    });

    test('a list assigns people and makes the rooms it names, or says what is wrong and does nothing', async () => {
      const { host, ann, bob, driver } = await gather('ann', 'bob');
      await driver.panel();
      const apply = async (text) => {
        await host.$('csv-input').fill(text);
        await host.click('csv-apply');
      };
      await apply('identity,room\nann,Red\nbob\n');
      assert.match(await host.shown('csv-result'), /line 3/);
      assert.deepEqual(await conference.rooms(), [], 'nothing was done');
      await apply('identity,room\nann,Red\nbob,"Blue, the second"\n');
      await host.until('is told', async () =>
        /2 assigned, 2 rooms made/.test(await host.$('csv-result').innerText()),
      );
      const rooms = await conference.rooms();
      const named = (title) => rooms.find((room) => room.spec.title === title).metadata.name;
      await conference.stand({ host: '', ann: named('Red'), bob: named('Blue, the second') });
      await Promise.all([ann.sees(), bob.sees()]);
    });
  });
}
