// Chromium with a camera and a microphone that need nobody's permission, and the page it opens.

import { createServer } from 'node:http';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
  // Nobody clicks here, and a call must be heard all the same.
  '--autoplay-policy=no-user-gesture-required',
];

const root = new URL('../', import.meta.url);
const FILES = {
  '/': ['page/index.html', 'text/html'],
  '/harness.js': ['page/harness.js', 'text/javascript'],
  '/livekit-client.umd.js': ['node_modules/livekit-client/dist/livekit-client.umd.js', 'text/javascript'],
};

/** Serves the bare test page on localhost: browsers hand out cameras there without a certificate. */
export async function servePage() {
  const server = createServer((request, response) => {
    const file = FILES[new URL(request.url, 'http://localhost').pathname];
    if (!file) return response.writeHead(404).end();
    readFile(fileURLToPath(new URL(file[0], root))).then(
      (body) => response.writeHead(200, { 'content-type': file[1] }).end(body),
      (error) => response.writeHead(500).end(String(error)),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    url: `http://localhost:${server.address().port}/`,
    close: () => new Promise((resolve) => server.close(resolve).closeAllConnections()),
  };
}

/** @returns {Promise<import('playwright-core').Browser>} */
export function launch() {
  return chromium.launch({
    executablePath: process.env.PLENUM_E2E_CHROMIUM ?? '/usr/bin/chromium',
    headless: true,
    args: FLAGS,
  });
}
