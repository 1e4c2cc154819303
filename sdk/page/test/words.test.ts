import assert from 'node:assert/strict';
import { test } from 'node:test';
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
