// Clients in processes of their own, so that the server's CPU time is the server's alone.

import { fileURLToPath } from 'node:url';
import { Child } from '../../e2e/lib/child.mjs';

const CLIENT = fileURLToPath(new URL('../client.mjs', import.meta.url));

/** A client process. */
export class Client extends Child {
  constructor() {
    super(CLIENT);
  }
}
