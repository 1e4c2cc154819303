// One person in one browser page: the test's hands and eyes on the stock client.

import { waitFor, waitRising } from './wait.mjs';

/** Mean power of a signal that somebody would call silence ends here: -60 dBFS. */
const SILENCE = 1e-6;

export class Peer {
  /**
   * @param {import('playwright-core').Page} page
   * @param {string} identity
   * @param {(what: string) => Promise<string>} diagnose
   */
  constructor(page, identity, diagnose) {
    this.page = page;
    this.identity = identity;
    this.diagnose = diagnose;
    /** @type {string[]} */
    this.console = [];
    page.on('console', (message) => this.console.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => this.console.push(`uncaught: ${error.message}`));
  }

  /** Calls a function of the page's harness by name. */
  call(name, ...args) {
    return this.page.evaluate(([n, a]) => globalThis.harness[n](...a), [name, args]);
  }

  /**
   * Joins, and answers the refusal where there is one.
   *
   * @param {{url: string, token: string, roomOptions?: object, connectOptions?: object}} options
   * @returns {Promise<{ok: boolean, error?: {name: string, message: string, reason: string | null, status: number | null, context: unknown}}>}
   */
  tryJoin(options) {
    return this.call('join', options);
  }

  /** Joins or fails the test. */
  async join(options) {
    const answer = await this.tryJoin(options);
    if (!answer.ok) {
      throw new Error(
        `${this.identity} was refused: ${JSON.stringify(answer.error)}\n${await this.diagnose('join')}`,
      );
    }
    return this;
  }

  leave() {
    return this.call('leave');
  }

  publishCamera(options = {}) {
    return this.call('publishCamera', { width: 640, height: 360, ...options });
  }

  publishMicrophone(options) {
    return this.call('publishMicrophone', options);
  }

  publishTone() {
    return this.call('publishTone');
  }

  view() {
    return this.call('view');
  }

  /** @returns {Promise<any[]>} */
  events() {
    return this.page.evaluate(() => globalThis.harness.events);
  }

  /** What this peer sees of another one's track, or undefined. */
  async track(identity, source) {
    const { remote = [] } = await this.view();
    return remote.find((p) => p.identity === identity)?.tracks.find((t) => t.source === source.toLowerCase());
  }

  /** Waits for a condition on this page. */
  until(what, probe, options = {}) {
    return waitFor(probe, { what: `${this.identity}: ${what}`, diagnose: this.diagnose, ...options });
  }

  /** Waits for an event that `match` accepts, after the first `from` events. */
  event(type, match = () => true, from = 0) {
    return this.until(`event ${type}`, async () =>
      (await this.events()).slice(from).find((e) => e.type === type && match(e)),
    );
  }

  /** Waits until frames of the other's camera are decoded, again and again, in the right size. */
  async waitDecoded(identity, { source = 'Camera', width = 640, height = 360 } = {}) {
    const inbound = () => this.call('inbound', identity, source);
    const what = `${this.identity} decodes ${identity}'s ${source}`;
    await waitRising(async () => (await inbound())?.framesDecoded, { what, diagnose: this.diagnose });
    return this.until(`${identity}'s ${source} is ${width}x${height}`, async () => {
      const stats = await inbound();
      return stats?.frameWidth === width && stats.frameHeight === height && stats;
    });
  }

  /** Waits until the other's sound carries energy above silence while it plays. */
  waitAudible(identity, { source = 'Microphone' } = {}) {
    let before = null;
    return this.until(`hears ${identity}`, async () => {
      const now = await this.call('inbound', identity, source);
      if (!now) return null;
      const start = before ?? now;
      before ??= now;
      const seconds = now.totalSamplesDuration - start.totalSamplesDuration;
      const power = seconds > 0 ? (now.totalAudioEnergy - start.totalAudioEnergy) / seconds : 0;
      return power > SILENCE && { power, seconds };
    });
  }

  /** Waits until no further frame of the other's track is decoded over `samples` looks. */
  async waitStill(identity, { source = 'Camera', samples = 10 } = {}) {
    let last = -1;
    let same = 0;
    await this.until(`${identity}'s ${source} stands still`, async () => {
      const frames = (await this.call('inbound', identity, source))?.framesDecoded ?? 0;
      same = frames === last ? same + 1 : 0;
      last = frames;
      return same >= samples;
    });
  }

  /** Everything worth reading when a test has failed. */
  async dump() {
    const safely = (promise) => promise.catch((error) => `(${error.message.split('\n')[0]})`);
    const [view, events, transports] = await Promise.all([
      safely(this.view()),
      safely(this.events()),
      safely(this.call('transports')),
    ]);
    const inbound = [];
    for (const p of view.remote ?? []) {
      for (const t of p.tracks) {
        const source = t.source === 'camera' ? 'Camera' : 'Microphone';
        inbound.push({
          identity: p.identity,
          source,
          ...(await safely(this.call('inbound', p.identity, source))),
        });
      }
    }
    return { identity: this.identity, view, transports, inbound, events, console: this.console.slice(-200) };
  }
}
