import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fromCatalogue, ofEnd } from '../src/words.ts';
import { DisconnectReason } from 'livekit-client';

test('every entry of the catalogue becomes words', () => {
  const rows = readFileSync('../../docs/errors.md', 'utf8')
    .split('\n')
    .map((line) => /^\| `(\w+)` \| \d+ \| (.+?) \| (.+?) \|$/.exec(line))
    .filter((match) => match !== null);
  assert.ok(rows.length > 30);
  for (const [, code, cause, remedy] of rows) {
    // As the server says it, and as the client library passes it on.
    for (const before of ['', 'could not establish signal connection: ']) {
      const words = fromCatalogue(`${before}${code}: ${cause} (demo/standup). Remedy: ${remedy}.`);
      assert.equal(words?.code, code);
      assert.ok(words?.title && words.text.includes('demo/standup'));
    }
  }
  assert.equal(fromCatalogue('could not establish signal connection'), null);
});

test('only a leave on purpose has no words', () => {
  assert.equal(ofEnd(DisconnectReason.CLIENT_INITIATED), null);
  for (const reason of [DisconnectReason.PARTICIPANT_REMOVED, DisconnectReason.ROOM_DELETED, undefined]) {
    assert.ok(ofEnd(reason)?.title);
  }
});
