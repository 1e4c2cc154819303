import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as check from '../src/check.ts';
import { TOPIC } from '../src/protocol.ts';

interface Fixtures {
  topic: string;
  requests: { do: string }[];
  answers: { ok: boolean; re: number; result?: object }[];
  entries: { signal: string }[];
  notices: { notice: string }[];
  states: unknown[];
}

const fixtures = JSON.parse(readFileSync('protocol/fixtures.json', 'utf8')) as Fixtures;

test('every example of the protocol is understood, to its last field', () => {
  assert.equal(fixtures.topic, TOPIC);
  const all: [check.Check<unknown>, unknown[]][] = [
    [check.request, fixtures.requests],
    [check.answer, fixtures.answers],
    [check.entry, fixtures.entries],
    [check.notice, fixtures.notices],
    [check.state, fixtures.states],
  ];
  for (const [shape, examples] of all) {
    assert.ok(examples.length > 0);
    for (const example of examples) assert.equal(shape(example, true), null, JSON.stringify(example));
  }
});

test('results have the shapes that requests expect', () => {
  const shapes = [check.state, check.created, check.session, check.sessions];
  const results = fixtures.answers.flatMap(({ result }) => (result ? [result] : []));
  for (const shape of shapes) assert.ok(results.some((result) => shape(result, true) === null));
});

test('there is no kind without an example', () => {
  const kinds = (list: string[]) => [...new Set(list)].sort();
  assert.deepEqual(kinds(fixtures.requests.map((r) => r.do)), Object.keys(check.COMMANDS).sort());
  assert.deepEqual(kinds(fixtures.entries.map((e) => e.signal)), Object.keys(check.SIGNALS).sort());
  assert.deepEqual(kinds(fixtures.notices.map((n) => n.notice)), Object.keys(check.NOTICES).sort());
});

test('what is of another shape is told apart, and what a newer server adds is not', () => {
  const hand = { seq: 1, at: 2, signal: 'raise-hand', identity: 'ann', name: 'Ann', since: 1, up: true };
  assert.equal(check.entry(hand), null);
  assert.equal(check.entry({ ...hand, mood: 'good' }), null);
  assert.match(check.entry({ ...hand, mood: 'good' }, true) ?? '', /mood/);
  for (const wrong of [
    null,
    [],
    'raise-hand',
    { ...hand, up: 1 },
    { ...hand, seq: 1.5 },
    { ...hand, signal: 'x' },
    { ...hand, signal: 'constructor' },
    { ...hand, identity: undefined },
  ]) {
    assert.notEqual(check.entry(wrong), null, JSON.stringify(wrong));
  }
  const role = { notice: 'role', role: 'moderator' };
  assert.equal(check.notice(role), null);
  assert.notEqual(check.notice(role, true), null);
});
