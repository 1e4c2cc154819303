// People in the join page, and what the cluster says of where they are.

import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { launch } from './browser.mjs';
import { clusterTarget, openMeeting, unique } from './cluster-target.mjs';
import { find, json, mintToken } from './kube.mjs';
import { waitFor, waitRising } from './wait.mjs';

const RESULTS = fileURLToPath(new URL('../../results/e2e/', import.meta.url));

/** Counts what a page asks of the browser's devices, and keeps what it was given. */
const WATCH_DEVICES = () => {
  globalThis.devicesAsked = 0;
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = (...args) => {
    globalThis.devicesAsked += 1;
    return ask(...args);
  };
};

/** One person in the join page. */
export class Person {
  constructor(conference, page, identity) {
    this.conference = conference;
    this.page = page;
    this.identity = identity;
    this.problems = [];
    page.on('console', (m) => m.type() === 'error' && this.problems.push(m.text()));
    page.on('pageerror', (e) => this.problems.push(`uncaught: ${e.message}`));
  }

  $(id, filter = {}) {
    const attributes = Object.entries(filter).map(([key, value]) => `[data-${key}="${value}"]`);
    return this.page.locator(`[data-testid="${id}"]${attributes.join('')}`);
  }

  until(what, probe, options) {
    return waitFor(probe, {
      what: `${this.identity}: ${what}`,
      diagnose: () => this.conference.diagnose(),
      ...options,
    });
  }

  /** Goes in and waits for the call. */
  async enter() {
    await this.$('join-button').click();
    await this.until('is in the call', () => this.$('call').isVisible());
    return this;
  }

  click(id, filter) {
    return this.$(id, filter).first().click();
  }

  /** Waits until it is shown and answers one of its attributes, or its text. */
  async shown(id, filter = {}, attribute) {
    const element = this.$(id, filter).first();
    await this.until(`${id} ${JSON.stringify(filter)} is shown`, () => element.isVisible());
    return attribute ? element.getAttribute(attribute) : element.innerText();
  }

  /** Whose tiles are shown, oneself left out. */
  others() {
    return this.page
      .locator('[data-testid=tile][data-local=false]')
      .evaluateAll((tiles) => tiles.map((tile) => tile.dataset.identity).sort());
  }

  /** Waits until exactly these others are shown. */
  async sees(...identities) {
    const wanted = identities.map((i) => this.conference.people.get(i)?.identity ?? i).sort();
    let seen;
    await this.until(`sees exactly ${wanted.join(', ') || 'nobody'}`, async () => {
      seen = await this.others();
      return seen.join() === wanted.join();
    });
  }

  framesOf(identity) {
    return this.page
      .locator(`[data-testid=tile][data-local=false][data-identity="${identity}"]`)
      .getByTestId('tile-video')
      .evaluate((video) => (video.videoWidth > 0 ? video.getVideoPlaybackQuality().totalVideoFrames : 0));
  }

  /** Waits until the other's picture plays, again and again. */
  watches(identity) {
    return waitRising(() => this.framesOf(identity), {
      what: `${this.identity} sees ${identity}'s picture move`,
      diagnose: () => this.conference.diagnose(),
    });
  }

  /** Waits until the page stands in the room of that title. */
  inRoom(title) {
    return this.until(`is in ${title}`, async () => {
      const text = await this.$('room-title').first().innerText();
      return text.includes(title);
    });
  }

  /** What the page holds of its camera and microphone, and how often it asked for devices. */
  devices() {
    return this.page.evaluate(() => {
      const { room } = globalThis.plenum;
      const tracks = [...room.localParticipant.trackPublications.values()].map((publication) => ({
        source: publication.source,
        sid: publication.trackSid,
        muted: publication.isMuted,
        id: publication.track?.mediaStreamTrack.id,
        state: publication.track?.mediaStreamTrack.readyState,
      }));
      tracks.sort((a, b) => a.source.localeCompare(b.source));
      return { asked: globalThis.devicesAsked, tracks };
    });
  }

  close() {
    return this.page.context().close();
  }
}

/**
 * A meeting, its people and their browsers: one for each, as in life. Two pages of one browser share its
 * camera, and Chromium's test camera gives neither of them any more pictures where one opened it anew while
 * the other let it go.
 */
export class Conference {
  static async open() {
    const conference = new Conference();
    await mkdir(RESULTS, { recursive: true });
    conference.target = await clusterTarget();
    conference.namespace = conference.target.namespace;
    /** @type {Map<string, Person>} */
    conference.people = new Map();
    /** @type {import('playwright-core').Browser[]} */
    conference.browsers = [];
    conference.idle = [];
    return conference;
  }

  /** A Meeting of its own. */
  async meeting(spec = {}) {
    this.name = unique('forum');
    this.spec = { title: 'Forum', ...spec };
    this.object = await openMeeting(this.namespace, this.name, this.spec);
    return this.object;
  }

  /** Somebody with a token, on the page, not yet in. */
  async opens(identity, { role = 'participant', as = identity } = {}) {
    const { status } = await mintToken(this.namespace, this.name, { identity, role, ttlSeconds: 3600 });
    const browser = this.idle.pop() ?? (await this.launch());
    const context = await browser.newContext();
    const page = await context.newPage();
    await page.addInitScript(WATCH_DEVICES);
    const person = new Person(this, page, identity);
    this.people.set(as, person);
    await page.goto(status.joinURL);
    return person;
  }

  async launch() {
    const browser = await launch();
    this.browsers.push(browser);
    return browser;
  }

  /** Somebody in the call. */
  async joins(identity, options) {
    return (await this.opens(identity, options)).enter();
  }

  /** Everyone who is in the meeting by the live API: identity -> name of the breakout room or ''. */
  async whereabouts() {
    const { items } = await json('-n', this.namespace, 'get', 'participants');
    const here = items.filter((item) => item.spec.meeting === this.name);
    const places = new Map();
    for (const { spec } of here) {
      const before = places.get(spec.identity);
      places.set(spec.identity, before === undefined ? (spec.room ?? '') : `${before}+${spec.room ?? ''}`);
    }
    return places;
  }

  /** Waits until everyone named is where they should be: `{alice: 'red', bob: ''}`. */
  async stand(wanted) {
    let places;
    await waitFor(
      async () => {
        places = await this.whereabouts();
        return Object.entries(wanted).every(([identity, room]) => places.get(identity) === room);
      },
      {
        what: `people stand as ${JSON.stringify(wanted)}`,
        stepMs: 300,
        diagnose: async () => `${JSON.stringify([...places])}\n${await this.diagnose()}`,
      },
    );
  }

  /** The BreakoutRooms of the meeting. */
  async rooms() {
    const { items } = await json('-n', this.namespace, 'get', 'breakoutrooms');
    return items
      .filter((room) => room.spec.meetingRef.name === this.name)
      .sort((a, b) => a.metadata.name.localeCompare(b.metadata.name, 'en', { numeric: true }));
  }

  current() {
    return find('meeting', this.name, this.namespace);
  }

  async diagnose() {
    const pages = await Promise.all(
      [...this.people].map(async ([name, { page, problems }]) => {
        await page.screenshot({ path: `${RESULTS}breakout-${name}.png` }).catch(() => {});
        const text = await page
          .locator('body')
          .innerText()
          .catch((e) => e.message);
        return `  ${name}: ${text.replaceAll('\n', ' | ').slice(0, 500)}\n    ${problems.slice(-6).join('\n    ')}`;
      }),
    );
    return `${pages.join('\n')}\n${await this.target.log().catch((e) => e.message)}`;
  }

  /** Everyone goes, the objects stay to the end. */
  async clear() {
    const people = [...this.people.values()];
    this.people.clear();
    await Promise.all(people.map((person) => person.close().catch(() => {})));
    this.idle = [...this.browsers];
  }

  async close() {
    await this.clear();
    await Promise.all((this.browsers ?? []).map((browser) => browser.close()));
    await this.target?.close();
  }
}
