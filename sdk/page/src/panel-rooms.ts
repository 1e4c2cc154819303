// The list of rooms and people in the hosts' panel.
//
// data-testid: main-item and room-item (data-room, data-open, data-count), room-rename, room-open,
// room-close, room-join, room-listen, room-remove; overview-person (data-identity, data-room,
// data-speaking, data-hand, data-help), assign-select, recall-button, cohost-button (data-identity).
import { LIMITS, type Occupant, type Overview, type RoomView } from '../../src/index.ts';
import { choices, h, Keyed, set } from './dom.ts';
import type { Panel } from './panel.ts';
import { button } from './places.ts';

interface Row {
  view: RoomView;
  people: readonly Occupant[];
}

interface Somebody {
  who: Occupant;
  room: string;
}

export class RoomList {
  readonly root: HTMLElement;
  private readonly rooms: Keyed<Row>;
  private readonly main: Keyed<Somebody>;
  private readonly mainItem: HTMLElement;
  private overview: Overview = { rooms: [] };

  constructor(private readonly panel: Panel) {
    const people = h('ul', { class: 'plain-list' });
    this.main = this.people(people);
    this.mainItem = h(
      'section',
      { class: 'room-item', 'data-testid': 'main-item', 'data-room': '' },
      h('h3', {}, 'Main room'),
      people,
    );
    const list = h('ul', { class: 'plain-list', 'aria-label': 'Rooms' });
    this.rooms = new Keyed(
      list,
      (row) => row.view.id,
      (row) => this.room(row),
    );
    this.root = h('section', { class: 'panel-part', 'aria-label': 'Rooms and people' }, this.mainItem, list);
  }

  show(overview: Overview): void {
    this.overview = overview;
    this.update();
  }

  /** Titles and times come from the state, people from the overview. */
  update(): void {
    const people = new Map(this.overview.rooms.map((room) => [room.id, room.participants]));
    const main = people.get('') ?? [];
    this.main.show(main.map((who) => ({ who, room: '' })));
    set(this.mainItem, { 'data-count': main.length });
    this.rooms.show(
      this.panel.breakouts.state.rooms.map((view) => ({ view, people: people.get(view.id) ?? [] })),
    );
  }

  private room({ view: { id } }: Row) {
    const { panel } = this;
    const { breakouts } = panel;
    const title = h('input', {
      type: 'text',
      maxlength: LIMITS.title,
      class: 'room-name',
      'aria-label': 'Title of the room',
      'data-testid': 'room-rename',
    });
    const facts = h('span', { class: 'room-facts' });
    const expected = h('p', { class: 'room-facts' });
    const on = (label: string, testId: string, action: () => Promise<unknown>) => {
      const by = button(label, testId);
      by.addEventListener('click', () => panel.run(by, action));
      return by;
    };
    const open = on('Open', 'room-open', () => breakouts.openRooms([id]));
    const close = on('Close', 'room-close', () => breakouts.closeRooms([id], panel.countdown()));
    const join = on('Join', 'room-join', () => breakouts.chooseRoom(id));
    const listen = button('Listen', 'room-listen');
    // The gateway that served the page is the one to speak to.
    panel.toggle(listen, () => breakouts.listen(id, { url: location.origin }));
    const remove = on('Remove', 'room-remove', () => breakouts.removeRoom(id));
    const people = h('ul', { class: 'plain-list' });
    const list = this.people(people);
    const element = h(
      'li',
      { class: 'room-item', 'data-testid': 'room-item', 'data-room': id },
      h('div', { class: 'panel-row' }, title, facts),
      h('div', { class: 'panel-row' }, join, listen, open, close, remove),
      people,
      expected,
    );

    let shown = '';
    const rename = () => {
      const wanted = title.value.trim();
      if (wanted && wanted !== shown) {
        // Once, though both the key and leaving the field say so.
        shown = wanted;
        panel.run(title, () => breakouts.renameRoom(id, wanted));
      } else title.value = shown;
    };
    title.addEventListener('change', rename);
    title.addEventListener('keydown', (event) => {
      if (event.key === 'Enter') rename();
      if (event.key !== 'Escape') return;
      event.stopPropagation();
      title.value = shown;
      title.blur();
    });

    const update = ({ view, people: here }: Row) => {
      shown = view.title;
      if (document.activeElement !== title && !title.disabled) title.value = view.title;
      const limit = view.maxParticipants > 0 ? ` of ${view.maxParticipants}` : '';
      facts.textContent = `${here.length}${limit}, ${view.open ? 'open' : 'closed'}`;
      set(element, { 'data-open': String(view.open), 'data-count': here.length, 'aria-label': view.title });
      set(open, { hidden: view.open });
      set(close, { hidden: !view.open });
      set(listen, { hidden: !view.open });
      set(join, { hidden: !view.open || breakouts.state.room === id });
      list.show(here.map((who) => ({ who, room: id })));
      const present = new Set(here.map((who) => who.identity));
      const missing = (view.participants ?? []).filter((identity) => !present.has(identity));
      expected.textContent = missing.length > 0 ? `Assigned: ${missing.join(', ')}` : '';
      set(expected, { hidden: missing.length === 0 });
    };
    return { element, update };
  }

  private people(parent: HTMLElement): Keyed<Somebody> {
    return new Keyed(
      parent,
      ({ who }) => who.identity,
      (somebody) => this.person(somebody),
    );
  }

  private person({ who: { identity }, room }: Somebody) {
    const { panel } = this;
    const { breakouts } = panel;
    const name = h('span', { class: 'person-name' });
    const here = h('span', { class: 'room-facts' });
    const where = h('select', {
      'aria-label': `Room of ${identity}`,
      'data-testid': 'assign-select',
      'data-identity': identity,
    });
    where.addEventListener('change', () => {
      const to = where.value;
      panel.run(where, () =>
        breakouts.assign([{ identity, room: to || undefined }]).catch((error: unknown) => {
          where.value = room;
          throw error;
        }),
      );
    });
    const recall = button('Recall', 'recall-button', { 'data-identity': identity });
    recall.addEventListener('click', () => panel.run(recall, () => breakouts.recall(identity)));
    let cohosting = false;
    const cohost = button('', 'cohost-button', { 'data-identity': identity });
    cohost.addEventListener('click', () => panel.run(cohost, () => breakouts.cohost(identity, !cohosting)));
    const element = h(
      'li',
      { class: 'person', 'data-testid': 'overview-person' },
      h('div', { class: 'person-line' }, name, here),
      where,
      recall,
      cohost,
    );

    const update = ({ who }: Somebody) => {
      cohosting = who.role === 'cohost';
      const since = new Date(who.since - breakouts.serverNow() + Date.now());
      const time = since.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
      const marks = [who.hand && '✋', who.help && '🆘', who.speaking && '🔊'].filter(Boolean).join(' ');
      const role = who.role === 'participant' ? '' : ` (${who.role})`;
      name.textContent = `${who.name || identity}${role} ${marks}`;
      set(name, { title: identity });
      here.textContent = `since ${time}`;
      set(element, {
        'data-identity': identity,
        'data-room': room,
        'data-speaking': String(who.speaking),
        'data-hand': String(who.hand),
        'data-help': String(who.help),
      });
      const rooms = breakouts.state.rooms.map((view): [string, string] => [
        view.id,
        view.open ? view.title : `${view.title} (closed)`,
      ]);
      choices(where, [['', 'Main room'], ...rooms], room);
      set(recall, { hidden: room === '' });
      cohost.textContent = cohosting ? 'No co-host' : 'Make co-host';
      set(cohost, { hidden: who.role !== 'participant' && !cohosting });
    };
    return { element, update };
  }
}
