// Many people in few processes.

import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const CLIENT = fileURLToPath(new URL('./crowd-client.mjs', import.meta.url));

/** One process of the crowd. */
export class Group {
  constructor() {
    this.child = fork(CLIENT, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    this.waiting = new Map();
    this.next = 0;
    this.said = '';
    this.identities = [];
    this.child.stderr.on('data', (chunk) => (this.said = (this.said + chunk).slice(-4000)));
    this.child.on('message', ({ id, answer, error }) => {
      const waiting = this.waiting.get(id);
      this.waiting.delete(id);
      if (error) waiting?.reject(new Error(error));
      else waiting?.resolve(answer);
    });
    this.exited = new Promise((resolve) => this.child.once('exit', resolve));
    this.exited.then(() => {
      for (const { reject } of this.waiting.values()) reject(new Error(`a group ended: ${this.said}`));
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

  async join(ticket) {
    this.identities.push(ticket.identity);
    await this.ask('join', ticket);
  }

  view() {
    return this.ask('view');
  }

  /** Without a word, as when a laptop's lid is closed. */
  async kill() {
    this.child.kill('SIGKILL');
    await this.exited;
  }

  async stop() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    this.child.disconnect();
    const stubborn = setTimeout(() => this.child.kill('SIGKILL'), 20_000);
    await this.exited;
    clearTimeout(stubborn);
  }
}
