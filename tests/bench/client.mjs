// A client process: one publisher, or a few subscribers. Its parent asks, it answers.

import {
  AudioFrame,
  AudioSource,
  LocalAudioTrack,
  LocalVideoTrack,
  Room,
  TrackPublishOptions,
  TrackSource,
  VideoBufferType,
  VideoCodec,
  VideoFrame,
  VideoSource,
} from '@livekit/rtc-node';
import { waitFor } from '../e2e/lib/wait.mjs';

const WIDTH = 640;
const HEIGHT = 360;
const FRAMES_PER_SECOND = 30;
const BITS_PER_SECOND = 800_000n;
const RATE = 48_000;
const CHUNK = RATE / 50;
const PICTURES = 16;
/** Five seconds of video, for the encoder to settle on a bitrate. */
const WARM_FRAMES = 5 * FRAMES_PER_SECOND;
/** The package does not export the names of these states; the number is the protocol's. */
const DTLS_TRANSPORT_CONNECTED = 2;

/** @type {Room[]} */
const rooms = [];
let video;
let audio;

async function connect({ url, token }) {
  const room = new Room();
  await room.connect(url, token, { autoSubscribe: true, dynacast: false });
  rooms.push(room);
  return room;
}

/** Grey noise, the same in every run: the encoder always has more to say than it may. */
function pictures() {
  let seed = 1;
  return Array.from({ length: PICTURES }, () => {
    const data = new Uint8Array((WIDTH * HEIGHT * 3) / 2).fill(128);
    for (let i = 0; i < WIDTH * HEIGHT; i++) {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      data[i] = 112 + (seed >>> 27);
    }
    return new VideoFrame(data, WIDTH, HEIGHT, VideoBufferType.I420);
  });
}

/** Everything WebRTC counts in one room, whichever connection it is of. */
async function statistics(room) {
  const { publisherStats, subscriberStats } = await room.getRtcStats();
  return [...publisherStats, ...subscriberStats].map(({ stats }) => stats);
}

async function incoming(room) {
  const total = { packets: 0, lost: 0, kinds: 0, frames: 0 };
  for (const { case: type, value } of await statistics(room)) {
    if (type !== 'inboundRtp') continue;
    const packets = Number(value.received?.packetsReceived ?? 0);
    total.packets += packets;
    total.lost += Number(value.received?.packetsLost ?? 0);
    total.frames += value.inbound?.framesDecoded ?? 0;
    if (packets > 0) total.kinds++;
  }
  return total;
}

const actions = {
  /** Publishes a camera and a microphone that have nothing to say yet. */
  async publish(invitation) {
    const { localParticipant } = await connect(invitation);
    video = new VideoSource(WIDTH, HEIGHT);
    audio = new AudioSource(RATE, 1);
    await localParticipant.publishTrack(
      LocalVideoTrack.createVideoTrack('camera', video),
      new TrackPublishOptions({
        source: TrackSource.SOURCE_CAMERA,
        simulcast: false,
        videoCodec: VideoCodec.VP8,
        videoEncoding: { maxBitrate: BITS_PER_SECOND, maxFramerate: FRAMES_PER_SECOND },
      }),
    );
    await localParticipant.publishTrack(
      LocalAudioTrack.createAudioTrack('microphone', audio),
      new TrackPublishOptions({ source: TrackSource.SOURCE_MICROPHONE, dtx: false }),
    );
  },

  /** Lets the camera and the microphone speak, until this process ends. */
  async speak() {
    const frames = pictures();
    let turn = 0;
    let position = 0;
    setInterval(() => video.captureFrame(frames[turn++ % PICTURES]), 1000 / FRAMES_PER_SECOND);
    setInterval(() => {
      const tone = () => 8000 * Math.sin((2 * Math.PI * 440 * position++) / RATE);
      const samples = Int16Array.from({ length: CHUNK }, tone);
      audio.captureFrame(new AudioFrame(samples, RATE, 1, CHUNK)).catch(() => {});
    }, 20);
  },

  /** Joined is who has both tracks and an encrypted connection for them. */
  async subscribe(invitation) {
    const room = await connect(invitation);
    await waitFor(
      async () => {
        const tracks = [...room.remoteParticipants.values()].flatMap((who) => [
          ...who.trackPublications.values(),
        ]);
        if (tracks.filter(({ track }) => track).length !== 2) return false;
        return (await statistics(room)).some(
          ({ case: type, value }) =>
            type === 'transport' && value.transport?.dtlsState === DTLS_TRANSPORT_CONNECTED,
        );
      },
      { what: 'both tracks are subscribed' },
    );
  },

  /** Every subscriber of this process gets sound, and has decoded enough pictures to be warm. */
  async receiving() {
    await Promise.all(
      rooms.map((room) =>
        waitFor(async () => ((s) => s.kinds === 2 && s.frames >= WARM_FRAMES)(await incoming(room)), {
          what: 'a subscriber receives',
          diagnose: async () => JSON.stringify(await incoming(room)),
        }),
      ),
    );
  },

  async received() {
    const all = await Promise.all(rooms.map(incoming));
    return all.reduce((a, b) => ({ packets: a.packets + b.packets, lost: a.lost + b.lost }), {
      packets: 0,
      lost: 0,
    });
  },
};

process.on('message', async ({ id, what, args }) => {
  try {
    process.send({ id, answer: await actions[what](args) });
  } catch (error) {
    if (process.connected) process.send({ id, error: `${what}: ${error.message}` });
  }
});
process.on('disconnect', () => process.exit(0));
