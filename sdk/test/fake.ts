// A Room as the library sees it, and the server behind it.
import { EventEmitter } from 'node:events';
import type { Room } from 'livekit-client';
import type { Request, State } from '../src/protocol.ts';

export const settle = async () => {
  for (let i = 0; i < 20; i += 1) await Promise.resolve();
};

export class FakeRoom extends EventEmitter {
  state = 'disconnected';
  static made: FakeRoom[] = [];
  /** What `connect` was called with. */
  connected: unknown[] = [];
  remoteParticipants = new Map<string, { trackPublications: Map<string, unknown> }>();
  published: { track: unknown; options: unknown }[] = [];
  sent: Request[] = [];
  failing: Error | null = null;
  localParticipant = {
    isLocal: true,
    isMicrophoneEnabled: true,
    isCameraEnabled: false,
    setMicrophoneEnabled: async (on: boolean) => {
      this.localParticipant.isMicrophoneEnabled = on;
    },
    getTrackPublication: (): { track: { mediaStreamTrack: unknown } } | undefined => undefined,
    publishTrack: async (track: unknown, options: unknown) => {
      this.published.push({ track, options });
    },
    publishData: async (bytes: Uint8Array, options: { topic: string; reliable: boolean }) => {
      if (this.failing) throw this.failing;
      if (options.topic !== 'plenum.v1' || !options.reliable) throw new Error('not how requests are sent');
      this.sent.push(JSON.parse(new TextDecoder().decode(bytes)) as Request);
    },
  };

  scenarios: string[] = [];
  async simulateScenario(scenario: string): Promise<void> {
    this.scenarios.push(scenario);
  }

  static refusing: Error | null = null;

  constructor() {
    super();
    FakeRoom.made.push(this);
  }

  async connect(...args: unknown[]): Promise<void> {
    if (FakeRoom.refusing) throw FakeRoom.refusing;
    this.connected = args;
    this.state = 'connected';
    this.emit('connected');
  }

  async disconnect(): Promise<void> {
    this.state = 'disconnected';
    this.emit('disconnected');
  }

  get asRoom(): Room {
    return this as unknown as Room;
  }

  /** The requests of that kind so far. */
  asked(what: string): Request[] {
    return this.sent.filter((request) => request.do === what);
  }

  async says(message: unknown, topic = 'plenum.v1', from?: object): Promise<void> {
    const bytes = new TextEncoder().encode(typeof message === 'string' ? message : JSON.stringify(message));
    this.emit('dataReceived', bytes, from, 0, topic);
    await settle();
  }

  /** Answers the last request of that kind. */
  async answers(what: string, result?: unknown): Promise<void> {
    await this.says({ re: this.asked(what).at(-1)?.id, ok: true, result });
  }

  /** Connects, and answers `hello`. */
  async enters(state: Partial<State> = {}): Promise<void> {
    this.state = 'connected';
    this.emit('connected');
    await settle();
    await this.answers('hello', { ...STATE, ...state });
  }
}

export const NOW = 1_790_000_000_000;

export const STATE: State = {
  me: { identity: 'ann', role: 'participant' },
  mode: 'manual',
  rooms: [
    { id: 'red', title: 'Red room', maxParticipants: 0, open: true },
    { id: 'blue', title: 'Blue room', maxParticipants: 0, open: false },
  ],
  allowReturnToMain: true,
  allowCancel: true,
  hands: [],
  help: [],
  seq: 10,
  now: NOW,
};
