// Chat: text over LiveKit's own chat topic, so that other LiveKit clients take part.
import { type Room, RoomEvent } from 'livekit-client';
import { announce, h, set } from './dom.ts';

const TOPIC = 'lk.chat';
const MAX_CHARACTERS = 4000;
const MAX_MESSAGES = 500;

/** The chat's panel and what feeds it. */
export class Chat {
  readonly panel: HTMLElement;
  /** Called with how many messages came while the panel was closed. */
  onUnread: (count: number) => void = () => undefined;
  private readonly list = h('ol', {
    class: 'chat-list',
    'data-testid': 'chat-list',
    'aria-label': 'Messages',
  });
  private readonly input = h('input', {
    type: 'text',
    maxlength: MAX_CHARACTERS,
    autocomplete: 'off',
    placeholder: 'Message everyone',
    'aria-label': 'Message',
    'data-testid': 'chat-input',
  });
  private unread = 0;
  private readonly seen = new Set<string>();
  private place = '';
  private readonly elsewhere = new Map<string, Node[]>();

  constructor(private readonly room: Room) {
    const send = h('button', { type: 'submit', class: 'primary', 'data-testid': 'chat-send' }, 'Send');
    const form = h('form', { class: 'chat-form' }, this.input, send);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.send();
    });
    this.panel = h(
      'aside',
      { class: 'chat', hidden: true, 'aria-label': 'Chat', 'data-testid': 'chat' },
      h('h2', {}, 'Chat'),
      this.list,
      form,
    );

    room.registerTextStreamHandler(TOPIC, (reader, from) => {
      void reader.readAll().then((text) => this.add(reader.info.id, this.nameOf(from.identity), text, false));
    });
    // The form that older clients send.
    room.on(RoomEvent.ChatMessage, (message, from) => {
      if (from && !from.isLocal) this.add(message.id, from.name || from.identity, message.message, false);
    });
  }

  get isOpen(): boolean {
    return !this.panel.hidden;
  }

  open(open: boolean): void {
    set(this.panel, { hidden: !open });
    if (open) {
      this.unread = 0;
      this.onUnread(0);
      this.input.focus();
      this.list.scrollTop = this.list.scrollHeight;
    }
  }

  private async send(): Promise<void> {
    const text = this.input.value.trim();
    if (!text) return;
    this.input.value = '';
    try {
      const info = await this.room.localParticipant.sendText(text, { topic: TOPIC });
      this.add(info.id, 'You', text, true);
    } catch {
      this.input.value = text;
      this.note('Your message was not sent.');
    }
  }

  private nameOf(identity: string): string {
    const participant = this.room.getParticipantByIdentity(identity);
    return participant?.name || identity;
  }

  private add(id: string, name: string, text: string, own: boolean): void {
    if (this.seen.has(id)) return;
    this.seen.add(id);
    const time = new Date().toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    this.append(
      h(
        'li',
        { class: own ? 'own' : '', 'data-testid': 'chat-message' },
        h('span', { class: 'chat-from' }, h('strong', {}, name), h('time', {}, time)),
        h('span', { class: 'chat-text' }, text.slice(0, MAX_CHARACTERS)),
      ),
    );
    if (!own && !this.isOpen) {
      this.unread += 1;
      this.onUnread(this.unread);
      announce(`Message from ${name}`);
    }
  }

  /** One is in another room: its chat is shown, as far as one was there; that of the old room is kept. */
  enter(place: string, title: string): void {
    if (place === this.place) return;
    this.elsewhere.set(this.place, [...this.list.childNodes]);
    this.list.replaceChildren(...(this.elsewhere.get(place) ?? []));
    this.elsewhere.delete(place);
    this.place = place;
    this.note(`You are in ${title}. Only the people here read what you write.`);
    this.unread = 0;
    this.onUnread(0);
  }

  /** A line of the page's own. */
  note(text: string): void {
    this.append(h('li', { class: 'note' }, text));
  }

  private append(line: HTMLElement): void {
    this.list.append(line);
    while (this.list.childElementCount > MAX_MESSAGES) this.list.firstElementChild?.remove();
    this.list.scrollTop = this.list.scrollHeight;
  }
}
