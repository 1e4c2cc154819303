import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PlenumError } from '../../src/index.ts';
import { clockFace } from '../src/places.ts';
import { ofMove, ofRefusal } from '../src/words.ts';
import { readLink, readToken } from '../src/link.ts';

test('links are read and foreign ones refused', () => {
  assert.deepEqual(readLink('/m/demo/standup', '#token=a.b.c'), {
    namespace: 'demo',
    meeting: 'standup',
    token: 'a.b.c',
  });
  assert.equal(readLink('/m/demo/standup/', '')?.token, null);
  for (const path of ['/', '/m/demo', '/m/demo/standup/x', '/m/%E0%A4%A/x'])
    assert.equal(readLink(path, ''), null);
});

test('a token says whom it is for', () => {
  const claims = { sub: 'alice', name: 'Ålice', video: { room: 'demo/standup', canPublish: false } };
  const token = `h.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.s`;
  assert.deepEqual(readToken(token), {
    identity: 'alice',
    name: 'Ålice',
    room: 'demo/standup',
    canPublish: false,
  });
  assert.equal(readToken('garbage'), null);
});

test('remaining time is read as on a clock', () => {
  assert.deepEqual([0, 9, 60, 245, 3600, 36_061].map(clockFace), [
    '0:00',
    '0:09',
    '1:00',
    '4:05',
    '1:00:00',
    '10:01:01',
  ]);
});

test('moves and requests that fail say so, and where one is', () => {
  assert.equal(ofMove('MeetingFull', 'Red room'), 'That room is full. You are in Red room.');
  assert.match(ofMove('SomethingNew', 'the main room'), /SomethingNew.*You are in the main room/);
  const failure = { code: 'RoomClosed', cause: 'the room is closed', remedy: 'ask a host' };
  assert.equal(ofRefusal(new PlenumError(failure)), 'The room is closed. Ask a host.');
  assert.match(ofRefusal(new PlenumError({ ...failure, detail: 'red' })), /closed \(red\)\./);
  assert.equal(ofRefusal(new Error('odd')), 'odd');
});
