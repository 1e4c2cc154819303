// Breakout rooms as people live through them: rows V1 to V15, once for each way to run them.

import assert from 'node:assert/strict';
import { after, afterEach, before, describe, test } from 'node:test';
import { Conference } from './conference.mjs';
import { condition, kubectl } from './kube.mjs';

/** Keeps every packet of the reserved topic as a stock client receives it. */
const KEEP_PACKETS = () => {
  globalThis.packets = [];
  globalThis.plenum.room.on('dataReceived', (payload, _participant, _kind, topic) => {
    if (topic === 'plenum.v1') globalThis.packets.push(JSON.parse(new TextDecoder().decode(payload)));
  });
};

/**
 * @param {{way: string, driverOf: (conference: Conference, host: import('./conference.mjs').Person) => any}} options
 */
export function breakoutCases({ way, driverOf }) {
  describe(`breakout rooms ${way}`, { concurrency: false }, () => {
    /** @type {Conference} */ let conference;

    before(async () => {
      conference = await Conference.open();
    });
    after(() => conference?.close());
    afterEach(() => conference.clear());

    /** A meeting with a host and guests in it, and the way to run its rooms. */
    async function gather(guests, spec = {}) {
      await conference.meeting({ breakouts: { closingCountdown: '10s' }, ...spec });
      const host = await conference.joins('host', { role: 'host' });
      const people = { host };
      for (const guest of guests) people[guest] = await conference.joins(guest);
      await Promise.all(Object.values(people).map((person) => person.page.evaluate(KEEP_PACKETS)));
      return { ...people, driver: driverOf(conference, host) };
    }

    const packets = (person) => person.page.evaluate(() => globalThis.packets);
    const packet = (person, what, match) =>
      person.until(what, async () => (await packets(person)).find(match));
    const titleOf = async (id) => (await conference.rooms()).find((r) => r.metadata.name === id).spec.title;
    const sessionOf = (person) => person.page.evaluate(() => globalThis.plenum.room.getSid());

    test('v1_v3_v6 rooms are sessions of their own, and their people are kept apart and brought together', async () => {
      const { host, ann, bob, driver } = await gather(['ann', 'bob']);
      await host.sees('ann', 'bob');
      const main = await sessionOf(host);
      assert.equal(await sessionOf(ann), main, 'whoever comes later gets the session of the first');
      const [one, two] = await driver.create(2, { people: [['ann'], ['bob']] });
      await conference.stand({ host: '', ann: one, bob: two });
      await Promise.all([host.sees(), ann.sees(), bob.sees()]);
      const sessions = await Promise.all([host, ann, bob].map(sessionOf));
      assert.equal(new Set(sessions).size, 3, `three rooms, three sessions: ${sessions}`);
      assert.equal(sessions[0], main);
      await driver.assign('bob', one);
      await conference.stand({ host: '', ann: one, bob: one });
      await Promise.all([ann.sees('bob'), bob.sees('ann'), host.sees()]);
      await Promise.all([ann.watches('bob'), bob.watches('ann')]);
    });

    test('v2_v15 a room is a record with its people, parent and limit, and the server keeps the limit', async () => {
      const { ann, bob, driver } = await gather(['ann', 'bob']);
      const [room] = await driver.create(1, { mode: 'selfSelect', max: 1 });
      const [object] = await conference.rooms();
      assert.equal(object.metadata.name, room);
      assert.equal(object.spec.meetingRef.name, conference.name);
      assert.equal(object.spec.maxParticipants, 1);
      await ann.shown('choose-room', { room });
      await ann.click('choose-room', { room });
      await conference.stand({ ann: room });
      await bob.shown('choose-room', { room });
      await bob.click('choose-room', { room });
      const code = await bob.shown('move-failed', {}, 'data-code');
      assert.equal(code, 'MeetingFull');
      await conference.stand({ ann: room, bob: '' });
    });

    test('v4_v8 everyone learns of new rooms with their ids, and when all are gone', async () => {
      const { host, ann, driver } = await gather(['ann']);
      const ids = await driver.create(3);
      const created = (p) =>
        p.signal === 'breakout-room' &&
        p.message === 'roomCreated' &&
        p.rooms.filter((r) => r.open).length === 3;
      for (const person of [host, ann]) {
        const { rooms, mode } = await packet(person, 'is told of three rooms', created);
        assert.deepEqual(rooms.map((room) => room.id).sort(), [...ids].sort());
        assert.equal(mode, 'manual');
      }
      for (const id of ids) await driver.remove(id);
      for (const person of [host, ann])
        await packet(person, 'is told that no room is left', (p) => p.message === 'allRoomRemoved');
      const numbers = (await packets(ann)).filter((p) => p.seq).map((p) => p.seq);
      assert.deepEqual(
        numbers,
        [...new Set(numbers)].sort((a, b) => a - b),
        'in order, each once',
      );
    });

    test('v5_automatic people are spread evenly', async () => {
      const { driver } = await gather(['ann', 'bob']);
      const [one, two] = await driver.create(2, { mode: 'automatic' });
      await conference.stand({ host: '' });
      let places;
      await conference.people.get('ann').until('both rooms have one person', async () => {
        places = await conference.whereabouts();
        return [places.get('ann'), places.get('bob')].sort().join() === [one, two].sort().join();
      });
      assert.equal(places.get('host'), '', 'hosts stay where they are');
    });

    test('v5_choose people choose a room, and go back', async () => {
      const { ann, bob, driver } = await gather(['ann', 'bob']);
      const [one, two] = await driver.create(2, { mode: 'selfSelect' });
      await packet(ann, 'is told to choose', (p) => p.message === 'roomCreated' && p.mode === 'selfSelect');
      for (const [person, room] of [
        [ann, one],
        [bob, two],
      ]) {
        await person.shown('choose-room', { room });
        await person.click('choose-room', { room });
      }
      await conference.stand({ ann: one, bob: two });
      assert.ok(
        !(await packets(ann)).some((p) => p.notice === 'moving'),
        'who goes by their own wish is not warned',
      );
      await ann.click('return-main');
      await conference.stand({ ann: '', bob: two });
    });

    test('v7 hands, calls for help, messages and broadcasts cross rooms, and chat does not', async () => {
      const { host, ann, bob, driver } = await gather(['ann', 'bob']);
      const [one, two] = await driver.create(2, { people: [['ann'], ['bob']] });
      await conference.stand({ host: '', ann: one, bob: two });
      await host.click('breakout-open');
      await ann.click('hand-button');
      await host.shown('hand-item', { identity: 'ann' });
      await bob.click('help-button');
      assert.equal(await host.shown('help-item', { identity: 'bob' }, 'data-room'), two);
      await ann.$('hosts-input').fill('we are stuck');
      await ann.click('hosts-send');
      assert.match(await host.shown('hosts-message'), /we are stuck/);
      await host.$('broadcast-input').fill('five minutes left');
      await host.click('broadcast-send');
      for (const person of [ann, bob])
        assert.match(await person.shown('broadcast-message'), /five minutes left/);
      await ann.click('chat-button');
      await ann.$('chat-input').fill('only for us');
      await ann.click('chat-send');
      await host.$('broadcast-input').fill('last word');
      await host.click('broadcast-send');
      // What was sent later has arrived: what was sent before would have, too.
      await bob.until('the last word', async () =>
        (await packets(bob)).some((p) => p.signal === 'broadcast' && p.text === 'last word'),
      );
      assert.equal(await bob.$('chat-message').count(), 0, 'a room keeps its chat');
      assert.ok(!(await packets(bob)).some((p) => p.signal === 'message-to-hosts'), 'only hosts read it');
      const hears = (person) =>
        person.page.evaluate(() => {
          const voice = globalThis.plenum.room.remoteParticipants.get('host~speak');
          return [...(voice?.trackPublications.values() ?? [])].some((p) => p.isSubscribed && !p.isMuted);
        });
      await host.click('speak-button');
      for (const person of [ann, bob]) await person.until('hears the host', () => hears(person));
      await host.click('speak-button');
      for (const person of [ann, bob])
        await person.until('hears the host no more', async () => !(await hears(person)));
    });

    test('v9 every room shows the same remaining time', async () => {
      const { host, ann, bob, driver } = await gather(['ann', 'bob']);
      const [one, two] = await driver.create(2, { people: [['ann'], ['bob']], minutes: 5 });
      await conference.stand({ ann: one, bob: two });
      const ends = [];
      for (const person of [host, ann, bob]) {
        ends.push(await person.shown('timer', {}, 'data-closes-at'));
        const left = Number(await person.$('timer').first().getAttribute('data-seconds'));
        assert.ok(left > 0 && left <= 301, `${person.identity}: ${left} s left`);
      }
      assert.equal(new Set(ends).size, 1, `one end for all: ${ends}`);
      for (const person of [host, ann, bob]) {
        const timer = await packet(person, 'is told the time', (p) => p.signal === 'count-down-timer');
        assert.equal(String(timer.closesAt), ends[0]);
        assert.ok(timer.period > 0 && timer.period <= 301);
      }
    });

    test('v10_moved_participant_is_warned_for_five_seconds, who is there already is not', async () => {
      const { host, ann, bob, driver } = await gather(['ann', 'bob']);
      const [one] = await driver.create(1, { people: [['ann']] });
      await conference.stand({ ann: one, bob: '' });
      const notice = (await packets(ann)).find((p) => p.notice === 'moving');
      assert.equal(notice.to, one);
      assert.equal(notice.title, await titleOf(one));
      assert.equal(notice.message, 'participantMoved');
      assert.equal(notice.seconds, 5);
      assert.ok(notice.at - notice.now >= 4900 && notice.at - notice.now <= 5100, JSON.stringify(notice));
      await driver.assign('bob', one);
      await bob.shown('moving-notice', { to: one });
      await conference.stand({ ann: one, bob: one });
      const warned = (await packets(ann)).filter((p) => p.notice === 'moving').length;
      assert.equal(warned, 1, 'ann was there already');
      assert.ok(!(await packets(host)).some((p) => p.notice === 'moving'), 'the host goes nowhere');
    });

    test('v11 a switch is reported, and who cannot be moved lands in the main room', async () => {
      const { host, ann, driver } = await gather(['ann']);
      const [one, two] = await driver.create(2, { people: [['ann'], []], max: 1 });
      await conference.stand({ ann: one });
      const report = await packet(
        host,
        'is told of the switch',
        (p) => p.signal === 'participant-switched' && p.identity === 'ann',
      );
      assert.deepEqual([report.from ?? '', report.to], ['', one]);
      await host.click('breakout-open');
      await host.$('room-item', { room: two }).getByTestId('room-join').click();
      await conference.stand({ host: two });
      await driver.assign('ann', two);
      await driver.remove(one);
      await ann.shown('move-failed', { code: 'MeetingFull' });
      await conference.stand({ host: two, ann: '' });
    });

    test('v12 hosts and co-hosts assign, move and recall', async () => {
      const { ann, driver } = await gather(['ann', 'bob']);
      const [one, two] = await driver.create(2);
      await driver.assign('bob', one);
      await conference.stand({ bob: one });
      await driver.assign('bob', two);
      await conference.stand({ bob: two });
      await driver.assign('bob', null);
      await conference.stand({ bob: '' });
      assert.equal(await ann.$('breakout-open').isVisible(), false, 'participants have no panel');
      await driver.makeCohost('ann');
      await ann.shown('breakout-open');
      await ann.click('breakout-open');
      await ann.$('assign-select', { identity: 'bob' }).first().selectOption(one);
      await conference.stand({ host: '', ann: '', bob: one });
      await ann.click('recall-button', { identity: 'bob' });
      await conference.stand({ bob: '' });
    });

    test('v13 camera and microphone survive a switch as they were, and a removal is told apart', async () => {
      const { ann, bob, driver } = await gather(['ann', 'bob']);
      await ann.until('sends both', async () => (await ann.devices()).tracks.length === 2);
      await ann.click('mic-button');
      await ann.until('is muted', async () =>
        (await ann.devices()).tracks.some((t) => t.source === 'microphone' && t.muted),
      );
      const before = await ann.devices();
      const [one] = await driver.create(1, { people: [['ann', 'bob']] });
      await conference.stand({ ann: one, bob: one });
      await bob.watches('ann');
      const there = await ann.devices();
      assert.equal(there.asked, before.asked, 'nobody was asked for a device again');
      const same = ({ tracks }) =>
        tracks.map(({ source, id, state, muted }) => ({ source, id, state, muted }));
      assert.deepEqual(same(there), same(before));
      await driver.assign('ann', null);
      await conference.stand({ ann: '' });
      assert.deepEqual(same(await ann.devices()), same(before));
      await kubectl(['-n', conference.namespace, 'delete', 'participant', 'ann']);
      assert.equal(await ann.shown('message', {}, 'data-code'), 'ParticipantRemoved');
      await conference.stand({ bob: one });
      assert.equal((await conference.whereabouts()).has('ann'), false);
    });

    test('v14 a name, sound, picture and a second stream are published in a room', async () => {
      const { ann, bob, driver } = await gather(['ann', 'bob']);
      const [one] = await driver.create(1, { people: [['ann', 'bob']] });
      await conference.stand({ ann: one, bob: one });
      await bob.watches('ann');
      await ann.click('screen-button');
      await bob.until('sees the shared screen beside the camera', async () =>
        bob.page.evaluate(() => {
          const ann = globalThis.plenum.room.remoteParticipants.get('ann');
          const sources = [...ann.trackPublications.values()]
            .filter((p) => p.isSubscribed)
            .map((p) => p.source);
          return ['camera', 'microphone', 'screen_share'].every((source) => sources.includes(source));
        }),
      );
      const refusal = await bob.page.evaluate(async () => {
        const track = globalThis.plenum.room.localParticipant.getTrackPublication('camera').track;
        await globalThis.plenum.room.disconnect(false);
        return globalThis.plenum.room.localParticipant.publishTrack(track).then(
          () => 'published',
          (error) => error.message,
        );
      });
      assert.match(refusal, /connect/i, 'without a connection it says so');
    });

    test('rooms close after their countdown, bring everyone back, and open again with the same people', async () => {
      const { ann, driver } = await gather(['ann', 'bob']);
      const [one, two] = await driver.create(2, { people: [['ann'], ['bob']] });
      await conference.stand({ ann: one, bob: two });
      await driver.closeAll(10);
      await ann.shown('timer');
      await conference.stand({ host: '', ann: '', bob: '' });
      await packet(ann, 'is told that all are closed', (p) => p.message === 'allRoomRemoved');
      for (const room of await conference.rooms())
        await ann.until(`${room.metadata.name} gives its place back`, async () => {
          const object = (await conference.rooms()).find((r) => r.metadata.name === room.metadata.name);
          return condition(object, 'Ready')?.reason === 'Closed' && !object.status.assignment;
        });
      await driver.open(one);
      await conference.stand({ ann: one, bob: '' });
    });

    test('a late comer goes straight to the room they are named for', async () => {
      const { driver } = await gather(['ann']);
      const [one] = await driver.create(1, { people: [['ann']] });
      await conference.stand({ ann: one });
      await driver.preassign('late', one);
      const late = await conference.joins('late');
      await late.sees('ann');
      await conference.stand({ late: one });
    });
  });
}
