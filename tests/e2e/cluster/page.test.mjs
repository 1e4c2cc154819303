// The join page, as people without any tool use it: open the link, see and hear each other.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { after, afterEach, before, describe, test } from 'node:test';
import { launch } from '../lib/browser.mjs';
import { clusterTarget } from '../lib/cluster-target.mjs';
import { find, kubectl, mintToken } from '../lib/kube.mjs';
import { waitFor, waitRising } from '../lib/wait.mjs';

const RESULTS = fileURLToPath(new URL('../../results/e2e/', import.meta.url));

describe('the join page', { concurrency: false }, () => {
  /** @type {import('playwright-core').Browser[]} */ let browsers;
  /** @type {{page: import('playwright-core').Page, problems: string[]}[]} */ let people = [];
  let target;

  before(async () => {
    await mkdir(RESULTS, { recursive: true });
    target = await clusterTarget();
    browsers = await Promise.all([launch(), launch()]);
  });
  after(async () => {
    await Promise.all((browsers ?? []).map((browser) => browser.close()));
    await target?.close();
  });
  afterEach(async () => {
    await Promise.all(people.map(({ page }) => page.context().close()));
    people = [];
  });

  const diagnose = async () => {
    const pages = await Promise.all(
      people.map(async ({ page, problems }, i) => {
        await page.screenshot({ path: `${RESULTS}page-${i}.png` }).catch(() => {});
        const text = await page.evaluate(() => document.body.innerText).catch((e) => e.message);
        return `  page ${i}: ${text.replaceAll('\n', ' | ').slice(0, 400)}\n    ${problems.join('\n    ')}`;
      }),
    );
    return `${pages.join('\n')}\n${await target.log()}`;
  };

  const until = (what, probe) => waitFor(probe, { what, diagnose });

  async function open(link) {
    const context = await browsers[people.length % browsers.length].newContext();
    const page = await context.newPage();
    const problems = [];
    page.on('console', (m) => m.type() === 'error' && problems.push(m.text()));
    page.on('pageerror', (e) => problems.push(`uncaught: ${e.message}`));
    people.push({ page, problems });
    await page.goto(link);
    return page;
  }

  const linkOf = async (room) => (await find('meeting', room.split('/')[1], target.namespace)).status.joinURL;

  async function enter(link, name) {
    const page = await open(link);
    if (name) await page.getByTestId('name-input').fill(name);
    await page.getByTestId('join-button').click();
    await until(`${name ?? 'somebody'} is in the call`, () => page.getByTestId('call').isVisible());
    return page;
  }

  const tile = (page, name) => page.locator('[data-testid=tile][data-local=false]', { hasText: name });

  /** Frames of the other's picture that were shown so far. */
  const framesShown = (page, name) =>
    tile(page, name)
      .getByTestId('tile-video')
      .evaluate((video) => (video.videoWidth > 0 ? video.getVideoPlaybackQuality().totalVideoFrames : 0));

  async function sees(page, name) {
    await until(`a tile of ${name}`, async () => (await tile(page, name).count()) === 1);
    await waitRising(() => framesShown(page, name), { what: `${name} is seen`, diagnose });
  }

  /** The loudest of what the page's sound elements play. */
  const loudness = (page) =>
    page.evaluate(async () => {
      globalThis.analysers ??= new Map();
      let loudest = 0;
      for (const element of document.querySelectorAll('audio')) {
        const stream = element.srcObject;
        if (!stream || element.muted || element.paused) continue;
        if (!globalThis.analysers.has(stream)) {
          const context = new AudioContext();
          await context.resume();
          const analyser = new AnalyserNode(context, { fftSize: 8192 });
          new MediaStreamAudioSourceNode(context, { mediaStream: stream }).connect(analyser);
          globalThis.analysers.set(stream, analyser);
        }
        const samples = new Float32Array(8192);
        globalThis.analysers.get(stream).getFloatTimeDomainData(samples);
        for (const sample of samples) loudest = Math.max(loudest, Math.abs(sample));
      }
      return loudest;
    });

  const hears = (page, name) => until(`${name} is heard`, async () => (await loudness(page)) > 0.01);

  /** Waits for the page's last word and answers its code. */
  async function ending(page) {
    const message = page.getByTestId('message');
    await until('a message', () => message.isVisible());
    return message.getAttribute('data-code');
  }

  test('two guests open the link and see and hear each other', async () => {
    const link = await linkOf(await target.room({ guests: 'Allow', title: 'Daily stand-up' }));
    const [ada, bob] = await Promise.all([enter(link, 'Ada'), enter(link, 'Bob')]);
    await Promise.all([sees(ada, 'Bob'), sees(bob, 'Ada'), hears(ada, 'Bob'), hears(bob, 'Ada')]);
    assert.equal(await ada.getByTestId('meeting-title').innerText(), 'Daily stand-up');
    await until(
      'two people',
      async () => (await ada.getByTestId('people-count').getAttribute('data-count')) === '2',
    );
    await ada.screenshot({ path: `${RESULTS}join-page.png` });

    await bob.getByTestId('mic-button').click();
    await until('Bob is shown as muted', () => tile(ada, 'Bob').getByTestId('tile-muted').isVisible());
    await bob.getByTestId('mic-button').click();
    await until(
      'Bob is not muted',
      async () => !(await tile(ada, 'Bob').getByTestId('tile-muted').isVisible()),
    );

    await bob.getByTestId('camera-button').click();
    await until(
      "Bob's picture is gone",
      async () => (await tile(ada, 'Bob').getAttribute('data-video')) === 'false',
    );
    await bob.getByTestId('camera-button').click();
    await sees(ada, 'Bob');

    await ada.getByTestId('chat-button').click();
    await ada.getByTestId('chat-input').fill('<b>hello</b>');
    await ada.getByTestId('chat-send').click();
    await bob.getByTestId('chat-button').click();
    await until('the message arrives as text', async () =>
      (await bob.getByTestId('chat-message').allInnerTexts()).some((text) => text.includes('<b>hello</b>')),
    );

    await bob.getByTestId('leave-button').click();
    assert.equal(await ending(bob), 'Left');
    await until("Bob's tile is gone", async () => (await tile(ada, 'Bob').count()) === 0);
    assert.deepEqual(
      people.map((p) => p.problems),
      [[], []],
    );
  });

  test('the end of the Meeting is said in words', async () => {
    const room = await target.room({ guests: 'Allow' });
    const link = await linkOf(room);
    const [ada, bob] = await Promise.all([enter(link, 'Ada'), enter(link, 'Bob')]);
    await sees(ada, 'Bob');
    await kubectl(['-n', target.namespace, 'delete', 'meeting', room.split('/')[1], '--timeout=60s']);
    assert.deepEqual(await Promise.all([ending(ada), ending(bob)]), ['MeetingEnded', 'MeetingEnded']);
  });

  test('a meeting without guests asks for an invitation, and takes one', async () => {
    const room = await target.room();
    const link = await linkOf(room);
    assert.equal(await ending(await open(link)), 'GuestsNotAllowed');
    const { status } = await mintToken(target.namespace, room.split('/')[1], {
      identity: 'carol',
      role: 'host',
    });
    const page = await enter(`${link}#token=${status.token}`);
    await until(
      'alone',
      async () => (await page.getByTestId('people-count').getAttribute('data-count')) === '1',
    );
    assert.ok(!page.url().includes(status.token), 'the token stays in the address bar');
  });

  test('a full meeting and a meeting that does not exist are told apart', async () => {
    const room = await target.room({ guests: 'Allow', maxParticipants: 1 });
    const link = await linkOf(room);
    await enter(link, 'Ada');
    const bob = await open(link);
    await bob.getByTestId('name-input').fill('Bob');
    await bob.getByTestId('join-button').click();
    assert.equal(await ending(bob), 'MeetingFull');
    const nowhere = await open(link.replace(/[^/]+$/, 'no-such-meeting'));
    assert.match(await ending(nowhere), /MeetingNotFound|GuestsNotAllowed/);
  });
});
