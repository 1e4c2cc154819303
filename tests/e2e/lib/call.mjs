// A call under test: two browsers (Chromium, unless told otherwise), any number of peers, one server.

import { mkdir, writeFile } from 'node:fs/promises';
import { launch, servePage } from './browser.mjs';
import { Peer } from './peer.mjs';

const RESULTS = new URL('../../results/e2e/', import.meta.url);

/**
 * @typedef {object} Target What a call is made on.
 * @property {string} name
 * @property {(spec: {identity: string, room: string, grant?: object, name?: string, metadata?: string}) => Promise<{url: string, token: string}>} invite
 * @property {() => Promise<string>} log The tail of the server's log.
 */

/** Browsers and test page of one test file; `close` ends all of it. */
export class Stage {
  /**
   * @param {Target} target
   * @param {(() => Promise<any>)[]} launchers One for each browser.
   */
  static async open(target, launchers = [launch, launch]) {
    const stage = new Stage();
    stage.target = target;
    /** @type {Peer[]} */
    stage.peers = [];
    stage.made = 0;
    stage.diagnose = (what) => stage.dump(what);
    stage.page = await servePage();
    try {
      stage.browsers = await Promise.all(launchers.map((start) => start()));
    } catch (error) {
      await stage.page.close();
      throw error;
    }
    return stage;
  }

  /** A page of its own in one of the browsers, by turns. */
  async peer(identity) {
    const browser = this.browsers[this.made++ % this.browsers.length];
    const context = await browser.newContext();
    const page = await context.newPage();
    const peer = new Peer(page, identity, this.diagnose);
    this.peers.push(peer);
    await page.goto(this.page.url);
    await page.waitForFunction(() => globalThis.harness !== undefined);
    return peer;
  }

  /**
   * A peer that has joined `room` with a fresh token.
   *
   * @param {string} identity
   * @param {string} room
   * @param {{roomOptions?: object, invite?: object}} [options]
   */
  async joined(identity, room, { roomOptions, invite } = {}) {
    const peer = await this.peer(identity);
    const ticket = await this.target.invite({ identity, room, ...invite });
    return peer.join({ ...ticket, roomOptions });
  }

  /** Ends every page, and with it every session, between two tests. */
  async clear() {
    const peers = this.peers;
    this.peers = [];
    await Promise.all(
      peers.map(async (peer) => {
        await peer.leave().catch(() => {});
        await peer.page.context().close();
      }),
    );
  }

  /** Writes all that is known into tests/results and answers the short of it. */
  async dump(what) {
    const peers = await Promise.all(this.peers.map((peer) => peer.dump()));
    const log = await this.target.log().catch((error) => `no log: ${error.message}`);
    await mkdir(RESULTS, { recursive: true });
    const file = new URL(`${what.replaceAll(/[^a-z0-9]+/gi, '-').slice(0, 60)}-${Date.now()}.json`, RESULTS);
    await writeFile(file, JSON.stringify({ what, peers, log: log.split('\n') }, null, 1));
    const short = peers.map(
      (p) =>
        `  ${p.identity}: ${p.view?.state}; ${JSON.stringify(p.transports)}\n` +
        `    inbound ${JSON.stringify(p.inbound)}\n` +
        `    events ${p.events.map?.((e) => e.type).slice(-20)}\n` +
        p.console
          .filter((line) => /^(error|warning|uncaught)/.test(line))
          .slice(-8)
          .map((line) => `    ${line.slice(0, 300)}\n`)
          .join(''),
    );
    return `${short.join('')}  server:\n${log.split('\n').slice(-25).join('\n')}\n  all of it: ${file.pathname}`;
  }

  async close() {
    await this.clear().catch(() => {});
    await Promise.all(this.browsers.map((browser) => browser.close()));
    await this.page.close();
  }
}
