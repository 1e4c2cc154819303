// What Plenum and its clients say to each other on the data topic `plenum.v1`: the TypeScript side of
// the crate `plenum-protocol`. Within `plenum.v1` fields and kinds are only added; a receiver ignores
// what it does not know. Times are Unix milliseconds of the server's clock. Rooms are named by their
// id; where a room is left out, the main room is meant.

/** The reserved topic. */
export const TOPIC = 'plenum.v1';

/** The participant attribute that says somebody's role; set by the server. */
export const ROLE_ATTRIBUTE = 'plenum.role';

/** Limits of what a client may ask for. */
export const LIMITS = {
  /** Breakout rooms of a meeting. */
  rooms: 200,
  /** Bytes of a broadcast or of a message to the hosts. */
  text: 4000,
  /** Characters of a room's title. */
  title: 200,
  /** Seconds; 0 (at once) is allowed too. */
  shortestCountdown: 10,
  longestCountdown: 120,
} as const;

/** How rooms are filled: spread by the server, chosen by each, or by hosts (and objects) alone. */
export type Mode = 'automatic' | 'selfSelect' | 'manual';

/** How people are spread: as many in each room, in the order of joining or at random. */
export type How = 'even' | 'random';

export type Role = 'host' | 'cohost' | 'participant' | 'viewer';

/** A breakout room as clients see it. */
export interface RoomView {
  id: string;
  title: string;
  /** 0 = unlimited. */
  maxParticipants: number;
  open: boolean;
  /** When it closes; left out: it stays open. */
  closesAt?: number;
  /** Identities assigned to it. */
  participants?: string[];
}

export type BreakoutMessage = 'roomCreated' | 'roomChanged' | 'participantMoved' | 'allRoomRemoved';

/** The rooms are so now. */
export interface BreakoutRoomSignal {
  signal: 'breakout-room';
  message: BreakoutMessage;
  mode: Mode;
  allowReturnToMain: boolean;
  allowCancel: boolean;
  /** All rooms. */
  rooms: RoomView[];
}

/** Time runs until rooms close. */
export interface CountDownTimerSignal {
  signal: 'count-down-timer';
  /** Seconds left when it was sent. */
  period: number;
  closesAt: number;
  now: number;
  /** Ids of the rooms it concerns. */
  rooms: string[];
}

/** Somebody went from a room to another. */
export interface ParticipantSwitchedSignal {
  signal: 'participant-switched';
  identity: string;
  from?: string;
  to?: string;
  /** A code of the error catalogue, where they could not go to where they were to go. */
  failed?: string;
}

/** Somebody, and where they are. */
export interface Asking {
  identity: string;
  name: string;
  room?: string;
  since: number;
}

/** A hand went up or down. */
export interface RaiseHandSignal extends Asking {
  signal: 'raise-hand';
  up: boolean;
}

/** Somebody asks for a host, or no longer. */
export interface AskForHelpSignal extends Asking {
  signal: 'ask-for-help';
  on: boolean;
}

/** A host speaks to all. */
export interface BroadcastSignal {
  signal: 'broadcast';
  from: string;
  name: string;
  text: string;
}

/** Somebody speaks to the hosts. */
export interface MessageToHostsSignal extends Asking {
  signal: 'message-to-hosts';
  text: string;
}

/** Something that a meeting is told, in order. */
export type Signal =
  | BreakoutRoomSignal
  | CountDownTimerSignal
  | ParticipantSwitchedSignal
  | RaiseHandSignal
  | AskForHelpSignal
  | BroadcastSignal
  | MessageToHostsSignal;

/** A signal with its number. Numbers rise; a client sees gaps where a signal is not for it. */
export type Entry = { seq: number; at: number } & Signal;

/** You will be moved. */
export interface MovingNotice {
  notice: 'moving';
  message: BreakoutMessage;
  to?: string;
  title: string;
  at: number;
  now: number;
  /** Seconds between the two. */
  seconds: number;
  cancellable: boolean;
}

/** The move that was announced does not take place. */
export interface NotMovingNotice {
  notice: 'not-moving';
}

/** You were moved. */
export interface MovedNotice {
  notice: 'moved';
  to?: string;
  title: string;
}

/** You could not be moved to `to` and are in `landed`. */
export interface MoveFailedNotice {
  notice: 'move-failed';
  to?: string;
  landed?: string;
  /** A code of the error catalogue. */
  code: string;
}

/** What you may do has changed. */
export interface RoleNotice {
  notice: 'role';
  role: Role;
}

/** Somebody in a room. */
export interface Occupant {
  identity: string;
  name: string;
  role: string;
  /** Since when in this room. */
  since: number;
  speaking: boolean;
  hand: boolean;
  help: boolean;
}

/** A room and its people; the main room has the id `""`. */
export interface Occupied {
  id: string;
  title: string;
  open: boolean;
  participants: Occupant[];
}

/** All rooms with their people, the main room first. For hosts who watch. */
export interface Overview {
  rooms: Occupied[];
}

export type OverviewNotice = { notice: 'overview' } & Overview;

/** Something one client is told, outside the order of signals. */
export type Notice =
  MovingNotice | NotMovingNotice | MovedNotice | MoveFailedNotice | RoleNotice | OverviewNotice;

/** Oneself. */
export interface Me {
  identity: string;
  role: Role;
  room?: string;
  /** Where one is assigned to; left out: nowhere, or the main room. */
  assigned?: string;
}

/** The answer to `hello`. */
export interface State {
  me: Me;
  mode: Mode;
  rooms: RoomView[];
  allowReturnToMain: boolean;
  allowCancel: boolean;
  /** Hands that are up; for participants those of their own room. */
  hands: Asking[];
  /** Who asks for help; for participants at most themselves. */
  help: Asking[];
  /** The last signal's number. */
  seq: number;
  now: number;
}

/** A room to be made. */
export interface NewRoom {
  /** Left out: `Room N`. */
  title?: string;
  /** Left out: as many as in the meeting. */
  maxParticipants?: number;
  participants?: string[];
}

/** Somebody's place. */
export interface Placement {
  identity: string;
  room?: string;
}

/** What may be asked for. */
export type Command =
  | { do: 'hello'; since?: number }
  | { do: 'createRooms'; rooms: NewRoom[]; mode?: Mode; how?: How; duration?: number; open?: boolean }
  | { do: 'removeRoom'; room: string }
  | { do: 'renameRoom'; room: string; title: string }
  | { do: 'openRooms'; rooms?: string[]; duration?: number }
  | { do: 'closeRooms'; rooms?: string[]; countdown?: number }
  | { do: 'extend'; seconds: number }
  | { do: 'assign'; moves: Placement[] }
  | { do: 'shuffle'; how?: How }
  | { do: 'settings'; mode?: Mode; allowReturnToMain?: boolean; allowCancel?: boolean }
  | { do: 'broadcast'; text: string; rooms?: string[] }
  | { do: 'cohost'; identity: string; on: boolean }
  | { do: 'mute'; identity: string; track?: string; on: boolean }
  | { do: 'unpublish'; identity: string; track?: string }
  | { do: 'overview'; watch: boolean }
  | { do: 'listen'; room: string }
  | { do: 'speak' }
  | { do: 'lowerHand'; identity: string }
  | { do: 'chooseRoom'; room: string }
  | { do: 'returnToMain' }
  | { do: 'cancelMove' }
  | { do: 'raiseHand'; up: boolean }
  | { do: 'askForHelp'; on: boolean }
  | { do: 'messageHosts'; text: string };

export type Request = { id: number } & Command;

/** An entry of the error catalogue, as an answer carries it. */
export interface Failure {
  code: string;
  cause: string;
  remedy: string;
  /** What is particular to this occurrence. */
  detail?: string;
}

/** The answer to the request with the id `re`. */
export interface Answer {
  re: number;
  ok: boolean;
  result?: unknown;
  error?: Failure;
}

/** A session to be opened: where, and with what. */
export interface Session {
  token: string;
  url: string;
}
