// A process with some people in a meeting who send and receive no media: their places are what counts.
// Its parent asks, it answers.

import { ConnectionState, Room, RoomEvent, dispose } from '@livekit/rtc-node';

/** @type {Map<string, {room: Room, ended: boolean}>} */
const people = new Map();

const asked = {
  async join({ identity, url, token }) {
    const room = new Room();
    const person = { room, ended: false };
    people.set(identity, person);
    room.on(RoomEvent.Disconnected, () => (person.ended = true));
    await room.connect(url, token, { autoSubscribe: false, dynacast: false });
  },
  /** Who is connected. (Whom it sees is no measure: this client keeps people of rooms it has left.) */
  view() {
    return [...people].map(([identity, { room, ended }]) => ({
      identity,
      connected: !ended && room.connectionState === ConnectionState.CONN_CONNECTED,
    }));
  },
};

process.on('message', async ({ id, what, args }) => {
  try {
    process.send({ id, answer: await asked[what](args) });
  } catch (error) {
    process.send({ id, error: error.message });
  }
});
process.on('disconnect', async () => {
  await Promise.all([...people.values()].map(({ room }) => room.disconnect().catch(() => {})));
  await dispose();
  process.exit();
});
