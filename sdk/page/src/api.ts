// The few things the page asks the gateway for.
import { words, type Words } from './words.ts';

export interface MeetingInfo {
  guests: boolean;
  title?: string;
}

export interface GuestToken {
  token: string;
  identity: string;
}

/** A refusal in words. */
export class Refused extends Error {
  constructor(readonly words: Words) {
    super(words.title);
  }
}

function base(namespace: string, meeting: string): string {
  return `/m/${encodeURIComponent(namespace)}/${encodeURIComponent(meeting)}`;
}

/** What somebody without a token may know of a meeting. */
export async function meetingInfo(namespace: string, meeting: string): Promise<MeetingInfo> {
  try {
    const answer = await fetch(`${base(namespace, meeting)}/info`);
    if (answer.ok) return (await answer.json()) as MeetingInfo;
  } catch {
    // Joining will say what is wrong.
  }
  return { guests: false };
}

/** A token for a guest of that name. */
export async function guestToken(namespace: string, meeting: string, name: string): Promise<GuestToken> {
  let answer: Response;
  try {
    answer = await fetch(`${base(namespace, meeting)}/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json' },
      body: JSON.stringify({ name }),
    });
  } catch {
    throw new Refused({
      code: 'Unreachable',
      title: 'No connection to the meeting',
      text: 'The server could not be reached. Check your network and try again.',
      again: true,
    });
  }
  if (answer.ok) return (await answer.json()) as GuestToken;
  const body = (await answer.json()) as { code: string; message: string; remedy: string };
  throw new Refused(words(body.code, body.message.replace(/^[A-Za-z]+: /, ''), body.remedy));
}
