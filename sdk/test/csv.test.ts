import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAssignments } from '../src/csv.ts';

test('people and rooms are read, in order', () => {
  assert.deepEqual(parseAssignments('ann,Red\nbob,Blue\ncid,Red\ndora,\n'), {
    placements: [
      { identity: 'ann', room: 'Red' },
      { identity: 'bob', room: 'Blue' },
      { identity: 'cid', room: 'Red' },
      { identity: 'dora', room: '' },
    ],
    rooms: ['Red', 'Blue'],
    problems: [],
  });
});

test('what spreadsheets write is read: heading, BOM, CRLF, quotes, other separators', () => {
  const excel = '\uFEFFIdentity,Room\r\n"Doe, Jane" , "The ""red"" room"\r\n\r\n bob ,Blue';
  assert.deepEqual(parseAssignments(excel).placements, [
    { identity: 'Doe, Jane', room: 'The "red" room' },
    { identity: 'bob', room: 'Blue' },
  ]);
  for (const separator of [';', '\t']) {
    const { placements, problems } = parseAssignments(`"a,b"${separator}Red, left\n`);
    assert.deepEqual([placements, problems], [[{ identity: 'a,b', room: 'Red, left' }], []]);
  }
  // Only the first line is a heading.
  assert.equal(parseAssignments('ann,Red\nidentity,room').placements.length, 2);
  assert.deepEqual(parseAssignments(''), { placements: [], rooms: [], problems: [] });
});

test('problems name their line', () => {
  const csv = [
    'identity,room',
    'ann,Red',
    'bob',
    ',Blue',
    'ann,Blue',
    '"x\ny",Red',
    'cid,Red,extra',
    `dora,${'x'.repeat(201)}`,
    '"eve" and,Red',
    '"fay,Red',
  ].join('\n');
  assert.deepEqual(
    parseAssignments(csv).problems.map(({ line, text }) => `${line} ${text}`),
    [
      '3 expected identity,room but found 1 field',
      '4 the identity is missing',
      '5 ann is in line 2 already',
      '8 expected identity,room but found 3 fields',
      "9 the room's title has more than 200 characters",
      '10 there is text after a closing quote',
      '11 a quote is not closed',
    ],
  );
});

test('more rooms than a meeting takes are one problem', () => {
  const csv = Array.from({ length: 205 }, (_, i) => `p${i},Room ${i}`).join('\n');
  assert.deepEqual(parseAssignments(csv).problems, [{ line: 201, text: 'a meeting has at most 200 rooms' }]);
});
