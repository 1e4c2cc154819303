// Requests under way and their answers.
import { answer as answerShape, as } from './check.ts';
import { notConnected, PlenumError } from './error.ts';
import type { Command } from './protocol.ts';

/** How long an answer is waited for. */
export const PATIENCE_MS = 15_000;

interface Waiting {
  resolve(result: unknown): void;
  reject(error: PlenumError): void;
  timer: ReturnType<typeof setTimeout>;
}

/** Sends requests, each with a number of its own, and settles them once. Repeats nothing. */
export class Requests {
  private readonly waiting = new Map<number, Waiting>();
  private next = 1;

  constructor(private readonly send: (bytes: Uint8Array) => Promise<void>) {}

  /** Resolves with the result of the answer. */
  ask(command: Command, patience = PATIENCE_MS): Promise<unknown> {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.settle(id)?.reject(
          new PlenumError({
            code: 'NoAnswer',
            cause: `the server did not answer within ${patience / 1000} seconds`,
            remedy: 'see whether it was done before asking again; the connection may have been lost',
            detail: command.do,
          }),
        );
      }, patience);
      this.waiting.set(id, { resolve, reject, timer });
      const bytes = new TextEncoder().encode(JSON.stringify({ id, ...command }));
      // Sending waits for the data channel to open, which an answer cannot outrun.
      this.send(bytes).catch((error: unknown) => {
        this.settle(id)?.reject(notConnected(error instanceof Error ? error.message : String(error)));
      });
    });
  }

  /** An answer arrived. */
  answered(message: unknown): void {
    const re: unknown = (message as { re?: unknown }).re;
    const waiting = typeof re === 'number' ? this.settle(re) : undefined;
    if (!waiting) return;
    const answer = as(answerShape, message);
    if (answer?.ok) waiting.resolve(answer.result);
    else if (answer?.error) waiting.reject(new PlenumError(answer.error));
    else waiting.reject(malformed(JSON.stringify(message)));
  }

  /** No answer will come any more. */
  abandon(detail: string): void {
    for (const id of [...this.waiting.keys()]) this.settle(id)?.reject(notConnected(detail));
  }

  private settle(id: number): Waiting | undefined {
    const waiting = this.waiting.get(id);
    clearTimeout(waiting?.timer);
    this.waiting.delete(id);
    return waiting;
  }
}

export function malformed(detail: string): PlenumError {
  return new PlenumError({
    code: 'AnswerMalformed',
    cause: 'the server answered what this library does not understand',
    remedy: 'use a library of the same release as the server',
    detail: detail.slice(0, 200),
  });
}
