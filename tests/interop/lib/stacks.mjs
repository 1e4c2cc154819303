// The WebRTC stacks beside Chromium's: how a participant of each is made, and what it must see and hear.

import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from '../../e2e/lib/browser.mjs';
import { Stage } from '../../e2e/lib/call.mjs';
import { launchFirefox } from './firefox.mjs';
import { ForeignPeer } from './foreign-peer.mjs';
import { NativePeer, WIDTH, HEIGHT } from './native-peer.mjs';
import { withoutUdp } from './tcp-only.mjs';

const CACHE = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'plenum/interop');
/** Where tests/interop/prepare puts them. */
const PYTHON = join(CACHE, 'aiortc/bin/python');
const PION = join(CACHE, 'pion');
const AIORTC = fileURLToPath(new URL('../aiortc/peer.py', import.meta.url));

/**
 * @typedef {object} Participant
 * @property {() => Promise<void>} publish A camera and a microphone.
 * @property {{width: number, height: number}} size Of its camera.
 * @property {(identity: string, size: {width: number, height: number}) => Promise<any>} waitSeen
 * @property {(identity: string) => Promise<any>} waitHeard
 * @property {() => Promise<string[]>} protocols How its connections reach the server.
 * @property {() => Promise<void>} leave
 */

/** @returns {(target: any, identity: string, room: string) => Promise<Participant>} */
const browser = (launcher, sound) => async (target, identity, room) => {
  const stage = await Stage.open(target, [launcher]);
  try {
    const peer = await stage.joined(identity, room);
    return {
      size: { width: 640, height: 360 },
      async publish() {
        await peer.publishCamera();
        await peer[sound]();
      },
      waitSeen: (who, size) => peer.waitDecoded(who, size),
      waitHeard: (who) => peer.waitAudible(who),
      protocols: async () =>
        (await peer.call('transports')).map(({ remote }) => remote?.replace(/:.*/, '') ?? ''),
      leave: () => stage.close(),
    };
  } catch (error) {
    await stage.close();
    throw error;
  }
};

const chromium = browser(launch, 'publishTone');
/** Without a sound card its AudioContext never runs; its fake microphone is a steady tone anyway. */
const firefox = browser(launchFirefox, 'publishMicrophone');

const native = async (target, identity, room) => {
  const peer = await new NativePeer(identity).join(await target.invite({ identity, room }));
  return {
    size: { width: WIDTH, height: HEIGHT },
    async publish() {
      await Promise.all([peer.publishCamera([200, 30, 30]), peer.publishTone(440)]);
    },
    waitSeen: (who, size) => peer.waitSeen(who, size),
    waitHeard: (who) => peer.waitHeard(who),
    protocols: () => peer.protocols(),
    leave: () => peer.leave(),
  };
};

const foreign = (command, seen) => async (target, identity, room) => {
  const peer = new ForeignPeer(identity, command, seen);
  try {
    await peer.join(await target.invite({ identity, room }));
  } catch (error) {
    await peer.leave();
    throw error;
  }
  return Object.assign(peer, { size: { width: 320, height: 180 } });
};

/**
 * Each stack over each transport. Chromium and the native one over UDP have whole files of their own;
 * aiortc has no ICE over TCP.
 */
export const STACKS = [
  { stack: 'Chromium', protocol: 'tcp', enter: chromium, relayed: true },
  { stack: 'Firefox', protocol: 'udp', enter: firefox },
  { stack: 'Firefox', protocol: 'tcp', enter: firefox, relayed: true },
  { stack: 'libwebrtc (@livekit/rtc-node)', protocol: 'tcp', enter: native, relayed: true },
  { stack: 'aiortc', protocol: 'udp', enter: foreign([PYTHON, AIORTC]) },
  { stack: 'aiortc without AES-GCM', protocol: 'udp', enter: foreign([PYTHON, AIORTC, 'sha1']) },
  { stack: 'Pion', protocol: 'udp', enter: foreign([PION]) },
  { stack: 'Pion', protocol: 'tcp', enter: foreign([PION, 'tcp'], withoutUdp) },
];
