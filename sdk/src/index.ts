// Breakout rooms, hands, help and broadcasts of Plenum, on top of livekit-client.
export { Breakouts } from './breakouts.ts';
export { type Assignments, type CsvProblem, parseAssignments } from './csv.ts';
export { PlenumError } from './error.ts';
export * from './protocol.ts';
export type { Running } from './session.ts';
export type { MeetingState } from './standing.ts';
export type { BreakoutsEvents, BreakoutsOptions, Moved, Moving, Timer } from './told.ts';
