// One participant on LiveKit's native stack: no browser, frames made and judged by hand.

import {
  AudioFrame,
  AudioSource,
  AudioStream,
  LocalAudioTrack,
  LocalVideoTrack,
  Room,
  RoomEvent,
  TrackKind,
  TrackPublishOptions,
  TrackSource,
  VideoBufferType,
  VideoFrame,
  VideoSource,
  VideoStream,
} from '@livekit/rtc-node';
import { waitFor } from '../../e2e/lib/wait.mjs';

export const WIDTH = 320;
export const HEIGHT = 180;
const FRAMES_PER_SECOND = 15;
const RATE = 48_000;
const CHUNK = RATE / 50;
/** Below this root mean square of 16-bit samples, a stream counts as silent. */
const SILENCE = 300;

/** A picture in one colour, with a bar that moves so that no two frames are alike. */
function picture([red, green, blue], turn) {
  const data = new Uint8Array(WIDTH * HEIGHT * 4);
  const bar = (turn * 4) % WIDTH;
  for (let i = 0; i < WIDTH * HEIGHT; i++) {
    const white = Math.abs((i % WIDTH) - bar) < 4;
    data.set(white ? [255, 255, 255, 255] : [red, green, blue, 255], i * 4);
  }
  return data;
}

/** The mean colour of a frame. */
function meanColour(frame) {
  const { data, width, height } = frame.convert(VideoBufferType.RGBA);
  const mean = [0, 0, 0];
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) mean[c] += data[i * 4 + c];
  return mean.map((sum) => Math.round(sum / (width * height)));
}

export class NativePeer {
  constructor(identity) {
    this.identity = identity;
    this.room = new Room();
    /** @type {Map<string, {frames: number, width: number, height: number, colour: number[]}>} */
    this.seen = new Map();
    /** @type {Map<string, {chunks: number, loudest: number}>} */
    this.heard = new Map();
    /** @type {{identity: string | undefined, text: string, kind: number, topic: string | undefined}[]} */
    this.data = [];
    this.left = [];
    this.disconnected = false;
    this.timers = [];
    const { room } = this;
    room.on(RoomEvent.TrackSubscribed, (track, _, participant) => {
      if (track.kind === TrackKind.KIND_VIDEO) this.#look(track, participant.identity);
      else this.#listen(track, participant.identity);
    });
    room.on(RoomEvent.DataReceived, (payload, participant, kind, topic) =>
      this.data.push({
        identity: participant?.identity,
        text: new TextDecoder().decode(payload),
        kind,
        topic,
      }),
    );
    room.on(RoomEvent.ParticipantDisconnected, (participant) => this.left.push(participant.identity));
    room.on(RoomEvent.Disconnected, () => (this.disconnected = true));
  }

  async #look(track, identity) {
    for await (const { frame } of new VideoStream(track)) {
      const before = this.seen.get(identity)?.frames ?? 0;
      const { width, height } = frame;
      this.seen.set(identity, { frames: before + 1, width, height, colour: meanColour(frame) });
    }
  }

  async #listen(track, identity) {
    for await (const { data } of new AudioStream(track)) {
      const power = data.reduce((sum, s) => sum + s * s, 0) / data.length;
      const before = this.heard.get(identity) ?? { chunks: 0, loudest: 0 };
      this.heard.set(identity, {
        chunks: before.chunks + 1,
        loudest: Math.max(before.loudest, Math.round(Math.sqrt(power))),
      });
    }
  }

  async join({ url, token }) {
    await this.room.connect(url, token, { autoSubscribe: true, dynacast: false });
    return this;
  }

  /** @param {number[]} colour */
  async publishCamera(colour) {
    const source = new VideoSource(WIDTH, HEIGHT);
    const track = LocalVideoTrack.createVideoTrack('camera', source);
    let turn = 0;
    this.timers.push(
      setInterval(
        () =>
          source.captureFrame(new VideoFrame(picture(colour, turn++), WIDTH, HEIGHT, VideoBufferType.RGBA)),
        1000 / FRAMES_PER_SECOND,
      ),
    );
    const options = new TrackPublishOptions({ source: TrackSource.SOURCE_CAMERA, simulcast: false });
    return this.room.localParticipant.publishTrack(track, options);
  }

  async publishTone(hertz) {
    const source = new AudioSource(RATE, 1);
    const track = LocalAudioTrack.createAudioTrack('microphone', source);
    let position = 0;
    this.timers.push(
      setInterval(() => {
        const samples = Int16Array.from(
          { length: CHUNK },
          () => 8000 * Math.sin((2 * Math.PI * hertz * position++) / RATE),
        );
        source.captureFrame(new AudioFrame(samples, RATE, 1, CHUNK)).catch(() => {});
      }, 20),
    );
    const options = new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE });
    return this.room.localParticipant.publishTrack(track, options);
  }

  send(text, options) {
    return this.room.localParticipant.publishData(new TextEncoder().encode(text), options);
  }

  until(what, probe) {
    return waitFor(probe, {
      what: `${this.identity}: ${what}`,
      diagnose: async () =>
        JSON.stringify({
          seen: [...this.seen],
          heard: [...this.heard],
          data: this.data,
          connected: this.room.isConnected,
          remote: [...this.room.remoteParticipants.keys()],
        }),
    });
  }

  /** Waits for pictures of `identity` in the right size, and answers the last one's facts. */
  waitSeen(identity, { width = WIDTH, height = HEIGHT } = {}) {
    const from = this.seen.get(identity)?.frames ?? 0;
    return this.until(`sees ${identity}`, () => {
      const now = this.seen.get(identity);
      return now && now.frames >= from + 5 && now.width === width && now.height === height && now;
    });
  }

  waitHeard(identity) {
    return this.until(`hears ${identity}`, () => {
      const now = this.heard.get(identity);
      return now && now.loudest > SILENCE && now;
    });
  }

  waitData(text, from) {
    return this.until(`data ${text}`, () => this.data.find((d) => d.text === text && d.identity === from));
  }

  /** How its connections reach the server. */
  async protocols() {
    const { publisherStats, subscriberStats } = await this.room.getRtcStats();
    return [publisherStats, subscriberStats].flatMap((all) => {
      const of = (kind) => all.map(({ stats }) => stats).filter((s) => s.case === kind);
      const used = of('candidatePair').find(({ value }) => value.candidatePair.nominated);
      const remote = of('remoteCandidate').find(
        ({ value }) => value.rtc.id === used?.value.candidatePair.remoteCandidateId,
      );
      return remote ? [remote.value.candidate.protocol] : [];
    });
  }

  async leave() {
    this.timers.splice(0).forEach(clearInterval);
    await this.room.disconnect();
  }
}
