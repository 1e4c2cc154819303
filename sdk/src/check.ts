// Tells messages of the protocol from anything else. What comes from a network is checked once, here;
// behind it the types hold. Every shape is written against its interface, so that the compiler notices
// a field that one of the two lacks.
import type {
  Answer,
  Asking,
  Command,
  Entry,
  Failure,
  Me,
  NewRoom,
  Notice,
  Occupant,
  Occupied,
  Placement,
  Request,
  RoomView,
  Session,
  Signal,
  State,
} from './protocol.ts';

/**
 * Says what is wrong with a value, or null. With `strict`, fields that the shape does not know are
 * wrong too: for tests, as a receiver must ignore them.
 */
export type Check<T> = ((value: unknown, strict?: boolean) => string | null) & { readonly of?: T };

const kind =
  <T>(name: string): Check<T> =>
  (value) =>
    typeof value === name ? null : `is not a ${name}`;

const text = kind<string>('string');
const flag = kind<boolean>('boolean');
const integer: Check<number> = (value) => (Number.isSafeInteger(value) ? null : 'is not a whole number');
const anything: Check<unknown> = () => null;

function optional<T>(check: Check<T>): Check<T | undefined> {
  return (value, strict) => (value === undefined ? null : check(value, strict));
}

function list<T>(check: Check<T>): Check<T[]> {
  return (value, strict) => {
    if (!Array.isArray(value)) return 'is not a list';
    for (const [index, item] of value.entries()) {
      const wrong = check(item, strict);
      if (wrong) return `[${index}] ${wrong}`;
    }
    return null;
  };
}

// A word that a newer server added is no reason to throw the whole message away.
function oneOf<T extends string>(...allowed: T[]): Check<T> {
  return (value, strict) => {
    if (strict ? allowed.includes(value as T) : typeof value === 'string') return null;
    return `is none of ${allowed.join(', ')}`;
  };
}

type Fields<T> = { [K in keyof T]-?: Check<T[K]> };

function shape<T>(fields: Fields<T>): Check<T> {
  return (value, strict) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'is not an object';
    for (const name in fields) {
      const wrong = fields[name]((value as Record<string, unknown>)[name], strict);
      if (wrong) return `.${name} ${wrong}`;
    }
    const unknown = strict && Object.keys(value).find((name) => !(name in fields));
    return unknown ? `.${unknown} is unknown` : null;
  };
}

type Variants<T, Tag extends keyof T & string, Common extends string = never> = {
  [K in T[Tag] & string]: Fields<Omit<Extract<T, Record<Tag, K>>, Tag | Common>>;
};

/** One of several shapes, told apart by a field; all have the fields of `common`. */
function tagged<T, Tag extends keyof T & string, Common extends string = never>(
  tag: Tag,
  variants: Variants<T, Tag, Common>,
  common: Record<Common, Check<number>>,
): Check<T> {
  const shapes = new Map<unknown, Check<unknown>>();
  for (const [name, fields] of Object.entries(variants)) {
    shapes.set(name, shape({ [tag]: text, ...common, ...(fields as Record<string, Check<unknown>>) }));
  }
  return (value, strict) => {
    const name: unknown = (value as Record<string, unknown> | null | undefined)?.[tag];
    const check = shapes.get(name);
    return check ? check(value, strict) : `.${tag} is unknown: ${String(name)}`;
  };
}

const mode = oneOf('automatic', 'selfSelect', 'manual');
const how = oneOf('even', 'random');
const role = oneOf('host', 'cohost', 'participant', 'viewer');
const message = oneOf('roomCreated', 'roomChanged', 'participantMoved', 'allRoomRemoved');

const roomView = shape<RoomView>({
  id: text,
  title: text,
  maxParticipants: integer,
  open: flag,
  closesAt: optional(integer),
  participants: optional(list(text)),
});
const askingFields: Fields<Asking> = {
  identity: text,
  name: text,
  room: optional(text),
  since: integer,
};
const asking = shape<Asking>(askingFields);
const occupied = shape<Occupied>({
  id: text,
  title: text,
  open: flag,
  participants: list(
    shape<Occupant>({
      identity: text,
      name: text,
      role: text,
      since: integer,
      speaking: flag,
      hand: flag,
      help: flag,
    }),
  ),
});

/** The kinds of signals and their fields. */
export const SIGNALS: Variants<Signal, 'signal'> = {
  'breakout-room': {
    message,
    mode,
    allowReturnToMain: flag,
    allowCancel: flag,
    rooms: list(roomView),
  },
  'count-down-timer': { period: integer, closesAt: integer, now: integer, rooms: list(text) },
  'participant-switched': {
    identity: text,
    from: optional(text),
    to: optional(text),
    failed: optional(text),
  },
  'raise-hand': { ...askingFields, up: flag },
  'ask-for-help': { ...askingFields, on: flag },
  broadcast: { from: text, name: text, text },
  'message-to-hosts': { ...askingFields, text },
};

/** The kinds of notices and their fields. */
export const NOTICES: Variants<Notice, 'notice'> = {
  moving: {
    message,
    to: optional(text),
    title: text,
    at: integer,
    now: integer,
    seconds: integer,
    cancellable: flag,
  },
  'not-moving': {},
  moved: { to: optional(text), title: text },
  'move-failed': { to: optional(text), landed: optional(text), code: text },
  role: { role },
  overview: { rooms: list(occupied) },
};

/** The kinds of commands and their fields. */
export const COMMANDS: Variants<Command, 'do'> = {
  hello: { since: optional(integer) },
  createRooms: {
    rooms: list(
      shape<NewRoom>({
        title: optional(text),
        maxParticipants: optional(integer),
        participants: optional(list(text)),
      }),
    ),
    mode: optional(mode),
    how: optional(how),
    duration: optional(integer),
    open: optional(flag),
  },
  removeRoom: { room: text },
  renameRoom: { room: text, title: text },
  openRooms: { rooms: optional(list(text)), duration: optional(integer) },
  closeRooms: { rooms: optional(list(text)), countdown: optional(integer) },
  extend: { seconds: integer },
  assign: { moves: list(shape<Placement>({ identity: text, room: optional(text) })) },
  shuffle: { how: optional(how) },
  settings: {
    mode: optional(mode),
    allowReturnToMain: optional(flag),
    allowCancel: optional(flag),
  },
  broadcast: { text, rooms: optional(list(text)) },
  cohost: { identity: text, on: flag },
  mute: { identity: text, track: optional(text), on: flag },
  unpublish: { identity: text, track: optional(text) },
  overview: { watch: flag },
  listen: { room: text },
  speak: {},
  lowerHand: { identity: text },
  chooseRoom: { room: text },
  returnToMain: {},
  cancelMove: {},
  raiseHand: { up: flag },
  askForHelp: { on: flag },
  messageHosts: { text },
};

export const entry = tagged<Entry, 'signal', 'seq' | 'at'>('signal', SIGNALS, {
  seq: integer,
  at: integer,
});
export const notice = tagged<Notice, 'notice'>('notice', NOTICES, {});
export const request = tagged<Request, 'do', 'id'>('do', COMMANDS, { id: integer });
export const answer = shape<Answer>({
  re: integer,
  ok: flag,
  result: anything,
  error: optional(shape<Failure>({ code: text, cause: text, remedy: text, detail: optional(text) })),
});
export const state = shape<State>({
  me: shape<Me>({ identity: text, role, room: optional(text), assigned: optional(text) }),
  mode,
  rooms: list(roomView),
  allowReturnToMain: flag,
  allowCancel: flag,
  hands: list(asking),
  help: list(asking),
  seq: integer,
  now: integer,
});
/** What `createRooms` yields: the ids. */
export const created = shape<{ rooms: string[] }>({ rooms: list(text) });
export const session = shape<Session>({ token: text, url: text });
export const sessions = shape<{ sessions: Session[] }>({ sessions: list(session) });

/** The value, if it is of that shape. */
export function as<T>(check: Check<T>, value: unknown): T | null {
  return check(value) === null ? (value as T) : null;
}
