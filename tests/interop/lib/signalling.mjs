// The client's side of LiveKit's signalling (v0, two peer connections), for media that knows nothing of
// it: what a stock client says, and no more.

import {
  AddTrackRequest,
  SessionDescription,
  SignalRequest,
  SignalResponse,
  TrackSource,
  TrackType,
} from '@livekit/protocol';
import { once } from 'node:events';
import WebSocket from 'ws';
import { waitFor } from '../../e2e/lib/wait.mjs';

const PING_MS = 5_000;

export class Signalling {
  /** Sids of published tracks by cid. */
  published = new Map();
  /** People by sid. */
  people = new Map();
  /** The last answer, by the number of offers before it. */
  answers = [];
  /** What went wrong on the way. */
  errors = [];

  /**
   * @param {{url: string, token: string}} invitation
   * @param {(sdp: string) => Promise<string>} answerOffer Answers an offer of the server.
   */
  static async join({ url, token }, answerOffer) {
    const signalling = new Signalling();
    const query = new URLSearchParams({
      access_token: token,
      auto_subscribe: '1',
      protocol: '15',
      sdk: 'js',
    });
    const socket = new WebSocket(`${url}/rtc?${query}`);
    signalling.socket = socket;
    // One after the other: an offer is answered before the next is looked at.
    let turn = Promise.resolve();
    socket.on('message', (bytes) => {
      const { message } = SignalResponse.fromBinary(bytes);
      turn = turn
        .then(() => signalling.#hear(message, answerOffer))
        .catch((error) => signalling.errors.push(error.message));
    });
    socket.on('close', (code) => signalling.errors.push(`the socket was closed: ${code}`));
    await once(socket, 'open');
    signalling.ping = setInterval(
      () => signalling.send({ case: 'ping', value: BigInt(Date.now()) }),
      PING_MS,
    );
    await signalling.until('the join response', () => signalling.joined);
    return signalling;
  }

  async #hear({ case: kind, value }, answerOffer) {
    switch (kind) {
      case 'join':
        this.joined = value;
        this.#note(value.otherParticipants);
        break;
      case 'update':
        this.#note(value.participants);
        break;
      case 'trackPublished':
        this.published.set(value.cid, value.track.sid);
        break;
      case 'answer':
        this.answers.push(value.sdp);
        break;
      case 'offer': {
        const sdp = await answerOffer(value.sdp);
        this.send({
          case: 'answer',
          value: new SessionDescription({ type: 'answer', sdp, id: value.id }),
        });
        break;
      }
      case 'leave':
        this.errors.push(`told to leave: ${value.reason}`);
        break;
    }
  }

  #note(people) {
    for (const person of people) this.people.set(person.sid, person);
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN)
      this.socket.send(new SignalRequest({ message }).toBinary());
  }

  until(what, probe) {
    return waitFor(probe, { what, diagnose: async () => JSON.stringify(this.errors) });
  }

  /** Announces tracks, offers them, and answers the server's answer. */
  async publish(tracks, offer) {
    for (const { cid, kind } of tracks) {
      const video = kind === 'video';
      const value = new AddTrackRequest({
        cid,
        type: video ? TrackType.VIDEO : TrackType.AUDIO,
        source: video ? TrackSource.CAMERA : TrackSource.MICROPHONE,
        ...(video && { width: 320, height: 180 }),
      });
      this.send({ case: 'addTrack', value });
      await this.until(`the track ${cid}`, () => this.published.has(cid));
    }
    const before = this.answers.length;
    const description = new SessionDescription({ type: 'offer', sdp: await offer(), id: before + 1 });
    this.send({ case: 'offer', value: description });
    return this.until('an answer', () => this.answers[before]);
  }

  /** The sid of somebody's track. */
  trackOf(identity, source) {
    const person = [...this.people.values()].find((p) => p.identity === identity);
    return person?.tracks.find((t) => t.source === source)?.sid;
  }

  close() {
    clearInterval(this.ping);
    this.socket.removeAllListeners('close');
    this.socket.close();
  }
}
