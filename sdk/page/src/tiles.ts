// The grid of people and shared screens.
import { ConnectionQuality, type Participant, Track, type TrackPublication } from 'livekit-client';
import { h, icon, set } from './dom.ts';

interface Tile {
  root: HTMLElement;
  video: HTMLVideoElement;
  label: HTMLElement;
  muted: HTMLElement;
  quality: HTMLElement;
  hand: HTMLElement;
  initials: HTMLElement;
  shown: Track | null;
}

const QUALITY_WORDS: Record<ConnectionQuality, string> = {
  [ConnectionQuality.Excellent]: 'excellent connection',
  [ConnectionQuality.Good]: 'good connection',
  [ConnectionQuality.Poor]: 'poor connection',
  [ConnectionQuality.Lost]: 'connection lost',
  [ConnectionQuality.Unknown]: 'connection not measured yet',
};

/** Every tile on the screen, by participant and source. */
export class Tiles {
  readonly grid = h('div', { class: 'grid', 'data-testid': 'grid' });
  private readonly tiles = new Map<string, Tile>();
  private readonly sounds = new Map<string, HTMLMediaElement>();
  private raised: ReadonlySet<string> = new Set();

  /** Makes the tiles of a participant say what is true now. */
  update(participant: Participant, isLocal: boolean): void {
    const camera = participant.getTrackPublication(Track.Source.Camera);
    this.show(participant, isLocal, camera, false);
    const screen = participant.getTrackPublication(Track.Source.ScreenShare);
    if (screen?.track && !screen.isMuted) this.show(participant, isLocal, screen, true);
    else this.remove(key(participant, true));
    this.layout();
  }

  /** Takes a participant's tiles away. */
  forget(participant: Participant): void {
    this.remove(key(participant, false));
    this.remove(key(participant, true));
    this.layout();
  }

  /** Plays a remote track that is only heard. */
  play(track: Track): void {
    if (!track.sid || this.sounds.has(track.sid)) return;
    const element = track.attach();
    this.sounds.set(track.sid, element);
    this.grid.append(element);
  }

  /** Stops playing it. */
  silence(track: Track): void {
    for (const element of track.detach()) element.remove();
    if (!track.sid) return;
    // The library may have detached it already.
    this.sounds.get(track.sid)?.remove();
    this.sounds.delete(track.sid);
  }

  /** Marks who speaks. */
  speaking(speakers: Participant[]): void {
    const names = new Set(speakers.map((speaker) => key(speaker, false)));
    for (const [name, tile] of this.tiles) set(tile.root, { 'data-speaking': String(names.has(name)) });
  }

  /** Marks whose hand is up. */
  hands(identities: ReadonlySet<string>): void {
    this.raised = identities;
    for (const tile of this.tiles.values()) this.showHand(tile);
  }

  /** Takes away whoever is not among these people. */
  retain(identities: ReadonlySet<string>): void {
    for (const [name, tile] of [...this.tiles]) {
      if (!identities.has(tile.root.dataset.identity ?? '')) this.remove(name);
    }
    this.layout();
  }

  clear(): void {
    for (const name of [...this.tiles.keys()]) this.remove(name);
    for (const element of this.sounds.values()) element.remove();
    this.sounds.clear();
  }

  private show(
    participant: Participant,
    isLocal: boolean,
    publication: TrackPublication | undefined,
    screen: boolean,
  ): void {
    const name = key(participant, screen);
    let tile = this.tiles.get(name);
    if (!tile) {
      tile = makeTile(screen);
      this.tiles.set(name, tile);
      this.grid.append(tile.root);
    }
    const shownName = participant.name || participant.identity;
    const words = screen ? `${shownName}'s screen` : isLocal ? `${shownName} (you)` : shownName;
    tile.label.textContent = words;
    tile.initials.textContent = initials(shownName);
    set(tile.root, {
      'data-identity': participant.identity,
      'data-sid': participant.sid,
      'data-local': String(isLocal),
      'aria-label': words,
    });
    this.showHand(tile);
    const muted = !participant.isMicrophoneEnabled;
    set(tile.muted, { hidden: screen || !muted });
    const quality = participant.connectionQuality;
    set(tile.quality, {
      'data-quality': quality,
      hidden: screen,
      title: QUALITY_WORDS[quality],
      'aria-label': QUALITY_WORDS[quality],
    });

    const track = publication?.track && !publication.isMuted ? publication.track : null;
    if (track !== tile.shown) {
      tile.shown?.detach(tile.video);
      track?.attach(tile.video);
      tile.shown = track;
    }
    tile.video.muted = true;
    set(tile.video, { hidden: track === null });
    set(tile.root, { 'data-video': String(track !== null), 'data-mirror': String(isLocal && !screen) });
  }

  private showHand(tile: Tile): void {
    const up = this.raised.has(tile.root.dataset.identity ?? '') && tile.root.dataset.screen === 'false';
    set(tile.hand, { hidden: !up });
  }

  private remove(name: string): void {
    const tile = this.tiles.get(name);
    if (!tile) return;
    tile.shown?.detach(tile.video);
    tile.root.remove();
    this.tiles.delete(name);
  }

  /** As many columns as make the tiles largest on a wide screen; narrow ones are the style's part. */
  private layout(): void {
    const screens = this.grid.querySelectorAll('[data-screen="true"]').length;
    const count = this.tiles.size;
    const columns = screens > 0 ? Math.min(4, Math.max(2, count - screens)) : Math.ceil(Math.sqrt(count));
    this.grid.style.setProperty('--columns', String(Math.max(1, columns)));
    set(this.grid, { 'data-count': count, 'data-screens': screens });
  }
}

function key(participant: Participant, screen: boolean): string {
  return `${screen ? 'screen' : 'camera'}/${participant.identity}`;
}

function makeTile(screen: boolean): Tile {
  const video = h('video', { autoplay: true, playsinline: true, 'data-testid': 'tile-video' });
  const label = h('span', { class: 'tile-name', 'data-testid': 'tile-name' });
  const muted = h(
    'span',
    { class: 'tile-muted', role: 'img', 'aria-label': 'microphone off', 'data-testid': 'tile-muted' },
    icon('micOff'),
  );
  const quality = h(
    'span',
    { class: 'tile-quality', role: 'img', 'data-testid': 'tile-quality' },
    h('i'),
    h('i'),
    h('i'),
  );
  const hand = h(
    'span',
    { class: 'tile-hand', role: 'img', 'aria-label': 'hand is up', hidden: true, 'data-testid': 'tile-hand' },
    icon('hand'),
  );
  const initials = h('span', { class: 'tile-initials', 'aria-hidden': 'true' });
  const root = h(
    'article',
    { class: 'tile', 'data-testid': 'tile', 'data-screen': String(screen), 'data-speaking': 'false' },
    initials,
    video,
    h('footer', { class: 'tile-foot' }, hand, muted, label, quality),
  );
  return { root, video, label, muted, quality, hand, initials, shown: null };
}

/** One or two letters that stand for a name. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const first = [...(words[0] ?? '?')][0] ?? '?';
  const last = words.length > 1 ? ([...(words.at(-1) ?? '')][0] ?? '') : '';
  return (first + last).toUpperCase();
}
