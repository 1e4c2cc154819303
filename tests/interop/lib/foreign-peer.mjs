// One participant whose media is another WebRTC stack in a process of its own (see aiortc/peer.py and
// pion/main.go): descriptions go to it and come from it, the signalling is done here.

import { TrackSource } from '@livekit/protocol';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { waitFor } from '../../e2e/lib/wait.mjs';
import { Signalling } from './signalling.mjs';

const SILENCE = 300;
const children = new Set();
process.on('exit', () => children.forEach((child) => child.kill('SIGKILL')));

export class ForeignPeer {
  /**
   * @param {string} identity
   * @param {string[]} command Speaks the protocol of lines on its standard streams.
   * @param {(sdp: string) => string} seen What the stack is shown of a description of the server.
   */
  constructor(identity, [program, ...args], seen = (sdp) => sdp) {
    this.identity = identity;
    this.seen = seen;
    this.asked = new Map();
    this.said = [];
    this.child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    children.add(this.child);
    this.child.on('error', (error) => this.said.push(error.message));
    this.child.stdin.on('error', (error) => this.said.push(error.message));
    this.child.on('close', (code) => {
      children.delete(this.child);
      for (const { reject } of this.asked.values()) {
        reject(new Error(`${program} ended with ${code}:\n${this.said.join('\n')}`));
      }
    });
    createInterface({ input: this.child.stderr }).on('line', (line) => this.said.push(line));
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      const { id, answer, error } = JSON.parse(line);
      const { resolve, reject } = this.asked.get(id);
      this.asked.delete(id);
      if (error) reject(new Error(`${identity}: ${error}\n${this.said.slice(-20).join('\n')}`));
      else resolve(answer);
    });
    this.next = 1;
  }

  ask(what, more = {}) {
    const id = this.next++;
    const answered = new Promise((resolve, reject) => this.asked.set(id, { resolve, reject }));
    this.child.stdin.write(`${JSON.stringify({ id, do: what, ...more })}\n`);
    return answered;
  }

  async join(invitation) {
    this.signalling = await Signalling.join(invitation, (sdp) =>
      this.ask('subscribe', { sdp: this.seen(sdp) }),
    );
    return this;
  }

  /** Publishes a camera and a microphone. */
  async publish() {
    const sdp = await this.signalling.publish(await this.ask('tracks'), () => this.ask('offer'));
    await this.ask('answered', { sdp: this.seen(sdp) });
    await this.until(
      'the publisher is connected',
      ({ connections }) => connections.publisher === 'connected',
    );
  }

  until(what, probe) {
    let last;
    return waitFor(
      async () => {
        last = await this.ask('stats');
        return probe(last);
      },
      {
        what: `${this.identity}: ${what}`,
        diagnose: async () =>
          JSON.stringify({ last, errors: this.signalling.errors, said: this.said.slice(-20) }),
      },
    );
  }

  /** Waits for further pictures of `identity` in this size. A stack that doesn't decode counts key frames. */
  async waitSeen(identity, { width, height }) {
    let from;
    return this.until(`sees ${identity}`, ({ received }) => {
      const now = received[this.signalling.trackOf(identity, TrackSource.CAMERA)];
      if (now?.width !== width || now.height !== height) return false;
      from ??= now.frames;
      return now.frames >= from + 5 && now;
    });
  }

  /** Waits for sound of `identity`: loud where the stack decodes, more than comfort noise where not. */
  async waitHeard(identity) {
    return this.until(`hears ${identity}`, ({ received }) => {
      const now = received[this.signalling.trackOf(identity, TrackSource.MICROPHONE)];
      if (!now || now.frames < 50) return false;
      return (now.loudest ?? 0) > SILENCE || now.bytes / now.frames > 20 ? now : false;
    });
  }

  /** How its connections reach the server. */
  async protocols() {
    return (await this.ask('stats')).protocols;
  }

  async leave() {
    this.signalling?.close();
    if (this.child.exitCode !== null || this.child.pid === undefined) return;
    const ended = new Promise((resolve) => this.child.once('close', resolve));
    this.child.stdin.end();
    const stubborn = setTimeout(() => this.child.kill('SIGKILL'), 5_000);
    await ended;
    clearTimeout(stubborn);
  }
}
