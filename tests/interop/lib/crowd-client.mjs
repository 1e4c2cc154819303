// A process with some people in a meeting who send and receive no media: their places are what counts.
// Its parent asks, it answers.

import { ConnectionState, Room, RoomEvent, dispose } from '@livekit/rtc-node';

/** @type {Map<string, {room: Room, ended: boolean}>} */
const people = new Map();

/**
 * The library's native half drops a connection that its JavaScript half did not take over within a second
 * (livekit/node-sdks#666), as happens where fifty others keep the machine busy.
 */
const LATE = /handle not found/;
const ATTEMPTS = 3;

async function connect({ identity, url, token }) {
  const room = new Room();
  const person = { room, ended: false };
  people.set(identity, person);
  room.on(RoomEvent.Disconnected, () => (person.ended = true));
  await room.connect(url, token, { autoSubscribe: false, dynacast: false });
}

const asked = {
  async join(ticket) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await connect(ticket);
      } catch (error) {
        if (attempt === ATTEMPTS || !LATE.test(error.message)) throw error;
      }
    }
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
