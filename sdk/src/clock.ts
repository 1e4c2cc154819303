/**
 * The server's clock, as far as messages tell. A message that says `now` was sent at that time and
 * arrives later, so that the largest difference seen is the one nearest to the truth; a message that is
 * told again after a reconnect is old and changes nothing.
 */
export class Clock {
  private offset: number | null = null;

  /** A round trip: the server said `now` somewhere between the two. Begins anew. */
  trip(sent: number, now: number, received: number): void {
    this.offset = now - (sent + received) / 2;
  }

  /** A message that the server sent at `now`. */
  heard(now: number): void {
    this.offset = Math.max(this.offset ?? -Infinity, now - Date.now());
  }

  /** The server's time, in Unix milliseconds. */
  now(): number {
    return Date.now() + (this.offset ?? 0);
  }

  /** Whole seconds until then, never negative. */
  secondsUntil(at: number): number {
    return Math.max(0, Math.ceil((at - this.now()) / 1000));
  }
}

/** Calls back at once and whenever the number of whole seconds until `at` changes, down to 0. */
export class Countdown {
  private timer: ReturnType<typeof setTimeout> | undefined;
  private said: number | null = null;

  constructor(
    private readonly clock: Clock,
    readonly at: number,
    private readonly callback: (seconds: number) => void,
  ) {
    this.tick();
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private tick(): void {
    const left = this.at - this.clock.now();
    const seconds = this.clock.secondsUntil(this.at);
    // Timers may fire a little early.
    const wait = seconds > 0 ? Math.max(1, left - (seconds - 1) * 1000) : 0;
    if (seconds > 0) this.timer = setTimeout(() => this.tick(), wait);
    if (seconds !== this.said) {
      this.said = seconds;
      this.callback(seconds);
    }
  }
}
