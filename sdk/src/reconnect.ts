// What has to be done so that the data channel outlives a move, or comes back.
import type { Room } from 'livekit-client';

/** How long the server's first word is waited for; a server of an older version says none. */
const FIRST_WORD_MS = 5000;

/**
 * A move to another worker with the connection that the client has. Chromium closes a data channel for good
 * on which something is sent while it takes the description of the other worker, and livekit-client may say
 * that it is reconnected before that. What comes from the server shows that it is over.
 */
export class Crossing {
  private heardFrom = false;
  private under = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly over: () => void) {}

  /** One is in another room, and still reconnecting. */
  begin(): void {
    this.under = true;
    this.heardFrom = false;
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  /** The server said something. */
  heard(): void {
    if (!this.under) return;
    this.heardFrom = true;
    if (this.timer !== undefined) this.finish();
  }

  /** livekit-client is reconnected. False: it was no move to another worker. */
  arrived(): boolean {
    if (!this.under) return false;
    if (this.heardFrom) this.finish();
    else this.timer ??= setTimeout(() => this.finish(), FIRST_WORD_MS);
    return true;
  }

  /** There is another connection, or none. */
  end(): void {
    this.under = false;
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private finish(): void {
    this.end();
    this.over();
  }
}

/** Makes the connection anew; false where this version of livekit-client has no way to. */
export function reconnect(room: Room): boolean {
  // Public on the object, if meant for tests: there is no other way that keeps the Room.
  const { simulateScenario } = room as { simulateScenario?: (scenario: string) => Promise<void> };
  if (!simulateScenario) return false;
  simulateScenario.call(room, 'full-reconnect').catch(() => undefined);
  return true;
}
