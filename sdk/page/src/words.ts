// Faults and endings in words. Refusals come from the server's error catalogue, as
// "CODE: cause (detail). Remedy: remedy."; endings come as LiveKit's disconnect reasons.
import { ConnectionError, DisconnectReason } from 'livekit-client';
import { PlenumError } from '../../src/index.ts';

export interface Words {
  /** A code of the catalogue, or the name of a disconnect reason. */
  code: string;
  title: string;
  text: string;
  /** Whether trying again can help. */
  again: boolean;
}

const TITLES: Record<string, string> = {
  TokenMissing: 'This meeting needs an invitation',
  TokenExpired: 'Your invitation has expired',
  TokenRevoked: 'Your invitation is no longer valid',
  TokenNotYetValid: 'Your invitation is not valid yet',
  TokenWrongMeeting: 'Your invitation is for another meeting',
  NotPermitted: 'Your invitation does not let you in',
  MeetingNotFound: 'There is no such meeting',
  RoomNotFound: 'There is no such room',
  MeetingNotReady: 'The meeting is getting ready',
  MeetingEnded: 'The meeting has ended',
  MeetingFull: 'The meeting is full',
  MeetingLocked: 'The meeting is locked',
  GuestsNotAllowed: 'This meeting needs an invitation',
  WorkerUnreachable: 'The meeting cannot be reached right now',
  RateLimited: 'Too many attempts',
  DuplicateIdentity: 'You joined from somewhere else',
  ParticipantRemoved: 'You were removed from the meeting',
};

/** Codes of states that pass by themselves. */
export const PASSING = new Set([
  'MeetingNotReady',
  'WorkerUnreachable',
  'WorkerDraining',
  'NoCapacity',
  'PoolNotReady',
]);

/** Words for a line of the catalogue; null where the text is not one. */
export function fromCatalogue(line: string): Words | null {
  const match =
    /(?:^|: )([A-Z][A-Za-z]+): (.+?)(?: \(requested room does not exist\))?\.? Remedy: (.+?)\.?$/s.exec(
      line.trim(),
    );
  if (!match?.[1] || !match[2] || !match[3]) return null;
  return words(match[1], match[2], match[3]);
}

/** Words for an entry of the catalogue. */
export function words(code: string, cause: string, remedy: string): Words {
  const again = PASSING.has(code) || code === 'RateLimited' || code === 'MeetingFull';
  if (code.startsWith('Token') && !TITLES[code]) {
    return { code, title: 'Your invitation cannot be used', text: sentence(cause, remedy), again: false };
  }
  return { code, title: TITLES[code] ?? 'You cannot join', text: sentence(cause, remedy), again };
}

function sentence(cause: string, remedy: string): string {
  const upper = (text: string) => text.charAt(0).toUpperCase() + text.slice(1);
  return `${upper(cause)}. ${upper(remedy)}.`;
}

const MOVES: Record<string, string> = {
  MeetingFull: 'That room is full.',
  RoomClosed: 'That room is closed.',
  RoomNotFound: 'That room is gone.',
  NotPermitted: 'You may not go there by yourself.',
  WorkerUnreachable: 'That room cannot be reached right now.',
  NoCapacity: 'That room cannot be reached right now.',
};

/** Words for a move that did not take place, and where one is instead. */
export function ofMove(code: string, where: string): string {
  return `${MOVES[code] ?? `You could not be moved (${code}).`} You are in ${where}.`;
}

/** Words for a request that was refused. */
export function ofRefusal(error: unknown): string {
  if (!(error instanceof PlenumError)) return error instanceof Error ? error.message : String(error);
  return sentence(error.detail ? `${error.cause} (${error.detail})` : error.cause, error.remedy);
}

/** Words for what went wrong while connecting. Asks the server where the client library did not. */
export async function ofConnectError(error: unknown, token: string): Promise<Words> {
  if (error instanceof ConnectionError) {
    const known = fromCatalogue(error.message);
    if (known) return known;
  }
  try {
    const query = new URLSearchParams({ access_token: token });
    const answer = await fetch(`/rtc/validate?${query}`, { headers: { accept: 'application/json' } });
    if (!answer.ok) {
      const body = (await answer.json()) as { code: string; message: string; remedy: string };
      return words(body.code, body.message.replace(/^[A-Za-z]+: /, ''), body.remedy);
    }
  } catch {
    // Not reachable either: said below.
  }
  return {
    code: 'Unreachable',
    title: 'No connection to the meeting',
    text: 'The server could not be reached. Check your network and try again.',
    again: true,
  };
}

/** Words for the end of a call; null where the person left on purpose. */
export function ofEnd(reason: DisconnectReason | undefined): Words | null {
  const end = (code: string, title: string, text: string, again: boolean) => ({ code, title, text, again });
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return null;
    case DisconnectReason.DUPLICATE_IDENTITY:
      return end(
        'DuplicateIdentity',
        'You joined from somewhere else',
        'The meeting goes on in your other window or device.',
        true,
      );
    case DisconnectReason.PARTICIPANT_REMOVED:
      return end(
        'ParticipantRemoved',
        'You were removed from the meeting',
        'A host removed you. Ask for a new invitation if you think this was a mistake.',
        false,
      );
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return end('MeetingEnded', 'The meeting has ended', 'The host ended the meeting for everyone.', false);
    case DisconnectReason.SERVER_SHUTDOWN:
    case DisconnectReason.MIGRATION:
      return end(
        'WorkerUnreachable',
        'The meeting had to move',
        'The server that held the meeting went away. You can join again.',
        true,
      );
    case DisconnectReason.CONNECTION_TIMEOUT:
    case DisconnectReason.MEDIA_FAILURE:
      return end(
        'ConnectionTimeout',
        'No sound or picture came through',
        'Your network may block the media ports of this meeting.',
        true,
      );
    default:
      return end('Disconnected', 'The connection was lost', 'You can join again.', true);
  }
}
