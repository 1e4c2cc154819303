// Clients in processes of their own, so that the server's CPU time is the server's alone.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { LIMIT_MS } from '../../e2e/lib/wait.mjs';

const CLIENT = fileURLToPath(new URL('../client.mjs', import.meta.url));

/** Asks one client process after the other for things, by name, and knows when it is gone. */
export class Client {
  constructor() {
    this.child = fork(CLIENT, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
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
