// The call: one LiveKit room, its controls and what happens in it.
import {
  ConnectionState,
  type DisconnectReason,
  type Participant,
  ParticipantEvent,
  type RemoteParticipant,
  Room,
  RoomEvent,
  Track,
} from 'livekit-client';
import { Breakouts } from '../../src/index.ts';
import { Chat } from './chat.ts';
import { announce, h, icon, set, type Icon } from './dom.ts';
import { Panel } from './panel.ts';
import { Places } from './places.ts';
import { deviceWords, press, type Ready } from './prejoin.ts';
import { Tiles } from './tiles.ts';

interface Options {
  title: string;
  token: string;
  ready: Ready;
  canPublish: boolean;
  onEnd(reason: DisconnectReason | undefined): void;
}

const BANNER_MS = 6000;

declare global {
  interface Window {
    /** The call's handle for the browser's console: the LiveKit Room, and its breakout rooms. */
    plenum?: { room: Room; breakouts: Breakouts };
  }
}

/** Connects and shows the call. Throws what connecting throws. */
export async function showCall(app: HTMLElement, options: Options): Promise<void> {
  const room = new Room({ adaptiveStream: true, dynacast: true, disconnectOnPageLeave: true });
  const tiles = new Tiles();
  const chat = new Chat(room);
  const breakouts = new Breakouts(room);
  window.plenum = { room, breakouts };
  const places = new Places(breakouts, {
    title: options.title,
    canPublish: () => room.localParticipant.permissions?.canPublish ?? options.canPublish,
    banner: (text) => view.banner(text, BANNER_MS),
    onPlace: (place, title) => {
      chat.enter(place, place ? title : 'the main room');
      document.title = `${place ? `${title} – ` : ''}${options.title} – Plenum`;
      afresh();
    },
  });
  const panel = new Panel(breakouts, {
    banner: (text) => view.banner(text, BANNER_MS),
    titleOf: (place) => places.titleOf(place),
  });
  const view = makeView(options, tiles, chat, places, panel);
  let joined = false;

  const update = (participant: Participant) => {
    // A participant who left may still be in events that were under way.
    const here = participant.isLocal || room.remoteParticipants.has(participant.identity);
    if (here) tiles.update(participant, participant.isLocal);
    view.count(room.remoteParticipants.size + 1);
  };
  const updateAll = () => {
    update(room.localParticipant);
    for (const participant of room.remoteParticipants.values()) update(participant);
  };
  // Another room: who is not in it goes, whatever was missed on the way.
  const afresh = () => {
    tiles.retain(new Set([room.localParticipant.identity, ...room.remoteParticipants.keys()]));
    updateAll();
  };
  const showOwn = () => {
    const own = room.localParticipant;
    press(view.mic, own.isMicrophoneEnabled, 'mic', 'micOff');
    press(view.camera, own.isCameraEnabled, 'camera', 'cameraOff');
    set(view.screen, { 'aria-pressed': String(own.isScreenShareEnabled) });
    const may = own.permissions?.canPublish ?? options.canPublish;
    for (const button of [view.mic, view.camera, view.screen]) set(button, { hidden: !may });
    if (!navigator.mediaDevices?.getDisplayMedia) set(view.screen, { hidden: true });
    update(own);
  };

  const heeded = new WeakSet<RemoteParticipant>();
  const heed = (participant: RemoteParticipant) => {
    if (heeded.has(participant)) return;
    heeded.add(participant);
    participant.on(ParticipantEvent.TrackSubscribed, (track) => {
      if (track.kind === Track.Kind.Audio) tiles.play(track);
      update(participant);
    });
  };

  room
    .on(RoomEvent.ParticipantConnected, (participant) => {
      update(participant);
      announce(`${participant.name || participant.identity} joined`);
    })
    .on(RoomEvent.ParticipantDisconnected, (participant) => {
      tiles.forget(participant);
      view.count(room.remoteParticipants.size + 1);
      announce(`${participant.name || participant.identity} left`);
    })
    .on(RoomEvent.TrackSubscribed, (track, _publication, participant) => {
      if (track.kind === Track.Kind.Audio) tiles.play(track);
      update(participant);
    })
    .on(RoomEvent.TrackUnsubscribed, (track, _publication, participant) => {
      if (track.kind === Track.Kind.Audio) tiles.silence(track);
      update(participant);
    })
    .on(RoomEvent.TrackMuted, (_publication, participant) => update(participant))
    .on(RoomEvent.TrackUnmuted, (_publication, participant) => update(participant))
    .on(RoomEvent.TrackUnpublished, (_publication, participant) => update(participant))
    .on(RoomEvent.LocalTrackPublished, showOwn)
    .on(RoomEvent.LocalTrackUnpublished, showOwn)
    .on(RoomEvent.ParticipantNameChanged, (_name, participant) => update(participant))
    .on(RoomEvent.ParticipantPermissionsChanged, (_before, participant) => {
      if (participant.isLocal) showOwn();
    })
    .on(RoomEvent.ConnectionQualityChanged, (_quality, participant) => update(participant))
    .on(RoomEvent.ActiveSpeakersChanged, (speakers) => tiles.speaking(speakers))
    .on(RoomEvent.AudioPlaybackStatusChanged, () => set(view.sound, { hidden: room.canPlaybackAudio }))
    .on(RoomEvent.ConnectionStateChanged, (state) => {
      set(view.root, { 'data-state': state });
      const waiting = state === ConnectionState.Reconnecting || state === ConnectionState.SignalReconnecting;
      view.banner(waiting ? 'Reconnecting…' : '');
    })
    .on(RoomEvent.MediaDevicesError, (error) => view.banner(deviceWords(error, 'device'), BANNER_MS))
    .on(RoomEvent.Moved, () => {
      // While it resumes on another worker the client keeps the room's events back for two seconds; the
      // participants' own come at once. They are listed right after this event.
      setTimeout(() => {
        for (const participant of room.remoteParticipants.values()) heed(participant);
        afresh();
      });
      afresh();
    })
    .on(RoomEvent.Reconnected, afresh)
    .on(RoomEvent.Disconnected, (reason) => {
      // A connection that never came about is told by what `connect` throws.
      if (!joined) return;
      window.removeEventListener('keydown', onKey);
      tiles.clear();
      panel.stop();
      breakouts.close();
      options.onEnd(reason);
    });

  const act = (button: HTMLButtonElement, what: string, action: () => Promise<unknown>) => {
    button.addEventListener('click', () => {
      button.disabled = true;
      action()
        .catch((error: unknown) => {
          // Who closes the browser's own choice of screens has changed their mind, nothing more.
          if (what !== 'screen') view.banner(deviceWords(error, what), BANNER_MS);
        })
        .finally(() => {
          button.disabled = false;
          showOwn();
        });
    });
  };
  act(view.mic, 'microphone', () =>
    room.localParticipant.setMicrophoneEnabled(!room.localParticipant.isMicrophoneEnabled),
  );
  act(view.camera, 'camera', () =>
    room.localParticipant.setCameraEnabled(!room.localParticipant.isCameraEnabled),
  );
  act(view.screen, 'screen', () =>
    room.localParticipant.setScreenShareEnabled(!room.localParticipant.isScreenShareEnabled, { audio: true }),
  );
  view.sound.addEventListener('click', () => void room.startAudio());
  view.leave.addEventListener('click', () => void room.disconnect());
  view.chat.addEventListener('click', () => {
    chat.open(!chat.isOpen);
    set(view.chat, { 'aria-expanded': String(chat.isOpen) });
  });
  breakouts.on('state', ({ hands }) => tiles.hands(new Set(hands.map((who) => who.identity))));
  breakouts.on('role', (role) => set(view.root, { 'data-role': role }));
  chat.onUnread = (count) => view.unread(count);
  const onKey = (event: KeyboardEvent) => {
    const typing = event.target instanceof Element && event.target.matches('input, select, textarea');
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const button = { m: view.mic, v: view.camera, c: view.chat, h: places.hand }[event.key.toLowerCase()];
    if (button && !button.hidden) {
      event.preventDefault();
      button.click();
    }
  };

  // The gateway that served the page is the one to speak to.
  await room.connect(location.origin, options.token);
  joined = true;
  window.addEventListener('keydown', onKey);
  app.replaceChildren(view.root);
  set(view.root, { 'data-state': room.state });
  set(view.sound, { hidden: room.canPlaybackAudio });
  updateAll();
  showOwn();
  announce(`You joined ${options.title}`);
  for (const track of [options.ready.audio, options.ready.video]) {
    if (!track) continue;
    try {
      await room.localParticipant.publishTrack(track);
    } catch (error) {
      track.stop();
      view.banner(
        error instanceof Error ? `Not sent: ${error.message}` : 'Your track was not sent.',
        BANNER_MS,
      );
    }
  }
  showOwn();
}

interface View {
  root: HTMLElement;
  mic: HTMLButtonElement;
  camera: HTMLButtonElement;
  screen: HTMLButtonElement;
  chat: HTMLButtonElement;
  leave: HTMLButtonElement;
  sound: HTMLButtonElement;
  count(people: number): void;
  unread(messages: number): void;
  banner(text: string, forMilliseconds?: number): void;
}

function control(
  name: Icon,
  label: string,
  id: string,
  extra: Record<string, string> = {},
): HTMLButtonElement {
  return h(
    'button',
    { type: 'button', class: 'round', 'aria-label': label, title: label, 'data-testid': id, ...extra },
    icon(name),
  );
}

function makeView(options: Options, tiles: Tiles, chat: Chat, places: Places, panel: Panel): View {
  const mic = control('mic', 'Microphone (M)', 'mic-button', { 'aria-pressed': 'false' });
  const camera = control('camera', 'Camera (V)', 'camera-button', { 'aria-pressed': 'false' });
  const screen = control('screen', 'Share your screen', 'screen-button', { 'aria-pressed': 'false' });
  const chatButton = control('chat', 'Chat (C)', 'chat-button', { 'aria-expanded': 'false' });
  const leave = control('leave', 'Leave', 'leave-button');
  leave.classList.add('danger');
  const badge = h('span', { class: 'badge', hidden: true, 'data-testid': 'chat-unread' });
  chatButton.append(badge);
  const sound = h(
    'button',
    { type: 'button', class: 'primary', hidden: true, 'data-testid': 'sound-button' },
    'Turn sound on',
  );
  const heading = h('h1', { 'data-testid': 'meeting-title' }, options.title);
  const people = h('span', { class: 'people', 'data-testid': 'people-count' });
  const banner = h('p', { class: 'banner', role: 'status', hidden: true, 'data-testid': 'banner' });
  const root = h(
    'section',
    { class: 'call', 'data-testid': 'call' },
    h('header', { class: 'bar' }, heading, places.title, people, places.timer, panel.open, sound),
    banner,
    places.strip,
    h('div', { class: 'stage' }, tiles.grid, chat.panel, panel.root),
    h(
      'nav',
      { class: 'controls', 'aria-label': 'Controls' },
      mic,
      camera,
      screen,
      places.hand,
      chatButton,
      leave,
    ),
  );
  let timer: ReturnType<typeof setTimeout> | undefined;
  return {
    root,
    mic,
    camera,
    screen,
    chat: chatButton,
    leave,
    sound,
    count: (count) => {
      people.textContent = count === 1 ? '1 person' : `${count} people`;
      set(people, { 'data-count': count });
    },
    unread: (count) => {
      badge.textContent = String(count);
      set(badge, { hidden: count === 0 });
      set(chatButton, { 'aria-label': count ? `Chat (C), ${count} unread` : 'Chat (C)' });
    },
    banner: (text, forMilliseconds) => {
      clearTimeout(timer);
      banner.textContent = text;
      set(banner, { hidden: !text });
      if (forMilliseconds) timer = setTimeout(() => set(banner, { hidden: true }), forMilliseconds);
    },
  };
}
