import type { Failure } from './protocol.ts';

/**
 * Why something was not done: an entry of the server's error catalogue, or one of the library's own
 * codes `NotConnected`, `NoAnswer`, `AnswerMalformed`, `CsvInvalid`.
 */
export class PlenumError extends Error {
  override readonly name = 'PlenumError';
  /** Stable. */
  readonly code: string;
  override readonly cause: string;
  /** What to do about it. */
  readonly remedy: string;
  /** What is particular to this occurrence; may be empty. */
  readonly detail: string;

  constructor(failure: Failure) {
    const detail = failure.detail ?? '';
    super(`${failure.code}: ${failure.cause}${detail && ` (${detail})`}. Remedy: ${failure.remedy}.`);
    this.code = failure.code;
    this.cause = failure.cause;
    this.remedy = failure.remedy;
    this.detail = detail;
  }
}

export function notConnected(detail: string): PlenumError {
  return new PlenumError({
    code: 'NotConnected',
    cause: 'there is no connection to the meeting',
    remedy: 'wait until the room is connected and ask again',
    detail,
  });
}
