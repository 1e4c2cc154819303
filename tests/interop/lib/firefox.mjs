// Firefox with a camera and a microphone that need nobody's permission, driven over WebDriver BiDi, and
// looking to the tests as the browser of tests/e2e/lib/browser.mjs does.

import puppeteer from 'puppeteer-core';

const PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  // Nobody clicks here, and a call must be heard all the same.
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.autoplay.block-webaudio': false,
  // The server is on this machine.
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  // The codec comes as a download.
  'media.gmp-gmpopenh264.enabled': false,
  'media.gmp-manager.updateEnabled': false,
  'browser.safebrowsing.downloads.enabled': false,
  'app.update.enabled': false,
};

export async function launchFirefox() {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: process.env.PLENUM_E2E_FIREFOX ?? '/usr/bin/firefox-esr',
    headless: true,
    extraPrefsFirefox: PREFERENCES,
  });
  return {
    async newContext() {
      const context = await browser.createBrowserContext();
      return {
        async newPage() {
          const page = await context.newPage();
          page.context = () => context;
          return page;
        },
      };
    },
    close: () => browser.close(),
  };
}
