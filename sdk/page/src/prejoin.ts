// The room before the room: name, preview, devices.
import {
  createLocalAudioTrack,
  createLocalTracks,
  createLocalVideoTrack,
  type LocalAudioTrack,
  type LocalVideoTrack,
  Room,
  Track,
} from 'livekit-client';
import { h, icon, set, type Icon } from './dom.ts';

export interface Ready {
  name: string;
  audio: LocalAudioTrack | null;
  video: LocalVideoTrack | null;
}

interface Options {
  title: string;
  /** The name from a token; null where the person may choose one. */
  fixedName: string | null;
  canPublish: boolean;
  onJoin(ready: Ready): void;
}

const NAME_KEY = 'plenum.name';
const DEVICE_PATIENCE_MS = 3000;

/** Shows the preview until the person joins. */
export function showPrejoin(app: HTMLElement, options: Options): void {
  let audio: LocalAudioTrack | null = null;
  let video: LocalVideoTrack | null = null;
  let done = false;
  let joining = false;
  let opening: Promise<void> = Promise.resolve();

  const picture = h('video', {
    class: 'preview-video',
    autoplay: true,
    playsinline: true,
    'data-testid': 'preview-video',
    'aria-label': 'Your camera',
  });
  picture.muted = true;
  const hint = h(
    'p',
    { class: 'preview-hint', role: 'status', 'data-testid': 'preview-hint' },
    'Camera is off',
  );
  const mic = toggle('mic', 'Microphone', 'preview-mic');
  const camera = toggle('camera', 'Camera', 'preview-camera');
  const micSelect = h('select', {
    id: 'mic-select',
    'data-testid': 'microphone-select',
    'aria-label': 'Microphone',
  });
  const cameraSelect = h('select', {
    id: 'camera-select',
    'data-testid': 'camera-select',
    'aria-label': 'Camera',
  });
  const name = h('input', {
    id: 'name',
    name: 'name',
    type: 'text',
    required: true,
    maxlength: 64,
    autocomplete: 'name',
    placeholder: 'How others will see you',
    'data-testid': 'name-input',
  });
  name.value = remembered();
  const join = h('button', { type: 'submit', class: 'primary', 'data-testid': 'join-button' }, 'Join');

  async function openVideo(deviceId?: string): Promise<void> {
    video?.stop();
    video = null;
    try {
      const track = await createLocalVideoTrack({ deviceId: deviceId ? { exact: deviceId } : undefined });
      if (done) return void track.stop();
      video = track;
      track.attach(picture);
      hint.textContent = '';
      await listDevices();
    } catch (error) {
      hint.textContent = deviceWords(error, 'camera');
    }
    showState();
  }

  async function openAudio(deviceId?: string): Promise<void> {
    audio?.stop();
    audio = null;
    try {
      const track = await createLocalAudioTrack({ deviceId: deviceId ? { exact: deviceId } : undefined });
      if (done) return void track.stop();
      audio = track;
      await listDevices();
    } catch (error) {
      if (!hint.textContent) hint.textContent = deviceWords(error, 'microphone');
    }
    showState();
  }

  /** Both at once, so that browsers ask once; each alone where that fails. */
  async function openBoth(): Promise<void> {
    try {
      for (const track of await createLocalTracks({ audio: true, video: true })) {
        if (done) track.stop();
        else if (track.kind === Track.Kind.Video) video = track as LocalVideoTrack;
        else audio = track as LocalAudioTrack;
      }
      video?.attach(picture);
      hint.textContent = '';
      await listDevices();
      showState();
    } catch {
      await openVideo();
      await openAudio();
    }
  }

  async function listDevices(): Promise<void> {
    fill(micSelect, await Room.getLocalDevices('audioinput', false), await audio?.getDeviceId());
    fill(cameraSelect, await Room.getLocalDevices('videoinput', false), await video?.getDeviceId());
  }

  function showState(): void {
    press(mic, audio !== null, 'mic', 'micOff');
    press(camera, video !== null, 'camera', 'cameraOff');
    set(picture, { hidden: video === null });
    if (!video && !hint.textContent) hint.textContent = 'Camera is off';
  }

  mic.addEventListener('click', () => {
    if (audio) {
      audio.stop();
      audio = null;
      showState();
    } else void openAudio(micSelect.value);
  });
  camera.addEventListener('click', () => {
    if (video) {
      video.stop();
      video = null;
      showState();
    } else void openVideo(cameraSelect.value);
  });
  micSelect.addEventListener('change', () => void openAudio(micSelect.value));
  cameraSelect.addEventListener('change', () => void openVideo(cameraSelect.value));

  const form = h(
    'form',
    { class: 'prejoin-form' },
    h('h1', { 'data-testid': 'meeting-title' }, options.title),
    options.fixedName === null
      ? h('label', { for: 'name' }, 'Your name', name)
      : h(
          'p',
          { class: 'joining-as' },
          'You join as ',
          h('strong', { 'data-testid': 'fixed-name' }, options.fixedName),
        ),
    options.canPublish &&
      h(
        'div',
        { class: 'devices' },
        h('label', {}, 'Microphone', micSelect),
        h('label', {}, 'Camera', cameraSelect),
      ),
    join,
  );
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (done || joining) return;
    joining = true;
    join.disabled = true;
    // Who clicks before the devices are there wants them all the same, but does not wait for ever.
    await Promise.race([opening, new Promise((resolve) => setTimeout(resolve, DEVICE_PATIENCE_MS))]);
    done = true;
    const chosen = options.fixedName ?? name.value.trim();
    if (options.fixedName === null) remember(chosen);
    options.onJoin({ name: chosen, audio, video });
  });

  const preview = options.canPublish
    ? h('div', { class: 'preview' }, picture, hint, h('div', { class: 'preview-controls' }, mic, camera))
    : h('div', { class: 'preview' }, h('p', { class: 'preview-hint' }, 'You join to watch and listen.'));
  app.replaceChildren(h('section', { class: 'prejoin', 'data-testid': 'prejoin' }, preview, form));
  if (options.fixedName === null && !name.value) name.focus();
  if (options.canPublish) {
    showState();
    hint.textContent = 'Starting your camera…';
    opening = openBoth();
  }
}

function toggle(name: Icon, label: string, id: string): HTMLButtonElement {
  return h(
    'button',
    {
      type: 'button',
      class: 'round',
      'aria-label': label,
      title: label,
      'aria-pressed': 'false',
      'data-testid': id,
    },
    icon(name),
  );
}

/** Shows a control as on or off. */
export function press(button: HTMLButtonElement, on: boolean, iconOn: Icon, iconOff: Icon): void {
  set(button, { 'aria-pressed': String(on) });
  button.replaceChildren(icon(on ? iconOn : iconOff));
}

function fill(select: HTMLSelectElement, devices: MediaDeviceInfo[], current: string | undefined): void {
  select.replaceChildren(
    ...devices.map((device, index) =>
      h(
        'option',
        { value: device.deviceId, selected: device.deviceId === current },
        device.label || `Device ${index + 1}`,
      ),
    ),
  );
}

/** Why a camera or microphone did not start. */
export function deviceWords(error: unknown, device: string): string {
  const kind = error instanceof Error ? error.name : '';
  if (!navigator.mediaDevices) return `Browsers give pages a ${device} only over https or on localhost.`;
  if (kind === 'NotAllowedError')
    return `Your browser does not let this page use your ${device}. You can still join.`;
  if (kind === 'NotFoundError') return `No ${device} was found. You can still join.`;
  if (kind === 'NotReadableError') return `Your ${device} is in use by another program. You can still join.`;
  return `Your ${device} did not start. You can still join.`;
}

function remembered(): string {
  try {
    return localStorage.getItem(NAME_KEY) ?? '';
  } catch {
    return '';
  }
}

function remember(name: string): void {
  try {
    localStorage.setItem(NAME_KEY, name);
  } catch {
    // Private windows may have no storage; then the name is typed again.
  }
}
