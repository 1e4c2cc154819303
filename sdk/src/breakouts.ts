// Breakout rooms over a livekit-client Room.
import type { Room } from 'livekit-client';
import { as, created, entry, notice, session, sessions, state } from './check.ts';
import { Clock, Countdown } from './clock.ts';
import { parseAssignments } from './csv.ts';
import { notConnected, PlenumError } from './error.ts';
import { Events } from './events.ts';
import {
  type Command,
  type Entry,
  type How,
  type Mode,
  type MovingNotice,
  type NewRoom,
  type Notice,
  type Placement,
  type Role,
  ROLE_ATTRIBUTE,
  type RoomView,
  type State,
  TOPIC,
} from './protocol.ts';
import { malformed, Requests } from './requests.ts';
import { hear, type Running, speakInto } from './session.ts';
import { Crossing, reconnect } from './reconnect.ts';
import { type MeetingState, Standing } from './standing.ts';
import type { BreakoutsEvents, BreakoutsOptions, Timer } from './told.ts';

/** How often `hello` is said in vain before a connection counts as one without breakout rooms. */
const HELLOS = 3;
const HELLO_PAUSE_MS = 2000;
/** It may be repeated at will, and what a client sends right after a reconnect is sometimes lost. */
const HELLO_PATIENCE_MS = 5000;

/**
 * Breakout rooms of the meeting that `room` is connected to. Make one per Room, before or after it
 * connects; it stays good through reconnects and moves, which keep the Room object. Requests are never
 * repeated: each is rejected with a `PlenumError` where it was refused or not answered. While the client
 * reconnects they wait until the server has answered again.
 */
export class Breakouts {
  private readonly events = new Events<BreakoutsEvents>();
  private readonly clock = new Clock();
  private readonly standing = new Standing();
  private readonly requests: Requests;
  private readonly listeners: [string, (...args: never[]) => void][];
  private readonly crossing = new Crossing(() => void this.hello());
  private hellos = 0;
  /** The connection was made anew because nobody answered, and nobody has answered since. */
  private revived = false;
  /** Open but for the time from the loss of a connection to the server's next word. */
  private gate: { opened: Promise<void>; open(): void } | null = null;
  private watching = false;
  private known: string | null | undefined;
  private moving: { notice: MovingNotice; countdown: Countdown | null; lost: boolean } | null = null;
  private countdown: Countdown | null = null;
  private mutedForMove = false;

  constructor(
    readonly room: Room,
    private readonly options: BreakoutsOptions = {},
  ) {
    this.requests = new Requests((bytes) => this.send(bytes));
    const greet = () => void this.hello();
    // Something may be missed from now on: what comes after it waits for what `hello` brings again.
    const hold = () => {
      // Nothing may be sent now: see `Crossing`.
      this.hellos += 1;
      this.standing.hold();
      this.gate ??= gate();
    };
    this.listeners = [
      ['connected', greet],
      [
        'reconnecting',
        () => {
          this.crossing.end();
          hold();
        },
      ],
      ['signalReconnecting', hold],
      [
        'reconnected',
        () => {
          // Whoever announced it may be gone; the answer to `hello` shows what came of it.
          if (this.moving) this.moving.lost = true;
          if (!this.crossing.arrived()) greet();
        },
      ],
      ['moved', () => (room.state === 'connected' ? greet() : this.crossing.begin())],
      ['dataReceived', (...args: Parameters<Breakouts['received']>) => this.received(...args)],
      ['disconnected', () => this.ended()],
      [
        'participantAttributesChanged',
        (changed: Record<string, string>, who: { isLocal: boolean }) => {
          const role = changed[ROLE_ATTRIBUTE];
          if (who.isLocal && role) this.setRole(role as Role);
        },
      ],
    ];
    for (const [name, callback] of this.listeners) room.on(name as 'connected', callback as () => void);
    if (room.state === 'connected') greet();
  }

  /** Stops listening to the Room. */
  close(): void {
    for (const [name, callback] of this.listeners) {
      this.room.off(name as 'connected', callback as () => void);
    }
    this.ended();
    this.events.clear();
  }

  /** Calls back on every such event, until the returned function is called. */
  on<K extends keyof BreakoutsEvents>(name: K, callback: (event: BreakoutsEvents[K]) => void): () => void {
    return this.events.on(name, callback);
  }

  /** What holds now. Another object after every change. */
  get state(): MeetingState {
    return this.standing.state;
  }

  /** Host or co-host? */
  get isHost(): boolean {
    return this.state.role === 'host' || this.state.role === 'cohost';
  }

  /** The room that one is in; null in the main room. */
  get currentRoom(): RoomView | null {
    return this.state.rooms.find((room) => room.id === this.state.room) ?? null;
  }

  /** May one go to that room by oneself? */
  mayChoose(room: RoomView): boolean {
    if (!room.open || room.id === this.state.room) return false;
    return this.isHost || this.state.mode === 'selfSelect' || this.state.assigned === room.id;
  }

  get mayReturn(): boolean {
    return this.state.room !== null && (this.isHost || this.state.allowReturnToMain);
  }

  /** The time that runs: of the own room, in the main room that of the room which closes first. */
  get timer(): Timer | null {
    const own = this.currentRoom;
    const open = own ? [own] : this.state.rooms.filter((room) => room.open);
    const ends = open.flatMap((room) => (room.open && room.closesAt ? [room.closesAt] : []));
    if (ends.length === 0) return null;
    const closesAt = Math.min(...ends);
    return { closesAt, seconds: this.clock.secondsUntil(closesAt) };
  }

  /** The server's time, in Unix milliseconds. */
  serverNow(): number {
    return this.clock.now();
  }

  /** Sends any request; for those that have no method of their own yet. */
  async request(command: Command): Promise<unknown> {
    if (this.gate) await this.gate.opened;
    return this.requests.ask(command);
  }

  // Rooms, for hosts.

  /** Makes rooms, and opens them unless `open` is false. `duration` in seconds. Resolves with their ids. */
  async createRooms(
    rooms: NewRoom[],
    options: { mode?: Mode; how?: How; duration?: number; open?: boolean } = {},
  ): Promise<string[]> {
    const result = as(created, await this.request({ do: 'createRooms', rooms, ...options }));
    if (!result) throw malformed('createRooms');
    return result.rooms;
  }

  async removeRoom(room: string): Promise<void> {
    await this.request({ do: 'removeRoom', room });
  }

  async renameRoom(room: string, title: string): Promise<void> {
    await this.request({ do: 'renameRoom', room, title });
  }

  /** Opens rooms (left out: all) with the same people as before. `duration` in seconds. */
  async openRooms(rooms: string[] = [], duration?: number): Promise<void> {
    await this.request({ do: 'openRooms', rooms, duration });
  }

  /** Closes rooms (left out: all) after a countdown of 0 or 10 to 120 seconds (left out: the meeting's). */
  async closeRooms(rooms: string[] = [], countdown?: number): Promise<void> {
    await this.request({ do: 'closeRooms', rooms, countdown });
  }

  /** All open rooms close that much later. */
  async extend(seconds: number): Promise<void> {
    await this.request({ do: 'extend', seconds });
  }

  /** Sends people to rooms; `room` left out = the main room. */
  async assign(moves: Placement[]): Promise<void> {
    await this.request({ do: 'assign', moves });
  }

  /** Brings somebody back to the main room. */
  async recall(identity: string): Promise<void> {
    await this.assign([{ identity }]);
  }

  /** Spreads everyone over the open rooms anew. */
  async shuffle(how: How = 'random'): Promise<void> {
    await this.request({ do: 'shuffle', how });
  }

  /** How rooms behave from now on. Everybody is told as soon as there are rooms. */
  async settings(change: { mode?: Mode; allowReturnToMain?: boolean; allowCancel?: boolean }): Promise<void> {
    await this.request({ do: 'settings', ...change });
    const { allowReturnToMain, allowCancel } = { ...this.state, ...change };
    this.standing.update({ allowReturnToMain, allowCancel });
    this.changed();
  }

  /** Text to rooms (ids; `""` = the main room), left out: to all. */
  async broadcast(text: string, rooms: string[] = []): Promise<void> {
    await this.request({ do: 'broadcast', text, rooms });
  }

  async cohost(identity: string, on: boolean): Promise<void> {
    await this.request({ do: 'cohost', identity, on });
  }

  /** Asks for `overview` events, now and whenever it changes, until switched off. */
  async watchOverview(watch: boolean): Promise<void> {
    this.watching = watch;
    await this.request({ do: 'overview', watch });
  }

  /** Plays a room's sound without being in it. `url`: another address than the one that the server names. */
  async listen(room: string, options: { url?: string } = {}): Promise<Running> {
    const result = as(session, await this.request({ do: 'listen', room }));
    if (!result) throw malformed('listen');
    return hear(this.room, { ...result, ...options });
  }

  /** Speaks into all open rooms at once, beside the room that one is in. */
  async speak(options: { url?: string } = {}): Promise<Running> {
    const result = as(sessions, await this.request({ do: 'speak' }));
    if (!result) throw malformed('speak');
    return speakInto(
      this.room,
      result.sessions.map((one) => ({ ...one, ...options })),
    );
  }

  // Others' tracks.

  /**
   * Silences a track of somebody (left out: all of theirs) for everyone, or, with `on` false, lets them
   * unmute it again.
   */
  async mute(identity: string, track?: string, on = true): Promise<void> {
    await this.request({ do: 'mute', identity, track, on });
  }

  /** Takes a track of somebody (left out: all of theirs) down. They may publish again. */
  async unpublish(identity: string, track?: string): Promise<void> {
    await this.request({ do: 'unpublish', identity, track });
  }

  /**
   * Assigns by CSV (see `parseAssignments`): makes the rooms that no room has the title of, and assigns.
   * People who are not in the meeting yet go there when they come. With problems, nothing is done.
   */
  async applyAssignments(
    csv: string,
    options: { duration?: number; open?: boolean } = {},
  ): Promise<{ assigned: number; created: number }> {
    const { placements, rooms, problems } = parseAssignments(csv);
    if (problems.length > 0 || placements.length === 0) {
      const lines = problems.map(({ line, text }) => `line ${line}: ${text}`);
      throw new PlenumError({
        code: 'CsvInvalid',
        cause: 'the assignments cannot be read',
        remedy: 'write one identity,room per line',
        detail: lines.join('; ') || 'there is no line',
      });
    }
    const ids = new Map(this.state.rooms.map((room) => [room.title, room.id]));
    const missing = rooms.filter((title) => !ids.has(title));
    if (missing.length > 0) {
      const people = (title: string) =>
        placements.filter(({ room }) => room === title).map(({ identity }) => identity);
      await this.createRooms(
        missing.map((title) => ({ title, participants: people(title) })),
        options,
      );
    }
    const moves = placements
      .filter(({ room }) => !room || ids.has(room))
      .map(({ identity, room }) => ({ identity, room: ids.get(room) }));
    if (moves.length > 0) await this.assign(moves);
    return { assigned: placements.length, created: missing.length };
  }

  // Oneself.

  /** Goes to a room. Resolves once it is under way; `moved` or `moveFailed` follows. */
  async chooseRoom(room: string): Promise<void> {
    await this.go({ do: 'chooseRoom', room });
  }

  async returnToMain(): Promise<void> {
    await this.go({ do: 'returnToMain' });
  }

  /** Refuses the move that was announced. */
  async cancelMove(): Promise<void> {
    await this.request({ do: 'cancelMove' });
  }

  async raiseHand(up: boolean): Promise<void> {
    await this.request({ do: 'raiseHand', up });
  }

  /** One's own hand, for hosts anyone's. */
  async lowerHand(identity: string): Promise<void> {
    await this.request({ do: 'lowerHand', identity });
  }

  async askForHelp(on: boolean): Promise<void> {
    await this.request({ do: 'askForHelp', on });
    // Only hosts are told by a signal.
    this.standing.asked(on, this.clock.now());
    this.changed();
  }

  async messageHosts(text: string): Promise<void> {
    await this.request({ do: 'messageHosts', text });
  }

  private async go(command: Command): Promise<void> {
    await this.muteForMove();
    try {
      await this.request(command);
    } catch (error) {
      await this.unmuteAfterNoMove();
      throw error;
    }
  }

  private async send(bytes: Uint8Array): Promise<void> {
    if (this.room.state === 'disconnected') throw new Error('the room is not connected');
    await this.room.localParticipant.publishData(bytes as Uint8Array<ArrayBuffer>, {
      reliable: true,
      topic: TOPIC,
    });
  }

  /** Asks what holds, and for the signals that were missed. Only the last one asked counts. */
  private async hello(attempt = 1): Promise<void> {
    const mine = ++this.hellos;
    this.standing.hold();
    const sent = Date.now();
    try {
      const result = await this.requests.ask({ do: 'hello', since: this.standing.since }, HELLO_PATIENCE_MS);
      if (mine !== this.hellos) return;
      const answer = as(state, result);
      if (!answer) throw malformed(`hello: ${state(result) ?? ''}`);
      this.revived = false;
      this.clock.trip(sent, answer.now, Date.now());
      this.letPass();
      this.restate(answer);
    } catch (error) {
      if (mine !== this.hellos) return;
      this.standing.release().forEach((entry) => this.tell(entry));
      if (this.room.state === 'disconnected') return;
      // A data channel that is closed stays so: livekit-client opens no other while the connection lasts.
      const unsent = error instanceof PlenumError && error.code === 'NotConnected';
      const hopeless = unsent || attempt >= HELLOS;
      if (hopeless && this.state.known && !this.revived && this.room.state === 'connected') {
        this.revived = reconnect(this.room);
        if (this.revived) return;
      }
      if (attempt < HELLOS) {
        await new Promise((resolve) => setTimeout(resolve, HELLO_PAUSE_MS));
        if (mine === this.hellos) void this.hello(attempt + 1);
        return;
      }
      this.letPass();
      this.events.emit('unavailable', error instanceof PlenumError ? error : notConnected(String(error)));
    }
  }

  private letPass(): void {
    this.gate?.open();
    this.gate = null;
  }

  private restate(answer: State): void {
    const before = this.state;
    const entries = this.standing.restate(answer);
    if (!before.known || before.role !== answer.me.role) this.events.emit('role', answer.me.role);
    this.arrived(answer.me.room ?? null);
    if (this.moving?.lost) this.stayed();
    const { mode, rooms } = this.state;
    this.events.emit('roomsChanged', { message: null, mode, rooms });
    for (const entry of entries) this.tell(entry);
    this.changed();
    // Another gateway may have taken over, which does not know who watches.
    if (this.watching && this.isHost) this.watchOverview(true).catch(() => undefined);
  }

  private received(payload: Uint8Array, from?: unknown, _kind?: unknown, topic?: string): void {
    // The server speaks for itself; what comes in another participant's name is not it.
    if (topic !== TOPIC || from) return;
    let message: unknown;
    try {
      message = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload));
    } catch {
      return;
    }
    if (typeof message !== 'object' || message === null) return;
    this.crossing.heard();
    if ('re' in message) return this.requests.answered(message);
    if ('signal' in message) {
      const signal = as(entry, message);
      if (!signal) return;
      const before = this.state;
      for (const told of this.standing.hear(signal)) this.tell(told);
      if (this.state !== before) this.changed();
    } else if ('notice' in message) {
      const told = as(notice, message);
      if (told) this.note(told);
    }
  }

  private tell(entry: Entry): void {
    switch (entry.signal) {
      case 'breakout-room': {
        const { message, mode, rooms } = entry;
        return this.events.emit('roomsChanged', { message, mode, rooms });
      }
      case 'count-down-timer':
        return this.clock.heard(entry.now);
      case 'participant-switched':
        return this.events.emit('participantSwitched', {
          identity: entry.identity,
          from: entry.from ?? null,
          to: entry.to ?? null,
          failed: entry.failed ?? null,
        });
      case 'raise-hand':
        return this.events.emit('handRaised', entry);
      case 'ask-for-help':
        return this.events.emit('helpAsked', entry);
      case 'broadcast':
        return this.events.emit('broadcast', entry);
      case 'message-to-hosts':
        return this.events.emit('messageToHosts', entry);
    }
  }

  private note(told: Notice): void {
    switch (told.notice) {
      case 'moving':
        this.clock.heard(told.now);
        return this.announce(told);
      case 'not-moving':
        return this.stayed();
      case 'moved':
        return this.arrived(told.to ?? null, told.title);
      case 'move-failed':
        this.forgetMoving();
        void this.unmuteAfterNoMove();
        this.arrived(told.landed ?? null);
        return this.events.emit('moveFailed', {
          to: told.to ?? null,
          landed: told.landed ?? null,
          code: told.code,
        });
      case 'role':
        return this.setRole(told.role);
      case 'overview':
        return this.events.emit('overview', { rooms: told.rooms });
    }
  }

  private setRole(role: Role): void {
    if (this.state.role === role) return;
    this.standing.update({ role });
    this.events.emit('role', role);
    this.changed();
  }

  private announce(told: MovingNotice): void {
    this.forgetMoving();
    const moving = { notice: told, countdown: null as Countdown | null, lost: false };
    this.moving = moving;
    moving.countdown = new Countdown(this.clock, told.at, (seconds) => {
      if (this.moving !== moving) return;
      if (seconds <= 1) void this.muteForMove();
      this.events.emit('moving', {
        to: told.to ?? null,
        title: told.title,
        seconds,
        cancellable: told.cancellable,
        cancel: () => this.cancelMove(),
      });
    });
  }

  private stayed(): void {
    this.forgetMoving();
    void this.unmuteAfterNoMove();
    this.events.emit('notMoving', undefined);
  }

  private forgetMoving(): void {
    this.moving?.countdown?.stop();
    this.moving = null;
  }

  /** One is there; told by a notice or by the answer to `hello`, whichever comes first. */
  private arrived(to: string | null, title?: string): void {
    const from = this.known;
    this.known = to;
    if (this.moving && (this.moving.notice.to ?? null) === to) this.forgetMoving();
    if (this.state.room !== to) this.standing.update({ room: to });
    if (from === undefined || from === to) return;
    this.forgetMoving();
    void this.settle({ from, to, title: title ?? this.currentRoom?.title ?? '' });
  }

  private async settle(move: { from: string | null; to: string | null; title: string }): Promise<void> {
    // Where nothing announced the switch, now is the earliest moment.
    await this.muteForMove();
    this.mutedForMove = false;
    this.changed();
    const own = this.room.localParticipant;
    this.events.emit('moved', {
      ...move,
      microphone: own.isMicrophoneEnabled,
      camera: own.isCameraEnabled,
    });
  }

  private async muteForMove(): Promise<void> {
    const own = this.room.localParticipant;
    if (!this.options.muteOnMove || !own.isMicrophoneEnabled) return;
    this.mutedForMove = true;
    await own.setMicrophoneEnabled(false).catch(() => undefined);
  }

  private async unmuteAfterNoMove(): Promise<void> {
    if (!this.mutedForMove) return;
    this.mutedForMove = false;
    await this.room.localParticipant.setMicrophoneEnabled(true).catch(() => undefined);
  }

  private changed(): void {
    this.events.emit('state', this.state);
    this.runTimer();
  }

  private runTimer(): void {
    const closesAt = this.timer?.closesAt;
    if (this.countdown && this.countdown.at === closesAt) return;
    const ran = this.countdown !== null;
    this.countdown?.stop();
    this.countdown = null;
    if (closesAt === undefined) {
      if (ran) this.events.emit('timer', null);
      return;
    }
    this.countdown = new Countdown(this.clock, closesAt, (seconds) => {
      if (seconds <= 1 && this.state.room !== null) void this.muteForMove();
      this.events.emit('timer', { closesAt, seconds });
    });
  }

  private ended(): void {
    this.hellos += 1;
    this.revived = false;
    this.crossing.end();
    this.requests.abandon('the connection has ended');
    this.letPass();
    this.known = undefined;
    this.forgetMoving();
    this.countdown?.stop();
    this.countdown = null;
  }
}

function gate(): { opened: Promise<void>; open(): void } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}
