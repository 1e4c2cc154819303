// What holds in the meeting, from the answer to `hello` and the signals after it.
import type { Asking, Entry, Mode, Role, RoomView, State } from './protocol.ts';

/** What the library knows of the meeting. Replaced as a whole; never changed in place. */
export interface MeetingState {
  /** False until the server has answered for the first time. */
  readonly known: boolean;
  readonly identity: string;
  readonly role: Role;
  /** The breakout room one is in; null = the main room. */
  readonly room: string | null;
  /** The one that one is assigned to; null = none. */
  readonly assigned: string | null;
  readonly mode: Mode;
  readonly rooms: readonly RoomView[];
  readonly allowReturnToMain: boolean;
  readonly allowCancel: boolean;
  readonly hands: readonly Asking[];
  readonly help: readonly Asking[];
}

const NOTHING: MeetingState = {
  known: false,
  identity: '',
  role: 'participant',
  room: null,
  assigned: null,
  mode: 'manual',
  rooms: [],
  allowReturnToMain: false,
  allowCancel: false,
  hands: [],
  help: [],
};

/** How many signals are remembered to tell repeated ones. */
const REMEMBERED = 4096;

/**
 * Signals, each once, and the state that they make. Numbers rise with gaps, so a missing one cannot be
 * waited for: signals that come while a `hello` is under way are held back, sorted, and told with its
 * answer; one that comes late after all is told late, and changes only what nothing newer has changed.
 */
export class Standing {
  state: MeetingState = NOTHING;
  private readonly told = new Set<string>();
  private held: Entry[] | null = null;
  private last: number | undefined;
  private covers = 0;
  private readonly newest = new Map<string, number>();

  /** What to say in `hello`. */
  get since(): number | undefined {
    return this.last;
  }

  /** From now on signals are held back. */
  hold(): void {
    this.held ??= [];
  }

  /** The `hello` was not answered. Returns what is to be told. */
  release(): Entry[] {
    const held = this.held ?? [];
    this.held = null;
    return held.sort((a, b) => a.seq - b.seq).filter((entry) => this.take(entry));
  }

  /** The answer to `hello`. Returns the signals that are to be told, in order. */
  restate(state: State): Entry[] {
    this.state = {
      known: true,
      identity: state.me.identity,
      role: state.me.role,
      room: state.me.room ?? null,
      assigned: state.me.assigned ?? null,
      mode: state.mode,
      rooms: state.rooms,
      allowReturnToMain: state.allowReturnToMain,
      allowCancel: state.allowCancel,
      hands: state.hands,
      help: state.help,
    };
    this.covers = state.seq;
    this.newest.clear();
    // Asked for again are signals after the last one that arrived, for answers may be lost too; but not
    // what was before the first answer, nor the numbers of a count that has begun anew.
    this.last = Math.min(this.last ?? state.seq, state.seq);
    return this.release();
  }

  /** A signal arrived. Returns it if it is to be told now. */
  hear(entry: Entry): Entry[] {
    if (this.held) {
      this.held.push(entry);
      return [];
    }
    return this.take(entry) ? [entry] : [];
  }

  /** One has asked for help oneself, or no longer. */
  asked(on: boolean, since: number): void {
    const { identity, room, help } = this.state;
    if (help.some((who) => who.identity === identity) === on) return;
    this.update({ help: asking(help, { identity, name: '', room: room ?? undefined, since }, on) });
  }

  update(change: Partial<MeetingState>): void {
    this.state = { ...this.state, ...change };
  }

  private take(entry: Entry): boolean {
    this.fold(entry);
    this.last = Math.max(this.last ?? 0, entry.seq);
    // The time tells signals of equal number apart, should the count begin anew.
    const name = `${entry.seq}/${entry.at}`;
    if (this.told.has(name)) return false;
    this.told.add(name);
    if (this.told.size > REMEMBERED) {
      for (const oldest of this.told) {
        this.told.delete(oldest);
        break;
      }
    }
    return true;
  }

  /** True for the first to say so: signals about the same thing count in the order of their numbers. */
  private newer(entry: Entry, thing: string): boolean {
    if (entry.seq <= Math.max(this.covers, this.newest.get(thing) ?? 0)) return false;
    this.newest.set(thing, entry.seq);
    return true;
  }

  private assigned(rooms: RoomView[]): string | null {
    const lists = rooms.filter((room) => room.participants);
    // Very large meetings leave the lists out.
    if (lists.length === 0 && this.state.assigned !== null) {
      return rooms.some((room) => room.id === this.state.assigned) ? this.state.assigned : null;
    }
    return lists.find((room) => room.participants?.includes(this.state.identity))?.id ?? null;
  }

  private fold(entry: Entry): void {
    switch (entry.signal) {
      case 'breakout-room': {
        if (!this.newer(entry, 'rooms')) return;
        const { mode, rooms, allowReturnToMain, allowCancel } = entry;
        return this.update({ mode, rooms, allowReturnToMain, allowCancel, assigned: this.assigned(rooms) });
      }
      case 'count-down-timer': {
        if (!this.newer(entry, 'rooms')) return;
        const rooms = this.state.rooms.map((room) =>
          entry.rooms.includes(room.id) ? { ...room, closesAt: entry.closesAt } : room,
        );
        return this.update({ rooms });
      }
      case 'raise-hand':
        if (!this.newer(entry, `hand/${entry.identity}`)) return;
        return this.update({ hands: asking(this.state.hands, entry, entry.up) });
      case 'ask-for-help':
        if (!this.newer(entry, `help/${entry.identity}`)) return;
        return this.update({ help: asking(this.state.help, entry, entry.on) });
      case 'participant-switched': {
        if (!this.newer(entry, `place/${entry.identity}`)) return;
        const moved = (who: Asking) => (who.identity === entry.identity ? { ...who, room: entry.to } : who);
        return this.update({ hands: this.state.hands.map(moved), help: this.state.help.map(moved) });
      }
    }
  }
}

/** The list with or without somebody, oldest first. */
function asking(list: readonly Asking[], who: Asking, on: boolean): Asking[] {
  const others = list.filter((other) => other.identity !== who.identity);
  if (!on) return others;
  const { identity, name, room, since } = who;
  return [...others, { identity, name, room, since }].sort((a, b) => a.since - b.since);
}
