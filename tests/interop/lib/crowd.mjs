// Many people in few processes.

import { fileURLToPath } from 'node:url';
import { Child } from '../../e2e/lib/child.mjs';

const CLIENT = fileURLToPath(new URL('./crowd-client.mjs', import.meta.url));

/** One process of the crowd. */
export class Group extends Child {
  constructor() {
    super(CLIENT);
    this.identities = [];
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
}
