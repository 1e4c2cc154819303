// Clients in processes of their own.

import { fork } from 'node:child_process';
import { LIMIT_MS } from './wait.mjs';

/** Asks a process for one thing after the other, by name, and knows when it is gone. */
export class Child {
  /** @param {string} program Path of a script that answers `{id, what, args}` by `{id, answer}` or `{id, error}`. */
  constructor(program) {
    this.child = fork(program, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    this.waiting = new Map();
    this.next = 0;
    this.said = '';
    this.child.stderr.on('data', (chunk) => (this.said = (this.said + chunk).slice(-4000)));
    this.child.on('message', ({ id, answer, error }) => {
      const waiting = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) waiting?.reject(new Error(error));
      else waiting?.resolve(answer);
    });
    this.exited = new Promise((resolve) => this.child.once('exit', resolve));
    this.exited.then((code) => {
      for (const { reject } of this.waiting.values()) {
        reject(new Error(`a client ended with ${code}: ${this.said}`));
      }
      this.waiting.clear();
    });
  }

  ask(what, args) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.child.send({ id, what, args }, (error) => error && reject(error));
    });
  }

  /** A client ends when its parent lets go of it. */
  async stop() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    if (this.child.connected) this.child.disconnect();
    const stubborn = setTimeout(() => this.child.kill('SIGKILL'), LIMIT_MS);
    await this.exited;
    clearTimeout(stubborn);
  }
}
