// Moves to another worker, and data channels that are gone.
import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { Breakouts } from '../src/breakouts.ts';
import { FakeRoom, NOW, settle, STATE } from './fake.ts';

beforeEach(() => mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOW }));
afterEach(() => mock.timers.reset());

async function entered() {
  const room = new FakeRoom();
  const breakouts = new Breakouts(room.asRoom);
  await room.enters();
  const hellos = () => room.asked('hello').length - 1;
  return { room, breakouts, hellos };
}

async function resumes(room: FakeRoom) {
  room.state = 'signalReconnecting';
  room.emit('signalReconnecting');
  room.emit('moved');
  await settle();
}

async function resumed(room: FakeRoom) {
  room.state = 'connected';
  room.emit('reconnected');
  await settle();
}

async function passes(ms: number) {
  mock.timers.tick(ms);
  await settle();
}

const SAID = { notice: 'moved', to: 'red', title: 'Red room' };

test('nothing is sent on the way to another worker before the server has said something', async () => {
  const { room, hellos } = await entered();
  await resumes(room);
  assert.equal(hellos(), 0);
  await resumed(room);
  assert.equal(hellos(), 0);
  await room.says(SAID);
  assert.equal(hellos(), 1);
  await passes(5000);
  await passes(2000);
  assert.equal(hellos(), 2, 'an answer is waited for as ever');
});

test('a server that speaks before the library is reconnected is answered after', async () => {
  const { room, hellos } = await entered();
  await resumes(room);
  await room.says(SAID);
  assert.equal(hellos(), 0);
  await resumed(room);
  assert.equal(hellos(), 1);
});

test('a server that says nothing is greeted all the same', async () => {
  const { room, hellos } = await entered();
  await resumes(room);
  await resumed(room);
  await passes(5000);
  assert.equal(hellos(), 1);
});

test('a greeting that was under way is not repeated on the way', async () => {
  const room = new FakeRoom();
  new Breakouts(room.asRoom);
  room.state = 'connected';
  room.emit('connected');
  await settle();
  await resumes(room);
  await passes(20_000);
  assert.equal(room.asked('hello').length, 1);
});

test('a connection whose channel is closed is made anew, once', async () => {
  const { room, hellos } = await entered();
  room.failing = new Error('DataChannel 0 is closed');
  await resumed(room);
  assert.deepEqual(room.scenarios, ['full-reconnect']);
  await passes(60_000);
  assert.equal(room.scenarios.length, 1);
  room.failing = null;
  room.emit('reconnecting');
  await resumed(room);
  assert.equal(hellos(), 1);
  await room.answers('hello', STATE);
  room.failing = new Error('DataChannel 0 is closed');
  await resumed(room);
  assert.equal(room.scenarios.length, 2, 'another time is another time');
});

test('so is one on which nobody answers any more, but not one on which nobody ever did', async () => {
  const { room } = await entered();
  await resumed(room);
  for (let i = 0; i < 20; i += 1) await passes(1000);
  assert.deepEqual(room.scenarios, ['full-reconnect']);

  const other = new FakeRoom();
  const told: unknown[] = [];
  new Breakouts(other.asRoom).on('unavailable', (error) => told.push(error));
  other.state = 'connected';
  other.emit('connected');
  for (let i = 0; i < 30; i += 1) await passes(1000);
  assert.equal(told.length, 1);
  assert.deepEqual(other.scenarios, []);
});
