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
  '/e2ee-worker.mjs': ['node_modules/livekit-client/dist/livekit-client.e2ee.worker.mjs', 'text/javascript'],
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

export const CHROMIUM = process.env.PLENUM_E2E_CHROMIUM ?? '/usr/bin/chromium';

/**
 * @param {string} executablePath
 * @param {string[]} flags More of them.
 * @returns {Promise<import('playwright-core').Browser>}
 */
export function launch(executablePath = CHROMIUM, flags = []) {
  return chromium.launch({ executablePath, headless: true, args: [...FLAGS, ...flags] });
}

/**
 * A browser that does not share this process's loopback address: what its pages ask of the test page's server
 * is answered from here, without a network.
 *
 * @param {string} executablePath
 * @param {string[]} flags
 */
export async function launchApart(executablePath, flags = []) {
  const browser = await launch(executablePath, flags);
  const newContext = browser.newContext.bind(browser);
  browser.newContext = async (...options) => {
    const context = await newContext(...options);
    await context.route(/^http:\/\/localhost[:/]/, (route) => {
      const file = FILES[new URL(route.request().url()).pathname];
      if (!file) return route.fulfill({ status: 404 });
      return route.fulfill({ path: fileURLToPath(new URL(file[0], root)), contentType: file[1] });
    });
    return context;
  };
  return browser;
}
