// What the link says: which meeting, and perhaps a token in the fragment, which browsers do not send.

export interface Link {
  namespace: string;
  meeting: string;
  token: string | null;
}

/** Reads /m/NAMESPACE/MEETING#token=... */
export function readLink(path: string, fragment: string): Link | null {
  const match = /^\/m\/([^/]+)\/([^/]+)\/?$/.exec(path);
  if (!match?.[1] || !match[2]) return null;
  const token = new URLSearchParams(fragment.replace(/^#/, '')).get('token');
  try {
    return {
      namespace: decodeURIComponent(match[1]),
      meeting: decodeURIComponent(match[2]),
      token: token || null,
    };
  } catch {
    return null;
  }
}

export interface TokenWords {
  identity: string;
  name: string;
  room: string;
  canPublish: boolean;
}

/** What a token says of its bearer. Not checked: that is the server's part. */
export function readToken(token: string): TokenWords | null {
  try {
    const payload = token.split('.')[1] ?? '';
    const bytes = atob(payload.replace(/-/g, '+').replace(/_/g, '/'));
    const text = new TextDecoder().decode(Uint8Array.from(bytes, (c) => c.charCodeAt(0)));
    const claims = JSON.parse(text) as {
      sub?: string;
      name?: string;
      video?: { room?: string; canPublish?: boolean };
    };
    const identity = claims.sub ?? '';
    return {
      identity,
      name: claims.name || identity,
      room: claims.video?.room ?? '',
      canPublish: claims.video?.canPublish ?? true,
    };
  } catch {
    return null;
  }
}
