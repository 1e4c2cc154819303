import assert from 'node:assert/strict';
import { afterEach, beforeEach, mock, test } from 'node:test';
import { Breakouts } from '../src/breakouts.ts';
import type { BreakoutsEvents, BreakoutsOptions } from '../src/told.ts';
import { PlenumError } from '../src/error.ts';
import { FakeRoom, NOW, settle, STATE } from './fake.ts';

beforeEach(() => mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOW }));
afterEach(() => mock.timers.reset());

const NAMES: (keyof BreakoutsEvents)[] = [
  'roomsChanged',
  'timer',
  'moving',
  'notMoving',
  'moved',
  'moveFailed',
  'handRaised',
  'helpAsked',
  'broadcast',
  'messageToHosts',
  'participantSwitched',
  'overview',
  'role',
  'unavailable',
];

function make(options: BreakoutsOptions = {}) {
  const room = new FakeRoom();
  const breakouts = new Breakouts(room.asRoom, options);
  const told: [string, unknown][] = [];
  for (const name of NAMES) breakouts.on(name, (event) => told.push([name, event]));
  const of = (name: keyof BreakoutsEvents) => told.filter(([n]) => n === name).map(([, event]) => event);
  return { room, breakouts, told, of };
}

const hand = (seq: number, up: boolean, identity = 'bob') => ({
  seq,
  at: NOW + seq,
  signal: 'raise-hand',
  identity,
  name: identity,
  since: NOW + seq,
  up,
});
const speech = (seq: number) => ({
  seq,
  at: NOW + seq,
  signal: 'broadcast',
  from: 'hal',
  name: 'Hal',
  text: `${seq}`,
});
const texts = (events: unknown[]) => events.map((event) => (event as { text: string }).text);

test('hello is said on connect, reconnect and move, with the last signal that arrived', async () => {
  const { room, breakouts, of } = make();
  assert.equal(breakouts.state.known, false);
  await room.enters();
  assert.deepEqual(room.sent, [{ id: 1, do: 'hello' }]);
  assert.equal(breakouts.state.identity, 'ann');
  assert.deepEqual(of('role'), ['participant']);
  await room.says(speech(12));
  room.emit('reconnected');
  await settle();
  await room.answers('hello', { ...STATE, seq: 14 });
  room.emit('moved');
  await settle();
  // 13 and 14 may have been for others; or their repetition was lost.
  assert.deepEqual(
    room.asked('hello').map((request) => (request as { since?: number }).since),
    [undefined, 12, 12],
  );
});

test('a Room that is connected already is greeted at once', async () => {
  const room = new FakeRoom();
  room.state = 'connected';
  new Breakouts(room.asRoom);
  await settle();
  assert.equal(room.asked('hello').length, 1);
});

test('signals that come with the answer to hello are told in order, each once', async () => {
  const { room, of } = make();
  await room.enters();
  await room.says(speech(11));
  room.emit('reconnected');
  await settle();
  for (const seq of [14, 12, 11, 13, 12]) await room.says(speech(seq));
  assert.deepEqual(texts(of('broadcast')), ['11'], 'held back');
  await room.answers('hello', { ...STATE, seq: 14 });
  await room.says(speech(13));
  await room.says(speech(15));
  assert.deepEqual(texts(of('broadcast')), ['11', '12', '13', '14', '15']);
});

test('what is asked for while reconnecting waits until the server has answered again', async () => {
  const { room, breakouts } = make();
  await room.enters();
  room.emit('signalReconnecting');
  const raised = breakouts.raiseHand(true);
  await settle();
  room.emit('reconnected');
  await settle();
  assert.equal(room.asked('raiseHand').length, 0);
  // The first hello is lost, as what is sent right after a reconnect may be.
  mock.timers.tick(5000);
  await settle();
  mock.timers.tick(2000);
  await settle();
  assert.equal(room.asked('raiseHand').length, 0);
  await room.answers('hello', { ...STATE });
  await settle();
  assert.equal(room.asked('raiseHand').length, 1);
  await room.answers('raiseHand', null);
  await raised;
});

test('what comes while reconnecting waits for what was missed before it', async () => {
  const { room, of } = make();
  await room.enters();
  room.emit('signalReconnecting');
  await room.says(speech(12));
  room.emit('reconnected');
  await settle();
  await room.says(speech(11));
  assert.deepEqual(of('broadcast'), []);
  await room.answers('hello', { ...STATE, seq: 12 });
  assert.deepEqual(texts(of('broadcast')), ['11', '12']);
});

test('signals that are repeated after the answer are told, but change nothing newer', async () => {
  const { room, breakouts, of } = make();
  await room.enters();
  room.emit('reconnected');
  await settle();
  await room.answers('hello', { ...STATE, seq: 20, hands: [] });
  await room.says(hand(15, true));
  assert.equal(of('handRaised').length, 1);
  assert.equal(breakouts.state.hands.length, 0);
  await room.says(hand(22, false));
  await room.says(hand(21, true));
  await room.says(hand(23, true, 'cid'));
  assert.deepEqual(
    breakouts.state.hands.map((who) => who.identity),
    ['cid'],
  );
});

test('a count that begins anew is followed', async () => {
  const { room, breakouts, of } = make();
  await room.enters();
  await room.says(speech(11));
  room.emit('reconnected');
  await settle();
  await room.answers('hello', { ...STATE, seq: 0 });
  await room.says({ ...speech(11), at: NOW + 60_000 });
  await room.says(hand(1, true));
  assert.deepEqual(texts(of('broadcast')), ['11', '11']);
  assert.equal(breakouts.state.hands.length, 1);
});

test('only the answer to the last hello counts', async () => {
  const { room, breakouts } = make();
  await room.enters();
  room.emit('reconnected');
  room.emit('moved');
  await settle();
  const [, first, second] = room.asked('hello');
  const me = STATE.me;
  await room.says({ re: second?.id, ok: true, result: { ...STATE, me: { ...me, room: 'red' } } });
  await room.says({ re: first?.id, ok: true, result: { ...STATE, me: { ...me, room: 'blue' } } });
  assert.equal(breakouts.state.room, 'red');
});

test('state follows the signals', async () => {
  const { room, breakouts, of } = make();
  await room.enters();
  const rooms = [{ id: 'red', title: 'Crimson', maxParticipants: 2, open: true, participants: ['ann'] }];
  await room.says({
    seq: 11,
    at: NOW,
    signal: 'breakout-room',
    message: 'roomChanged',
    mode: 'manual',
    allowReturnToMain: false,
    allowCancel: true,
    rooms,
  });
  assert.deepEqual([breakouts.state.allowReturnToMain, breakouts.state.allowCancel], [false, true]);
  assert.deepEqual(of('roomsChanged').at(-1), { message: 'roomChanged', mode: 'manual', rooms });
  assert.equal(breakouts.state.assigned, 'red');
  assert.equal(breakouts.state.rooms[0] && breakouts.mayChoose(breakouts.state.rooms[0]), true);
  await room.says({ ...hand(12, true), signal: 'ask-for-help', up: undefined, on: true });
  assert.equal(breakouts.state.help[0]?.identity, 'bob');
  await room.says({ seq: 13, at: NOW, signal: 'participant-switched', identity: 'bob', to: 'red' });
  assert.equal(breakouts.state.help[0]?.room, 'red');
  assert.deepEqual(of('participantSwitched'), [{ identity: 'bob', from: null, to: 'red', failed: null }]);
  await room.says({ notice: 'role', role: 'cohost' });
  await room.says({ notice: 'role', role: 'cohost' });
  assert.deepEqual(of('role'), ['participant', 'cohost']);
  assert.equal(breakouts.isHost, true);
  room.emit('participantAttributesChanged', { 'plenum.role': 'participant' }, room.localParticipant);
  room.emit('participantAttributesChanged', { 'plenum.role': 'host' }, { isLocal: false });
  assert.equal(breakouts.isHost, false);
});

test('all clients show the same remaining time, whatever their own clock says', async () => {
  for (const wrong of [-3_600_000, 0, 86_400_000]) {
    mock.timers.reset();
    mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOW + wrong });
    const { room, breakouts, of } = make();
    await room.enters();
    const closesAt = NOW + 4500;
    const timer = {
      seq: 11,
      at: NOW,
      signal: 'count-down-timer',
      period: 5,
      closesAt,
      now: NOW,
      rooms: ['red'],
    };
    await room.says(timer);
    for (let i = 0; i < 50; i += 1) mock.timers.tick(100);
    assert.deepEqual(
      of('timer'),
      [5, 4, 3, 2, 1, 0].map((seconds) => ({ closesAt, seconds })),
    );
    // The same signal again is old: its `now` says nothing of the present.
    await room.says(timer);
    assert.equal(breakouts.serverNow(), NOW + 5000);
    const rooms = STATE.rooms.map((view) => ({ ...view, open: false }));
    await room.says({
      seq: 12,
      at: NOW,
      signal: 'breakout-room',
      message: 'allRoomRemoved',
      mode: 'manual',
      allowReturnToMain: true,
      allowCancel: false,
      rooms,
    });
    assert.equal(of('timer').at(-1), null);
    breakouts.close();
  }
});

test('in a room its own time runs, in the main room that of the first to close', async () => {
  const { room, breakouts } = make();
  const rooms = [
    { id: 'red', title: 'Red', maxParticipants: 0, open: true, closesAt: NOW + 60_000 },
    { id: 'blue', title: 'Blue', maxParticipants: 0, open: true, closesAt: NOW + 30_000 },
    { id: 'grey', title: 'Grey', maxParticipants: 0, open: false, closesAt: NOW + 10_000 },
  ];
  await room.enters({ rooms });
  assert.deepEqual(breakouts.timer, { closesAt: NOW + 30_000, seconds: 30 });
  await room.says({ notice: 'moved', to: 'red', title: 'Red' });
  assert.deepEqual(breakouts.timer, { closesAt: NOW + 60_000, seconds: 60 });
});

const MOVING = {
  notice: 'moving',
  message: 'participantMoved',
  to: 'red',
  title: 'Red room',
  at: NOW + 5000,
  now: NOW,
  seconds: 5,
  cancellable: true,
};

test('a move is announced each second, and told once', async () => {
  const { room, breakouts, of } = make();
  await room.enters();
  await room.says(MOVING);
  for (let i = 0; i < 60; i += 1) mock.timers.tick(100);
  const moving = of('moving') as BreakoutsEvents['moving'][];
  assert.deepEqual(
    moving.map((event) => event.seconds),
    [5, 4, 3, 2, 1, 0],
  );
  void moving[0]?.cancel();
  await settle();
  assert.equal(room.asked('cancelMove').length, 1);
  await room.answers('cancelMove');
  await room.says({ notice: 'moved', to: 'red', title: 'Red room' });
  room.emit('moved', 'demo/standup/red');
  await settle();
  await room.answers('hello', { ...STATE, me: { ...STATE.me, room: 'red' } });
  assert.deepEqual(of('moved'), [
    { from: null, to: 'red', title: 'Red room', microphone: true, camera: false },
  ]);
  assert.equal(breakouts.currentRoom?.title, 'Red room');
});

test('a move by reconnect is told without a notice', async () => {
  const { room, of } = make();
  await room.enters({ me: { ...STATE.me, room: 'red' } });
  assert.deepEqual(of('moved'), [], 'who joins is not moved');
  room.emit('reconnected');
  await settle();
  await room.answers('hello', STATE);
  assert.deepEqual(of('moved'), [{ from: 'red', to: null, title: '', microphone: true, camera: false }]);
});

test('a move that does not take place ends its countdown', async () => {
  const { room, breakouts, of } = make();
  await room.enters();
  await room.says(MOVING);
  await room.says({ notice: 'not-moving' });
  mock.timers.tick(10_000);
  assert.equal(of('moving').length, 1);
  assert.equal(of('notMoving').length, 1);
  await room.says(MOVING);
  await room.says({ notice: 'move-failed', to: 'red', code: 'MeetingFull' });
  mock.timers.tick(10_000);
  assert.equal(of('moving').length, 2);
  assert.deepEqual(of('moveFailed'), [{ to: 'red', landed: null, code: 'MeetingFull' }]);
  assert.deepEqual([breakouts.state.room, of('moved')], [null, []]);
});

test('an announcement that is lost with its connection does not stay', async () => {
  const { room, of } = make();
  await room.enters();
  await room.says(MOVING);
  room.emit('reconnected');
  await settle();
  await room.answers('hello', STATE);
  mock.timers.tick(10_000);
  assert.equal(of('moving').length, 1);
  assert.equal(of('notMoving').length, 1);
  // To another worker one is moved by a reconnect.
  await room.says(MOVING);
  room.emit('reconnected');
  await settle();
  await room.answers('hello', { ...STATE, me: { ...STATE.me, room: 'red' } });
  assert.deepEqual([of('notMoving').length, of('moved').length], [1, 1]);
});

test('who leaves and comes again is not moved', async () => {
  const { room, of } = make();
  await room.enters();
  room.state = 'disconnected';
  room.emit('disconnected');
  await room.enters({ me: { ...STATE.me, room: 'red' } });
  assert.deepEqual(of('moved'), []);
});

test('the microphone stays as it was, unless it is to be muted', async () => {
  const plain = make();
  await plain.room.enters();
  await plain.room.says(MOVING);
  mock.timers.tick(6000);
  await plain.room.says({ notice: 'moved', to: 'red', title: 'Red room' });
  assert.equal(plain.room.localParticipant.isMicrophoneEnabled, true);

  const { room, breakouts, of } = make({ muteOnMove: true });
  await room.enters();
  const own = room.localParticipant;
  await room.says({ ...MOVING, at: Date.now() + 5000, now: Date.now() });
  for (let i = 0; i < 35; i += 1) mock.timers.tick(100);
  assert.equal(own.isMicrophoneEnabled, true);
  for (let i = 0; i < 10; i += 1) mock.timers.tick(100);
  assert.equal(own.isMicrophoneEnabled, false, 'before the switch');
  await room.says({ notice: 'move-failed', to: 'red', code: 'MeetingFull' });
  assert.equal(own.isMicrophoneEnabled, true, 'there was none');

  const going = breakouts.chooseRoom('red');
  await settle();
  assert.equal(own.isMicrophoneEnabled, false);
  await room.answers('chooseRoom');
  await going;
  await room.says({ notice: 'moved', to: 'red', title: 'Red room' });
  assert.deepEqual((of('moved')[0] as { microphone: boolean }).microphone, false);
});

test('refusals, silence and a lost connection each reject in their own way', async () => {
  const { room, breakouts } = make();
  const code = (promise: Promise<unknown>) =>
    promise.then(
      () => 'done',
      (error: unknown) => (error instanceof PlenumError ? error.code : String(error)),
    );
  assert.equal(await code(breakouts.raiseHand(true)), 'NotConnected');
  await room.enters();
  const refused = breakouts.removeRoom('red').catch((error: unknown) => error as PlenumError);
  await settle();
  const error = { code: 'RoomForeign', cause: 'not made here', remedy: 'delete it', detail: 'red' };
  await room.says({ re: room.asked('removeRoom')[0]?.id, ok: false, error });
  const got = (await refused) as PlenumError;
  assert.deepEqual([got.code, got.cause, got.remedy, got.detail], Object.values(error));
  assert.equal(got.message, 'RoomForeign: not made here (red). Remedy: delete it.');

  const silent = code(breakouts.extend(60));
  await settle();
  mock.timers.tick(14_999);
  await room.says({ re: 999, ok: true });
  const garbled = code(breakouts.extend(60));
  await settle();
  await room.says({ re: room.asked('extend').at(-1)?.id, ok: 'yes' });
  assert.equal(await garbled, 'AnswerMalformed');
  mock.timers.tick(1);
  assert.equal(await silent, 'NoAnswer');
  assert.equal(room.asked('extend').length, 2, 'nothing is repeated');

  room.failing = new Error('could not establish publisher connection');
  assert.equal(await code(breakouts.extend(60)), 'NotConnected');
  room.failing = null;
  const lost = code(breakouts.extend(60));
  await settle();
  room.state = 'disconnected';
  room.emit('disconnected');
  assert.equal(await lost, 'NotConnected');
});

test('hosts silence others and take their tracks down', async () => {
  const { room, breakouts } = make();
  await room.enters({ me: { identity: 'ann', role: 'host' } });
  const asked: [Promise<void>, object][] = [
    [breakouts.mute('bob', 'TR_1'), { do: 'mute', identity: 'bob', track: 'TR_1', on: true }],
    [breakouts.mute('bob', undefined, false), { do: 'mute', identity: 'bob', on: false }],
    [breakouts.unpublish('bob', 'TR_2'), { do: 'unpublish', identity: 'bob', track: 'TR_2' }],
    [breakouts.unpublish('bob'), { do: 'unpublish', identity: 'bob' }],
  ];
  await settle();
  const requests = room.sent.filter((request) => ['mute', 'unpublish'].includes(request.do));
  assert.deepEqual(
    requests,
    asked.map(([, request], index) => ({ id: requests[index]?.id, ...request })),
  );
  for (const { id } of requests) await room.says({ re: id, ok: true });
  await Promise.all(asked.map(([done]) => done));
});

test('a server that does not answer is no Plenum, which is told once', async () => {
  const { room, of } = make();
  room.state = 'connected';
  room.emit('connected');
  for (let i = 0; i < 12; i += 1) {
    await settle();
    mock.timers.tick(10_000);
  }
  await settle();
  assert.equal(room.asked('hello').length, 3);
  assert.equal(of('unavailable').length, 1);
});

test('what others send on the topic, and what is garbled, is ignored', async () => {
  const { room, told, breakouts } = make();
  await room.enters();
  told.length = 0;
  await room.says({ notice: 'role', role: 'host' }, 'plenum.v1', { identity: 'mallory' });
  await room.says({ notice: 'role', role: 'host' }, 'other');
  for (const garbage of ['{', 'null', '7', '[]', '{"signal":"raise-hand"}', '{"notice":"?"}', '{"re":"1"}']) {
    await room.says(garbage);
  }
  assert.deepEqual([told, breakouts.isHost], [[], false]);
});

test('the overview is asked for again after a reconnect', async () => {
  const { room, breakouts, of } = make();
  const me = { ...STATE.me, role: 'host' as const };
  await room.enters({ me });
  void breakouts.watchOverview(true);
  await settle();
  await room.says({ notice: 'overview', rooms: [{ id: '', title: 'Main', open: true, participants: [] }] });
  assert.equal(of('overview').length, 1);
  room.emit('reconnected');
  await settle();
  await room.answers('hello', { ...STATE, me });
  assert.equal(room.asked('overview').length, 2);
});

test('who asks for help knows it, though only hosts are told', async () => {
  const { room, breakouts } = make();
  await room.enters();
  for (const on of [true, true, false]) {
    const asked = breakouts.askForHelp(on);
    await settle();
    await room.answers('askForHelp');
    await asked;
    assert.deepEqual(
      breakouts.state.help.map((who) => who.identity),
      on ? ['ann'] : [],
    );
  }
});

test('settings hold once they are written down', async () => {
  const { room, breakouts } = make();
  await room.enters();
  const set = breakouts.settings({ allowReturnToMain: false });
  await settle();
  assert.equal(breakouts.state.allowReturnToMain, true);
  await room.answers('settings');
  await set;
  assert.deepEqual([breakouts.state.allowReturnToMain, breakouts.state.allowCancel], [false, true]);
});

test('assignments by CSV make the rooms that are missing and fill those that exist', async () => {
  const { room, breakouts } = make();
  await room.enters();
  await assert.rejects(breakouts.applyAssignments('ann\n'), (error: PlenumError) => {
    assert.match(error.detail, /line 1/);
    return error.code === 'CsvInvalid';
  });
  await assert.rejects(breakouts.applyAssignments(''), { code: 'CsvInvalid' });
  const applied = breakouts.applyAssignments('ann,Red room\nbob,Green\ncid,Green\ndora,\n');
  await settle();
  assert.deepEqual(room.asked('createRooms').at(-1), {
    id: 2,
    do: 'createRooms',
    rooms: [{ title: 'Green', participants: ['bob', 'cid'] }],
  });
  await room.answers('createRooms', { rooms: ['room-3'] });
  assert.deepEqual(room.asked('assign').at(-1), {
    id: 3,
    do: 'assign',
    moves: [{ identity: 'ann', room: 'red' }, { identity: 'dora' }],
  });
  await room.answers('assign');
  assert.deepEqual(await applied, { assigned: 4, created: 1 });
});

test('whoever stops listening hears no more, and a callback that throws hurts nobody', async () => {
  const { room, breakouts } = make();
  const problems = mock.method(console, 'error', () => undefined);
  let heard = 0;
  const off = breakouts.on('broadcast', () => {
    heard += 1;
    throw new Error('mine');
  });
  let other = 0;
  breakouts.on('broadcast', () => (other += 1));
  await room.enters();
  await room.says(speech(11));
  off();
  await room.says(speech(12));
  assert.deepEqual([heard, other, problems.mock.callCount()], [1, 2, 1]);
  breakouts.close();
  assert.equal(room.listenerCount('dataReceived'), 0);
});
