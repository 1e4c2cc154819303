// A single server to make calls on: `plenum-worker dev`, or any server named by the environment.

import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { freePort, start } from './net.mjs';
import { mint } from './tokens.mjs';
import { waitFor } from './wait.mjs';

/** What `plenum-worker dev` signs with. Public on purpose: nothing but a laptop listens to it. */
const DEV_KEYS = { apiKey: 'devkey', apiSecret: 'devsecret-devsecret-devsecret-0000' };

function workerBinary() {
  const target = process.env.CARGO_TARGET_DIR ?? join(homedir(), '.cache/plenum/target');
  const candidates = [
    process.env.PLENUM_WORKER_BIN,
    join(target, 'release/plenum-worker'),
    join(target, 'debug/plenum-worker'),
  ];
  const found = candidates.find((path) => path && existsSync(path));
  if (!found) {
    throw new Error('no plenum-worker binary: run `cargo build -p plenum-worker` or set PLENUM_WORKER_BIN');
  }
  return found;
}

const httpOf = (url) => url.replace(/^ws/, 'http');

/**
 * @param {string} [address] Where all clients reach the server; default: on this machine.
 * @returns {Promise<import('./call.mjs').Target & {ours: boolean,
 *   keysOf: (room: string) => Promise<import('./tokens.mjs').Keys>, roomsAreObjects?: boolean, metrics: () => Promise<string>, close: () => Promise<void>}>}
 */
export async function devTarget(address) {
  const given = process.env.PLENUM_E2E_URL;
  if (given) {
    const keys = { apiKey: process.env.PLENUM_E2E_API_KEY, apiSecret: process.env.PLENUM_E2E_API_SECRET };
    return {
      name: given,
      ours: false,
      keysOf: async () => keys,
      invite: async (spec) => ({ url: given, token: await mint(keys, spec) }),
      log: async () => '(the server is not ours)',
      metrics: async () => '',
      close: async () => {},
    };
  }
  const [http, media] = [await freePort(), await freePort()];
  const host = address ?? '127.0.0.1';
  const server = start(workerBinary(), [
    'dev',
    `--listen=${host}:${http}`,
    `--media-listen=${address ?? '0.0.0.0'}:${media}`,
  ]);
  const url = `ws://${host}:${http}`;
  try {
    await waitFor(
      async () => {
        if (!server.running()) return 'gone';
        return (await fetch(`${httpOf(url)}/healthz`)).ok && 'up';
      },
      { what: 'plenum-worker dev listens', diagnose: async () => server.log() },
    ).then((state) => {
      if (state === 'gone') throw new Error(`plenum-worker dev ended at once:\n${server.log()}`);
    });
  } catch (error) {
    await server.stop();
    throw error;
  }
  return {
    name: 'plenum-worker dev',
    ours: true,
    keysOf: async () => DEV_KEYS,
    invite: async (spec) => ({ url, token: await mint(DEV_KEYS, spec) }),
    log: async () => server.log(),
    metrics: async () => (await fetch(`${httpOf(url)}/metrics`)).text(),
    close: () => server.stop(),
  };
}
