// The two ways to run breakout rooms: the host's panel in the page, and kubectl.

import { apply, condition, find, kubectl, remove } from './kube.mjs';
import { waitFor } from './wait.mjs';

/** Waits until the meeting has `count` rooms that are Ready. */
async function readyRooms(conference, count) {
  let rooms;
  await waitFor(
    async () => {
      rooms = await conference.rooms();
      const ready = rooms.filter((room) => condition(room, 'Ready')?.reason === 'Open');
      return ready.length >= count;
    },
    {
      what: `${count} rooms are open`,
      diagnose: async () =>
        `${rooms.map((r) => `${r.metadata.name}: ${JSON.stringify(r.status?.conditions)}`).join('\n')}\n${await conference.diagnose()}`,
    },
  );
  return rooms;
}

/** A host clicks. */
export class PageDriver {
  label = 'by the host in the page';

  constructor(conference, host) {
    this.conference = conference;
    this.host = host;
  }

  async panel() {
    if (!(await this.host.$('breakout-panel').isVisible())) await this.host.click('breakout-open');
    await this.host.shown('breakout-panel');
  }

  /** Makes rooms; `people[i]` go to the i-th. Answers the rooms' ids in order. */
  async create(count, { mode = 'manual', people = [], max, minutes } = {}) {
    await this.panel();
    const { host } = this;
    await host.$('create-count').fill(String(count));
    await host.$('create-mode').selectOption(mode);
    await host.$('create-minutes').fill(minutes ? String(minutes) : '');
    await host.$('create-max').fill(max ? String(max) : '');
    await host.click('create-button');
    const rooms = await readyRooms(this.conference, count);
    const ids = rooms.map((room) => room.metadata.name);
    for (const [i, identities] of people.entries())
      for (const identity of identities) await this.assign(identity, ids[i]);
    return ids;
  }

  async assign(identity, room) {
    await this.panel();
    if (room === null) return this.host.click('recall-button', { identity });
    await this.host.$('assign-select', { identity }).first().selectOption(room);
  }

  async rename(room, title) {
    await this.panel();
    const input = this.host.$('room-item', { room }).getByTestId('room-rename');
    await input.fill(title);
    await input.press('Enter');
  }

  async closeAll(seconds = 10) {
    await this.panel();
    await this.host.$('countdown-select').selectOption(String(seconds));
    await this.host.click('close-all-button');
  }

  async remove(room) {
    await this.panel();
    await this.host.$('room-item', { room }).getByTestId('room-remove').click();
  }

  async close(room) {
    await this.panel();
    await this.host.$('room-item', { room }).getByTestId('room-close').click();
  }

  async open(room) {
    await this.panel();
    await this.host.$('room-item', { room }).getByTestId('room-open').click();
  }

  async makeCohost(identity) {
    await this.panel();
    await this.host.click('cohost-button', { identity });
  }

  /** For somebody who is not there yet. */
  async preassign(identity, room) {
    await this.panel();
    const { spec } = await find('breakoutroom', room, this.conference.namespace);
    await this.host.$('csv-input').fill(`identity,room\n${identity},${spec.title}\n`);
    await this.host.click('csv-apply');
    await this.host.until(`${identity} is expected in ${room}`, async () => {
      const { status } = await this.conference.current();
      return status.session?.breakouts?.moves?.some((m) => m.identity === identity && m.room === room);
    });
  }
}

/** kubectl applies; the host is only one of the people. */
export class KubectlDriver {
  label = 'by kubectl';
  /** @type {Map<string, object>} */
  specs = new Map();

  constructor(conference) {
    this.conference = conference;
  }

  object(name, spec) {
    return {
      apiVersion: 'plenum.dev/v1alpha1',
      kind: 'BreakoutRoom',
      metadata: { name, namespace: this.conference.namespace },
      spec: { meetingRef: { name: this.conference.name }, ...spec },
    };
  }

  async put(name, change) {
    const spec = { ...this.specs.get(name), ...change };
    for (const key of Object.keys(spec)) if (spec[key] === undefined) delete spec[key];
    this.specs.set(name, spec);
    await apply(this.object(name, spec));
  }

  async create(count, { mode = 'manual', people = [], max, minutes } = {}) {
    const assignment = { automatic: 'Automatic', selfSelect: 'SelfSelect', manual: 'Manual' }[mode];
    const { conference } = this;
    await kubectl(
      ['-n', conference.namespace, 'patch', 'meeting', conference.name, '--type=merge', '-p'].concat(
        JSON.stringify({ spec: { breakouts: { assignment, closingCountdown: '10s' } } }),
      ),
    );
    const closeAt = minutes
      ? new Date(Date.now() + minutes * 60_000).toISOString().slice(0, 19) + 'Z'
      : undefined;
    const ids = Array.from({ length: count }, (_, i) => `${conference.name}-k${i + 1}`);
    await Promise.all(
      ids.map((id, i) =>
        this.put(id, {
          title: `Room ${i + 1}`,
          maxParticipants: max,
          closeAt,
          participants: people[i]?.length ? people[i] : undefined,
        }),
      ),
    );
    await readyRooms(conference, count);
    return ids;
  }

  async assign(identity, room) {
    for (const [name, spec] of this.specs) {
      const named = spec.participants?.includes(identity);
      if (named && name !== room)
        await this.put(name, { participants: spec.participants.filter((i) => i !== identity) });
    }
    if (room !== null)
      await this.put(room, { participants: [...(this.specs.get(room).participants ?? []), identity] });
  }

  rename(room, title) {
    return this.put(room, { title });
  }

  async closeAll() {
    await Promise.all([...this.specs.keys()].map((name) => this.put(name, { open: false })));
  }

  async remove(room) {
    this.specs.delete(room);
    await remove('breakoutroom', room, this.conference.namespace, '--wait=false');
  }

  close(room) {
    return this.put(room, { open: false });
  }

  open(room) {
    return this.put(room, { open: true });
  }

  makeCohost(identity) {
    const { conference } = this;
    const patch = JSON.stringify({ spec: { coHosts: [identity] } });
    return kubectl([
      '-n',
      conference.namespace,
      'patch',
      'meeting',
      conference.name,
      '--type=merge',
      '-p',
      patch,
    ]);
  }

  preassign(identity, room) {
    return this.assign(identity, room);
  }
}
