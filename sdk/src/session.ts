// Sessions beside the one that people see: to hear a room without being in it, to speak into several.
import type { Participant, RemoteTrackPublication, Room, RoomOptions } from 'livekit-client';
import { notConnected } from './error.ts';
import type { Session } from './protocol.ts';

/** Something that goes on until it is stopped. */
export interface Running {
  /** The sessions behind it. */
  readonly rooms: readonly Room[];
  /** Called where a session ends by itself: the room closed, or the right to it was taken away. */
  onEnd: (() => void) | null;
  stop(): Promise<void>;
}

/** A Room of the same library that the application uses, whichever version or copy that is. */
function another(room: Room, options: RoomOptions): Room {
  return new (room.constructor as new (options: RoomOptions) => Room)(options);
}

class Sessions implements Running {
  readonly rooms: Room[] = [];
  onEnd: (() => void) | null = null;
  private stopped = false;
  private readonly cleanups: (() => void)[] = [];

  /** Connects to all, or to none. */
  async open(own: Room, sessions: Session[], prepare: (room: Room) => void): Promise<void> {
    try {
      const connecting = sessions.map(({ url, token }) => {
        const room = another(own, { disconnectOnPageLeave: true });
        this.rooms.push(room);
        prepare(room);
        room.on('disconnected', () => this.ended());
        return room.connect(url, token, { autoSubscribe: false });
      });
      await Promise.all(connecting);
    } catch (error) {
      await this.stop();
      throw notConnected(error instanceof Error ? error.message : String(error));
    }
  }

  cleanup(action: () => void): void {
    this.cleanups.push(action);
  }

  async stop(): Promise<void> {
    if (this.stopped) return;
    this.stopped = true;
    await Promise.allSettled(this.rooms.map((room) => room.disconnect()));
    for (const action of this.cleanups.splice(0)) action();
  }

  private ended(): void {
    if (this.stopped) return;
    void this.stop();
    this.onEnd?.();
  }
}

/** Plays a room's sound. */
export async function hear(own: Room, session: Session): Promise<Running> {
  const running = new Sessions();
  await running.open(own, [session], (room) => {
    const want = (publication: RemoteTrackPublication) => {
      if (publication.kind === 'audio') publication.setSubscribed(true);
    };
    const wantAll = (participant: Participant) => {
      for (const publication of participant.trackPublications.values()) {
        want(publication as RemoteTrackPublication);
      }
    };
    room
      .on('trackPublished', want)
      .on('participantConnected', wantAll)
      .on('connected', () => room.remoteParticipants.forEach(wantAll))
      .on('trackSubscribed', (track) => {
        const element = track.attach();
        running.cleanup(() => {
          track.detach(element);
          element.remove();
        });
      })
      .on('trackUnsubscribed', (track) => track.detach().forEach((element) => element.remove()));
  });
  return running;
}

/** Sends the microphone into rooms, beside the room that one is in. */
export async function speakInto(own: Room, sessions: Session[]): Promise<Running> {
  const running = new Sessions();
  await running.open(own, sessions, () => undefined);
  try {
    // The same microphone where it is open already: nobody is asked twice. A muted one counts as none.
    const open = own.localParticipant.isMicrophoneEnabled
      ? own.localParticipant.getTrackPublication('microphone' as never)?.track?.mediaStreamTrack
      : undefined;
    const track = open ? open.clone() : await microphone();
    running.cleanup(() => track.stop());
    for (const room of running.rooms) {
      const copy = track.clone();
      running.cleanup(() => copy.stop());
      await room.localParticipant.publishTrack(copy, { source: 'microphone' as never });
    }
  } catch (error) {
    await running.stop();
    throw error;
  }
  return running;
}

async function microphone(): Promise<MediaStreamTrack> {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const [track] = stream.getAudioTracks();
  if (!track) throw new DOMException('no microphone was found', 'NotFoundError');
  return track;
}
