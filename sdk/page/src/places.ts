// What everybody sees of breakout rooms: where they are, the time that runs, moves, rooms to choose,
// hands, help and what hosts say to all.
//
// data-testid: room-title (data-room), timer (data-seconds, data-closes-at), hand-button; strip,
// moving-notice (data-to, data-seconds), moving-cancel, moved-line, move-failed (data-code),
// move-failed-dismiss, broadcast-message, broadcast-dismiss, choose-room (data-room), return-main,
// help-button, hosts-input, hosts-send. The main room is the room `""`.
import { type Breakouts, PlenumError, type RoomView } from '../../src/index.ts';
import { announce, h, icon, Keyed, say, set } from './dom.ts';
import { ofMove, ofRefusal } from './words.ts';

const MOVED_MS = 12_000;
const BROADCASTS = 3;
/** Seconds before the end at which the time is spoken. */
const SPOKEN = new Set([300, 60, 10]);

interface Around {
  /** Title of the meeting. */
  title: string;
  canPublish(): boolean;
  /** One is in another room. */
  onPlace(room: string, title: string): void;
  /** Says something for a while. */
  banner(text: string): void;
}

/** `4:05`, `1:00:00`. */
export function clockFace(seconds: number): string {
  const two = (value: number) => String(value).padStart(2, '0');
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** Where one is, for the header; the strip below it; and the button for one's hand. */
export class Places {
  readonly title = h('span', { class: 'room-title', 'data-testid': 'room-title', hidden: true });
  readonly timer = h('span', { class: 'timer', role: 'timer', 'data-testid': 'timer', hidden: true });
  readonly hand = h(
    'button',
    {
      type: 'button',
      class: 'round plain',
      title: 'Raise your hand (H)',
      'aria-label': 'Raise your hand (H)',
      'aria-pressed': 'false',
      'data-testid': 'hand-button',
      hidden: true,
    },
    icon('hand'),
  );
  readonly strip: HTMLElement;
  private readonly moving = h('p', { class: 'notice', 'data-testid': 'moving-notice', hidden: true });
  private readonly movingText = h('span', { 'aria-hidden': 'true' });
  private readonly cancel = h('button', { type: 'button', 'data-testid': 'moving-cancel' }, 'Stay here');
  private readonly moved = h('p', {
    class: 'notice good',
    role: 'status',
    'data-testid': 'moved-line',
    hidden: true,
  });
  private readonly failed = h('p', {
    class: 'notice bad',
    role: 'alert',
    'data-testid': 'move-failed',
    hidden: true,
  });
  private readonly failedText = h('span');
  private readonly broadcasts = h('div', { class: 'broadcasts' });
  private readonly choice = h('div', { class: 'choice', role: 'group', 'aria-label': 'Rooms you can go to' });
  private readonly rooms: Keyed<RoomView>;
  private readonly back = button('Return to main room', 'return-main');
  private readonly help = button('Ask for help', 'help-button');
  private readonly ask = h('div', { class: 'ask', hidden: true });
  private readonly toHosts = h('input', {
    type: 'text',
    maxlength: 4000,
    autocomplete: 'off',
    placeholder: 'Message to the hosts',
    'aria-label': 'Message to the hosts',
    'data-testid': 'hosts-input',
  });
  private place: string | null = null;
  private announced: string | null = null;
  private clearMoved: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly breakouts: Breakouts,
    private readonly around: Around,
  ) {
    this.moving.append(this.movingText, this.cancel);
    const dismiss = button('Dismiss', 'move-failed-dismiss');
    dismiss.addEventListener('click', () => set(this.failed, { hidden: true }));
    this.failed.append(this.failedText, dismiss);
    this.rooms = new Keyed(
      this.choice,
      (room) => room.id,
      (room) => this.roomButton(room),
    );
    const send = h('button', { type: 'submit', class: 'small', 'data-testid': 'hosts-send' }, 'Send');
    const form = h('form', { class: 'inline-form' }, this.toHosts, send);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.messageHosts(send);
    });
    this.ask.append(this.help, form);
    this.strip = h(
      'section',
      { class: 'strip', 'aria-label': 'Breakout rooms', 'data-testid': 'strip' },
      this.moving,
      this.moved,
      this.failed,
      this.broadcasts,
      h('div', { class: 'strip-row' }, this.choice, this.back, this.ask),
    );

    this.hand.addEventListener('click', () => {
      const up = this.hand.getAttribute('aria-pressed') !== 'true';
      this.run(this.hand, () => breakouts.raiseHand(up));
    });
    this.help.addEventListener('click', () => {
      const on = this.help.getAttribute('aria-pressed') !== 'true';
      this.run(this.help, () => breakouts.askForHelp(on));
    });
    this.back.addEventListener('click', () => this.go(this.back, () => breakouts.returnToMain()));
    this.cancel.addEventListener('click', () => this.run(this.cancel, () => breakouts.cancelMove()));
    this.listen();
    this.show();
  }

  /** Title of the room of that id. */
  titleOf(room: string | null): string {
    if (room === null) return 'the main room';
    return this.breakouts.state.rooms.find((view) => view.id === room)?.title ?? room;
  }

  private listen(): void {
    const { breakouts } = this;
    breakouts.on('state', () => this.show());
    breakouts.on('timer', (timer) => {
      set(this.timer, {
        hidden: !timer,
        'data-seconds': timer?.seconds,
        'data-closes-at': timer?.closesAt,
      });
      this.timer.textContent = timer ? `${clockFace(timer.seconds)} left` : '';
      if (timer && SPOKEN.has(timer.seconds)) announce(`The rooms close in ${clockFace(timer.seconds)}`);
    });
    breakouts.on('moving', ({ to, title, seconds, cancellable }) => {
      const where = to === null ? 'the main room' : title;
      const text = `You will be moved to ${where}`;
      this.movingText.textContent = seconds > 0 ? `${text} in ${seconds} s` : `Moving you to ${where}…`;
      set(this.moving, { hidden: false, 'data-to': to ?? '', 'data-seconds': seconds });
      set(this.cancel, { hidden: !cancellable || seconds === 0 });
      set(this.failed, { hidden: true });
      set(this.moved, { hidden: true });
      // Spoken once, not each second.
      if (this.announced !== text) announce(`${text} in ${seconds} seconds`);
      this.announced = text;
    });
    breakouts.on('notMoving', () => {
      this.endMoving();
      this.around.banner('You stay here.');
    });
    breakouts.on('moved', ({ title, to, microphone, camera }) => {
      this.endMoving();
      this.show();
      const where = to === null ? 'the main room' : title || this.titleOf(to);
      const devices = ` Your microphone is ${microphone ? 'on' : 'off'}, your camera is ${camera ? 'on' : 'off'}.`;
      say(this.moved, `You are in ${where}.${this.around.canPublish() ? devices : ''}`);
      clearTimeout(this.clearMoved);
      this.clearMoved = setTimeout(() => set(this.moved, { hidden: true }), MOVED_MS);
    });
    breakouts.on('moveFailed', ({ code, landed }) => this.fail(code, ofMove(code, this.titleOf(landed))));
    breakouts.on('broadcast', ({ name, from, text }) => this.addBroadcast(name || from, text));
  }

  /** Everything that follows from the state. */
  private show(): void {
    const { breakouts } = this;
    const { state } = breakouts;
    const inside = state.room !== null;
    const some = inside || state.rooms.some((room) => room.open);
    this.title.textContent = inside ? this.titleOf(state.room) : 'Main room';
    set(this.title, { hidden: !some, 'data-room': state.room ?? '' });
    // Hosts join rooms from their panel.
    const rooms = breakouts.isHost ? [] : state.rooms.filter((room) => breakouts.mayChoose(room));
    this.rooms.show(rooms);
    set(this.choice, { hidden: rooms.length === 0 });
    set(this.back, { hidden: !breakouts.mayReturn });
    set(this.ask, { hidden: breakouts.isHost || !state.known || state.rooms.length === 0 });
    set(this.hand, { hidden: !state.known });
    const mine = (list: readonly { identity: string }[]) =>
      list.some((who) => who.identity === state.identity);
    const up = mine(state.hands);
    set(this.hand, {
      'aria-pressed': String(up),
      'aria-label': up ? 'Lower your hand (H)' : 'Raise your hand (H)',
      title: up ? 'Lower your hand (H)' : 'Raise your hand (H)',
    });
    const asking = mine(state.help);
    set(this.help, { 'aria-pressed': String(asking) });
    this.help.textContent = asking ? 'Help is on its way – cancel' : 'Ask for help';
    if (state.known && state.room !== this.place) {
      this.place = state.room;
      this.around.onPlace(state.room ?? '', inside ? this.titleOf(state.room) : this.around.title);
    }
  }

  private roomButton(room: RoomView) {
    const element = button('', 'choose-room', { 'data-room': room.id });
    element.addEventListener('click', () => this.go(element, () => this.breakouts.chooseRoom(room.id)));
    return {
      element,
      update: ({ title }: RoomView) => {
        element.textContent = `Join ${title}`;
      },
    };
  }

  private endMoving(): void {
    this.announced = null;
    set(this.moving, { hidden: true });
  }

  private fail(code: string, text: string): void {
    this.endMoving();
    this.failedText.textContent = text;
    set(this.failed, { hidden: false, 'data-code': code });
  }

  /** A move by one's own wish; a refusal is a move that failed. */
  private go(by: HTMLButtonElement, action: () => Promise<void>): void {
    set(this.failed, { hidden: true });
    this.run(by, action, (error) => {
      const code = error instanceof PlenumError ? error.code : 'Failed';
      this.fail(code, ofRefusal(error));
    });
  }

  private run(
    by: HTMLButtonElement,
    action: () => Promise<unknown>,
    failed: (error: unknown) => void = (error) => this.around.banner(ofRefusal(error)),
  ): void {
    by.disabled = true;
    action()
      .catch(failed)
      .finally(() => {
        by.disabled = false;
        this.show();
      });
  }

  private messageHosts(send: HTMLButtonElement): void {
    const text = this.toHosts.value.trim();
    if (!text) return;
    this.run(send, async () => {
      await this.breakouts.messageHosts(text);
      this.toHosts.value = '';
      this.around.banner('Sent to the hosts.');
    });
  }

  private addBroadcast(name: string, text: string): void {
    const dismiss = button('Dismiss', 'broadcast-dismiss');
    const line = h(
      'p',
      { class: 'notice broadcast', role: 'alert', 'data-testid': 'broadcast-message' },
      h('span', {}, h('strong', {}, `${name}: `), text),
      dismiss,
    );
    dismiss.addEventListener('click', () => line.remove());
    this.broadcasts.prepend(line);
    while (this.broadcasts.childElementCount > BROADCASTS) this.broadcasts.lastElementChild?.remove();
  }
}

/** A small button with words on it. */
export function button(
  label: string,
  id: string,
  extra: Record<string, string | number | boolean> = {},
): HTMLButtonElement {
  return h('button', { type: 'button', class: 'small', 'data-testid': id, ...extra }, label);
}
