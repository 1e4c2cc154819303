// What an application is told of breakout rooms.
import type { PlenumError } from './error.ts';
import type { Asking, BreakoutMessage, Mode, Overview, Role, RoomView } from './protocol.ts';
import type { MeetingState } from './standing.ts';

export interface BreakoutsOptions {
  /**
   * Mutes the microphone in the last second before a switch that is announced, and before one that
   * this client asks for; it stays muted until it is switched on again. Where a switch comes without
   * an announcement, it is muted at once after it. Left out: the microphone stays as it was.
   */
  muteOnMove?: boolean;
}

/** Time runs until the rooms close, or no longer. */
export interface Timer {
  /** Of the server's clock, in Unix milliseconds. */
  closesAt: number;
  /** Whole seconds left, the same in every room. */
  seconds: number;
}

/** A move that was announced. */
export interface Moving {
  /** Id of the room; null = the main room. */
  to: string | null;
  title: string;
  /** Whole seconds left. */
  seconds: number;
  cancellable: boolean;
  /** Stays. Rejected where that is not allowed, or too late. */
  cancel(): Promise<void>;
}

/** One is in another room now. */
export interface Moved {
  from: string | null;
  to: string | null;
  title: string;
  microphone: boolean;
  camera: boolean;
}

export interface BreakoutsEvents {
  /** Anything of `state` has changed. */
  state: MeetingState;
  /** The rooms are others. `message` is null where they come from a `hello`. */
  roomsChanged: { message: BreakoutMessage | null; mode: Mode; rooms: readonly RoomView[] };
  /** Each second; null once no time runs any more. */
  timer: Timer | null;
  /** When a move is announced, and each second until it takes place. */
  moving: Moving;
  /** The announced move does not take place. */
  notMoving: undefined;
  moved: Moved;
  /** One could not be moved to `to` and is in `landed`. */
  moveFailed: { to: string | null; landed: string | null; code: string };
  handRaised: Asking & { up: boolean };
  helpAsked: Asking & { on: boolean };
  broadcast: { from: string; name: string; text: string; at: number };
  messageToHosts: Asking & { text: string; at: number };
  participantSwitched: { identity: string; from: string | null; to: string | null; failed: string | null };
  /** For hosts who called `watchOverview(true)`. */
  overview: Overview;
  role: Role;
  /** The server does not answer: it is no Plenum, or the meeting has no breakout rooms. */
  unavailable: PlenumError;
}
