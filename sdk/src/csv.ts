// Pre-assignment by CSV: who goes to which room, one per line.
import { LIMITS } from './protocol.ts';

export interface CsvProblem {
  /** Counted from 1. */
  line: number;
  text: string;
}

export interface Assignments {
  /** Who goes to the room of which title; `room` is `""` for the main room. */
  placements: { identity: string; room: string }[];
  /** The titles, in the order in which they first appear. */
  rooms: string[];
  problems: CsvProblem[];
}

/**
 * Reads lines of `identity,room`. The room is a title; left empty it is the main room. Fields may be
 * quoted (`"Doe, Jane"`, `""` for a quote), separated by comma, semicolon or tab (as spreadsheets copy
 * them), and a first line `identity,room` is a heading.
 */
export function parseAssignments(csv: string): Assignments {
  const result: Assignments = { placements: [], rooms: [], problems: [] };
  const seen = new Map<string, number>();
  const problem = (line: number, text: string) => result.problems.push({ line, text });
  let first = true;
  for (const { line, fields, broken } of records(csv.replace(/^\uFEFF/, ''))) {
    const heading = first;
    first = false;
    if (broken) {
      problem(line, broken);
      continue;
    }
    const [identity = '', room = ''] = fields;
    if (heading && identity.toLowerCase() === 'identity' && room.toLowerCase() === 'room') continue;
    const before = seen.get(identity);
    if (fields.length !== 2) problem(line, `expected identity,room but found ${count(fields.length)}`);
    else if (!identity) problem(line, 'the identity is missing');
    else if (before !== undefined) problem(line, `${identity} is in line ${before} already`);
    else if ([...room].length > LIMITS.title) {
      problem(line, `the room's title has more than ${LIMITS.title} characters`);
    } else {
      seen.set(identity, line);
      result.placements.push({ identity, room });
      if (room && !result.rooms.includes(room)) result.rooms.push(room);
      if (result.rooms.length === LIMITS.rooms + 1 && result.rooms.at(-1) === room) {
        problem(line, `a meeting has at most ${LIMITS.rooms} rooms`);
      }
    }
  }
  return result;
}

function count(fields: number): string {
  return fields === 1 ? '1 field' : `${fields} fields`;
}

interface Record {
  line: number;
  fields: string[];
  broken?: string;
}

/** The lines that are not empty, in fields. Quoted fields may span lines. */
function* records(csv: string): Generator<Record> {
  const separator = /[,;\t]/.exec(csv.replace(/"(?:[^"]|"")*"/g, ''))?.[0] ?? ',';
  let line = 1;
  let at = 0;
  while (at < csv.length) {
    const record: Record = { line, fields: [] };
    let ended = false;
    while (!ended) {
      while (csv[at] === ' ') at += 1;
      let field = '';
      if (csv[at] === '"') {
        const close = closing(csv, at + 1);
        if (close < 0) {
          yield { ...record, broken: 'a quote is not closed' };
          return;
        }
        field = csv
          .slice(at + 1, close)
          .replaceAll('""', '"')
          .trim();
        line += field.split('\n').length - 1;
        at = close + 1;
        while (csv[at] === ' ') at += 1;
      }
      const start = at;
      while (at < csv.length && csv[at] !== separator && csv[at] !== '\n' && csv[at] !== '\r') at += 1;
      const rest = csv.slice(start, at).trim();
      if (field && rest) record.broken = 'there is text after a closing quote';
      record.fields.push(field || rest);
      ended = csv[at] !== separator;
      if (!ended) at += 1;
    }
    if (csv.startsWith('\r\n', at)) at += 2;
    else at += 1;
    if (record.broken || record.fields.some((field) => field)) yield record;
    line += 1;
  }
}

function closing(csv: string, from: number): number {
  for (let at = csv.indexOf('"', from); at >= 0; at = csv.indexOf('"', at + 2)) {
    if (csv[at + 1] !== '"') return at;
  }
  return -1;
}
