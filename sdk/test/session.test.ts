import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { Breakouts } from '../src/breakouts.ts';
import { FakeRoom, settle } from './fake.ts';

beforeEach(() => {
  FakeRoom.made = [];
  FakeRoom.refusing = null;
});

async function host() {
  const room = new FakeRoom();
  const breakouts = new Breakouts(room.asRoom);
  await room.enters();
  return { room, breakouts };
}

class Publication {
  subscribed = false;
  constructor(readonly kind: string) {}
  setSubscribed(on: boolean) {
    this.subscribed = on;
  }
}

class Track {
  stopped = false;
  readonly clones: Track[] = [];
  clone() {
    const copy = new Track();
    this.clones.push(copy);
    return copy;
  }
  stop() {
    this.stopped = true;
  }
}

test('who listens hears a room and sees nothing, until it is stopped', async () => {
  const { room, breakouts } = await host();
  const listening = breakouts.listen('red');
  await settle();
  await room.answers('listen', { token: 'T', url: 'wss://there' });
  const running = await listening;
  const other = FakeRoom.made[1];
  assert.ok(other);
  assert.equal(running.rooms[0], other);
  assert.deepEqual(other.connected, ['wss://there', 'T', { autoSubscribe: false }]);

  const [sound, picture, later] = ['audio', 'video', 'audio'].map((kind) => new Publication(kind));
  assert.ok(sound && picture && later);
  const trackPublications = new Map([
    ['1', sound],
    ['2', picture],
  ]);
  other.emit('participantConnected', { trackPublications });
  other.emit('trackPublished', later);
  assert.deepEqual([sound.subscribed, picture.subscribed, later.subscribed], [true, false, true]);

  const removed: string[] = [];
  const element = { remove: () => removed.push('element') };
  other.emit('trackSubscribed', { attach: () => element, detach: () => [element] });
  let ended = 0;
  running.onEnd = () => (ended += 1);
  await running.stop();
  await running.stop();
  assert.deepEqual([other.state, removed, ended], ['disconnected', ['element'], 0]);
});

test('another address than the named one can be listened at', async () => {
  const { room, breakouts } = await host();
  const listening = breakouts.listen('red', { url: 'http://here' });
  await settle();
  await room.answers('listen', { token: 'T', url: 'wss://there' });
  await (await listening).stop();
  assert.deepEqual(FakeRoom.made[1]?.connected.slice(0, 2), ['http://here', 'T']);
});

test('a room that closes ends listening', async () => {
  const { room, breakouts } = await host();
  const listening = breakouts.listen('red');
  await settle();
  await room.answers('listen', { token: 'T', url: 'wss://there' });
  const running = await listening;
  let ended = 0;
  running.onEnd = () => (ended += 1);
  FakeRoom.made[1]?.emit('disconnected');
  assert.equal(ended, 1);
});

test('the open microphone is sent into every worker, and stays when that ends', async () => {
  const { room, breakouts } = await host();
  const microphone = new Track();
  room.localParticipant.getTrackPublication = () => ({ track: { mediaStreamTrack: microphone } });
  const speaking = breakouts.speak();
  await settle();
  const sessions = ['a', 'b'].map((url) => ({ token: url.toUpperCase(), url }));
  await room.answers('speak', { sessions });
  const running = await speaking;
  const others = FakeRoom.made.slice(1);
  assert.deepEqual(
    others.map((other) => other.published.map(({ options }) => options)),
    [[{ source: 'microphone' }], [{ source: 'microphone' }]],
  );
  await running.stop();
  const sent = others.flatMap((other) => other.published.map(({ track }) => track as Track));
  assert.deepEqual(
    sent.map((track) => track.stopped),
    [true, true],
  );
  assert.equal(microphone.stopped, false);
});

test('where one session cannot be opened, none stays open', async () => {
  const { room, breakouts } = await host();
  const listening = breakouts.listen('red');
  await settle();
  FakeRoom.refusing = new Error('no route');
  await Promise.all([
    assert.rejects(listening, { code: 'NotConnected', detail: 'no route' }),
    room.answers('listen', { token: 'T', url: 'wss://there' }),
  ]);
  assert.equal(FakeRoom.made[1]?.state, 'disconnected');
});

test('an answer without a session is told as such', async () => {
  const { room, breakouts } = await host();
  const listening = breakouts.listen('red');
  await settle();
  await Promise.all([assert.rejects(listening, { code: 'AnswerMalformed' }), room.answers('listen', {})]);
});
