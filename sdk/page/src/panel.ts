// The hosts' panel: makes rooms, sends people, hears what they ask for. What it shows comes from the
// server: a click changes nothing by itself.
//
// data-testid: breakout-panel, breakout-close; create-count, create-mode, create-minutes, create-max,
// create-open, create-button; countdown-select, close-all-button, open-all-button, extend-button
// (data-minutes), shuffle-button, speak-button; settings-mode, settings-return, settings-cancel;
// broadcast-input, broadcast-target, broadcast-send; csv-input, csv-apply, csv-result; help-item and
// hand-item (data-identity, data-room), help-join, hand-lower, hosts-message. Those of the rooms are in
// panel-rooms.ts.
import {
  type Asking,
  type Breakouts,
  type How,
  LIMITS,
  type Mode,
  type Overview,
  PlenumError,
  type Running,
} from '../../src/index.ts';
import { announce, choices, h, Keyed, set } from './dom.ts';
import { button } from './places.ts';
import { RoomList } from './panel-rooms.ts';
import { ofRefusal } from './words.ts';

const MESSAGES = 100;

export const MODES: [value: string, label: string][] = [
  ['automatic', 'Automatically, evenly'],
  ['random', 'Automatically, at random'],
  ['selfSelect', 'People choose'],
  ['manual', 'Hosts assign'],
];

export class Panel {
  readonly root: HTMLElement;
  readonly open = h(
    'button',
    {
      type: 'button',
      class: 'small',
      'data-testid': 'breakout-open',
      'aria-expanded': 'false',
      'aria-controls': 'breakout-panel',
      hidden: true,
    },
    'Breakout rooms',
  );
  private readonly heading = h('h2', { tabindex: -1 }, 'Breakout rooms');
  private readonly rooms: RoomList;
  private readonly closing = h('select', {
    'aria-label': 'Countdown before rooms close',
    'data-testid': 'countdown-select',
  });
  private readonly mode = h('select', { 'data-testid': 'settings-mode' });
  private readonly mayReturn = checkbox('settings-return');
  private readonly mayCancel = checkbox('settings-cancel');
  private readonly target = h('select', {
    'aria-label': 'To whom',
    'data-testid': 'broadcast-target',
  });
  private readonly asks = h('div', { class: 'asks' });
  private readonly help: Keyed<Asking>;
  private readonly hands: Keyed<Asking>;
  private readonly messages = h('ol', { class: 'plain-list', 'aria-label': 'Messages to the hosts' });
  private readonly live = h('div', { class: 'panel-part' });
  private readonly stops = new Set<() => Promise<void>>();

  constructor(
    readonly breakouts: Breakouts,
    private readonly around: { banner(text: string): void; titleOf(room: string | null): string },
  ) {
    this.rooms = new RoomList(this);
    const close = button('Close panel', 'breakout-close');
    close.addEventListener('click', () => this.show(false));
    this.open.addEventListener('click', () => this.show(true));
    const help = h('ul', { class: 'plain-list', 'aria-label': 'Calls for help' });
    const hands = h('ul', { class: 'plain-list', 'aria-label': 'Raised hands' });
    this.help = new Keyed(
      help,
      (who) => who.identity,
      (who) => this.helpItem(who),
    );
    this.hands = new Keyed(
      hands,
      (who) => who.identity,
      (who) => this.handItem(who),
    );
    this.asks.append(help, hands, this.messages);
    this.live.append(this.controls(), this.broadcast());
    this.root = h(
      'aside',
      {
        class: 'panel',
        id: 'breakout-panel',
        hidden: true,
        'aria-label': 'Breakout rooms',
        'data-testid': 'breakout-panel',
      },
      h('header', {}, this.heading, close),
      this.asks,
      this.live,
      this.rooms.root,
      this.create(),
      this.settings(),
      this.csv(),
    );
    this.root.addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.show(false);
    });

    breakouts.on('state', () => this.update());
    breakouts.on('overview', (overview: Overview) => this.rooms.show(overview));
    breakouts.on('helpAsked', ({ name, identity, room, on }) => {
      if (on && breakouts.isHost)
        this.tellOf(`${name || identity} asks for help in ${this.titleOf(room ?? null)}`);
    });
    breakouts.on('messageToHosts', (message) => this.addMessage(message));
    this.update();
  }

  titleOf(room: string | null): string {
    return this.around.titleOf(room);
  }

  /** Seconds of the chosen countdown; undefined: the meeting's. */
  countdown(): number | undefined {
    return this.closing.value === '' ? undefined : Number(this.closing.value);
  }

  /** Does something for a click, and says why it could not. */
  run(by: HTMLElement, action: () => Promise<unknown>): void {
    set(by, { disabled: true });
    action()
      .catch((error: unknown) => this.around.banner(ofRefusal(error)))
      .finally(() => {
        set(by, { disabled: false });
        this.update();
      });
  }

  /** Starts something that goes on with one click and stops it with the next. */
  toggle(by: HTMLButtonElement, start: () => Promise<Running>): void {
    let running: Running | null = null;
    const stop = async () => {
      const ending = running;
      running = null;
      this.stops.delete(stop);
      set(by, { 'aria-pressed': 'false' });
      await ending?.stop();
    };
    set(by, { 'aria-pressed': 'false' });
    by.addEventListener('click', () =>
      this.run(by, async () => {
        if (running) return stop();
        running = await start();
        running.onEnd = () => void stop();
        this.stops.add(stop);
        set(by, { 'aria-pressed': 'true' });
      }),
    );
  }

  /** Ends whatever goes on: one has left, or is a host no longer. */
  stop(): void {
    for (const stop of [...this.stops]) void stop();
  }

  private show(open: boolean): void {
    if (!open && this.root.hidden) return;
    const opening = open && this.root.hidden;
    set(this.root, { hidden: !open });
    set(this.open, { 'aria-expanded': String(open) });
    (open ? this.heading : this.open).focus();
    if (opening || !open) {
      this.breakouts
        .watchOverview(open)
        .catch((error: unknown) => open && this.around.banner(ofRefusal(error)));
    }
    this.update();
  }

  private update(): void {
    const { breakouts } = this;
    const { state } = breakouts;
    set(this.open, { hidden: !breakouts.isHost });
    if (!breakouts.isHost) {
      this.stop();
      if (!this.root.hidden) this.show(false);
    }
    // What nobody sees need not be right, but for what is asked of hosts.
    const { help, hands } = state;
    this.open.textContent = help.length > 0 ? `Breakout rooms (${help.length} need help)` : 'Breakout rooms';
    if (this.root.hidden) return;
    this.help.show(help);
    this.hands.show(hands);
    this.rooms.update();
    set(this.live, { hidden: state.rooms.length === 0 });
    choices(
      this.target,
      [
        ['*', 'Everyone'],
        ['', 'Main room'],
        ...state.rooms.map(({ id, title }): [string, string] => [id, title]),
      ],
      '*',
    );
    choices(
      this.mode,
      MODES.filter(([value]) => value !== 'random'),
      state.mode,
    );
    this.mayReturn.checked = state.allowReturnToMain;
    this.mayCancel.checked = state.allowCancel;
  }

  private create(): HTMLElement {
    const number = (id: string, label: string, extra: Record<string, string | number>) => {
      const input = h('input', { type: 'number', inputmode: 'numeric', 'data-testid': id, ...extra });
      return { input, label: h('label', {}, label, input) };
    };
    const count = number('create-count', 'Rooms', { min: 1, max: LIMITS.rooms, value: 2, required: '' });
    const minutes = number('create-minutes', 'Minutes', { min: 1, max: 1440, placeholder: 'no end' });
    const max = number('create-max', 'People per room', { min: 1, placeholder: 'any' });
    const mode = h('select', { 'data-testid': 'create-mode' });
    choices(mode, MODES, 'manual');
    const now = checkbox('create-open');
    now.checked = true;
    const create = h(
      'button',
      { type: 'submit', class: 'primary', 'data-testid': 'create-button' },
      'Create',
    );
    const form = h(
      'form',
      { class: 'panel-form' },
      count.label,
      minutes.label,
      max.label,
      h('label', {}, 'Who goes where', mode),
      h('label', { class: 'check' }, now, 'Open at once'),
      create,
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const { mode: filled, how } = modeOf(mode.value);
      const rooms = Array.from({ length: Number(count.input.value) }, () => ({
        maxParticipants: Number(max.input.value) || undefined,
      }));
      const duration = Number(minutes.input.value) * 60 || undefined;
      this.run(create, () =>
        this.breakouts.createRooms(rooms, { mode: filled, how, duration, open: now.checked }),
      );
    });
    return part('New rooms', form);
  }

  private controls(): HTMLElement {
    const { breakouts } = this;
    choices(
      this.closing,
      [['', 'Usual countdown'], ...[10, 20, 30, 60, 120].map((s): [string, string] => [String(s), `${s} s`])],
      '',
    );
    const on = (by: HTMLButtonElement, action: () => Promise<unknown>) => {
      by.addEventListener('click', () => this.run(by, action));
      return by;
    };
    const extend = (minutes: number) =>
      on(button(`+${minutes} min`, 'extend-button', { 'data-minutes': minutes }), () =>
        breakouts.extend(minutes * 60),
      );
    return h(
      'div',
      { class: 'panel-row', role: 'group', 'aria-label': 'All rooms' },
      on(button('Close all', 'close-all-button'), () => breakouts.closeRooms([], this.countdown())),
      this.closing,
      on(button('Open all', 'open-all-button'), () => breakouts.openRooms()),
      extend(1),
      extend(5),
      on(button('Shuffle', 'shuffle-button'), () => breakouts.shuffle()),
      this.speaker(),
    );
  }

  private speaker(): HTMLElement {
    const speak = button('Speak to all rooms', 'speak-button');
    this.toggle(speak, () => this.breakouts.speak({ url: location.origin }));
    return speak;
  }

  private settings(): HTMLElement {
    const { breakouts } = this;
    const change = (by: HTMLElement, action: () => Promise<unknown>) =>
      by.addEventListener('change', () => this.run(by, action));
    change(this.mode, () => breakouts.settings({ mode: this.mode.value as Mode }));
    change(this.mayReturn, () => breakouts.settings({ allowReturnToMain: this.mayReturn.checked }));
    change(this.mayCancel, () => breakouts.settings({ allowCancel: this.mayCancel.checked }));
    return part(
      'Rules',
      h('label', {}, 'Who goes where', this.mode),
      h('label', { class: 'check' }, this.mayReturn, 'People may return to the main room'),
      h('label', { class: 'check' }, this.mayCancel, 'People may refuse to be moved'),
    );
  }

  private broadcast(): HTMLElement {
    const input = h('input', {
      type: 'text',
      maxlength: LIMITS.text,
      autocomplete: 'off',
      placeholder: 'Say something to all rooms',
      'aria-label': 'Broadcast',
      'data-testid': 'broadcast-input',
    });
    const send = h('button', { type: 'submit', class: 'small', 'data-testid': 'broadcast-send' }, 'Send');
    const form = h('form', { class: 'inline-form' }, input, this.target, send);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      const text = input.value.trim();
      if (!text) return;
      const rooms = this.target.value === '*' ? [] : [this.target.value];
      this.run(send, async () => {
        await this.breakouts.broadcast(text, rooms);
        input.value = '';
      });
    });
    return form;
  }

  private csv(): HTMLElement {
    const input = h('textarea', {
      rows: 4,
      spellcheck: 'false',
      placeholder: 'identity,room',
      'aria-label': 'Assignments, one identity,room per line',
      'data-testid': 'csv-input',
    });
    const result = h('p', { class: 'csv-result', role: 'status', 'data-testid': 'csv-result' });
    const apply = button('Assign', 'csv-apply');
    apply.addEventListener('click', () =>
      this.run(apply, async () => {
        try {
          const { assigned, created } = await this.breakouts.applyAssignments(input.value);
          result.textContent = `${assigned} assigned, ${created} ${created === 1 ? 'room' : 'rooms'} made.`;
        } catch (error) {
          // Line by line beside what was pasted, as far as it is about that.
          if (!(error instanceof PlenumError) || error.code !== 'CsvInvalid') throw error;
          result.textContent = error.detail;
        }
      }),
    );
    return part('Assign from a list', input, h('div', { class: 'panel-row' }, apply), result);
  }

  private helpItem(who: Asking) {
    const text = h('span');
    const join = button('Join', 'help-join');
    const element = h('li', { 'data-testid': 'help-item' }, text, join);
    let room = who.room;
    join.addEventListener('click', () =>
      this.run(join, () => (room ? this.breakouts.chooseRoom(room) : this.breakouts.returnToMain())),
    );
    const update = (now: Asking) => {
      room = now.room;
      text.textContent = `${now.name || now.identity} asks for help in ${this.titleOf(room ?? null)}`;
      set(join, { hidden: (room ?? null) === this.breakouts.state.room });
      set(element, { 'data-identity': now.identity, 'data-room': room ?? '' });
    };
    return { element, update };
  }

  private handItem(who: Asking) {
    const text = h('span');
    const lower = button('Lower', 'hand-lower');
    const element = h('li', { 'data-testid': 'hand-item' }, text, lower);
    lower.addEventListener('click', () => this.run(lower, () => this.breakouts.lowerHand(who.identity)));
    const update = (now: Asking) => {
      text.textContent = `✋ ${now.name || now.identity}, ${this.titleOf(now.room ?? null)}`;
      set(element, { 'data-identity': now.identity, 'data-room': now.room ?? '' });
    };
    return { element, update };
  }

  private addMessage({ identity, name, room, text }: Asking & { text: string }): void {
    const from = `${name || identity}, ${this.titleOf(room ?? null)}`;
    this.messages.append(
      h(
        'li',
        { 'data-testid': 'hosts-message', 'data-identity': identity, 'data-room': room ?? '' },
        h('strong', {}, `${from}: `),
        text,
      ),
    );
    while (this.messages.childElementCount > MESSAGES) this.messages.firstElementChild?.remove();
    if (this.root.hidden) this.tellOf(`${from}: ${text}`);
    else announce(`Message from ${from}`);
  }

  private tellOf(text: string): void {
    this.around.banner(text);
  }
}

function modeOf(value: string): { mode: Mode; how: How } {
  return value === 'random' ? { mode: 'automatic', how: 'random' } : { mode: value as Mode, how: 'even' };
}

function checkbox(id: string): HTMLInputElement {
  return h('input', { type: 'checkbox', 'data-testid': id });
}

function part(title: string, ...children: HTMLElement[]): HTMLElement {
  return h('section', { class: 'panel-part' }, h('h3', {}, title), ...children);
}
