// Breakout rooms run by a host in the page.

import { breakoutCases } from '../lib/breakout-cases.mjs';
import { PageDriver } from '../lib/breakout-drivers.mjs';
import { hostCases } from '../lib/breakout-host-cases.mjs';

breakoutCases({
  way: 'by a host',
  driverOf: (conference, host) => new PageDriver(conference, host),
});
hostCases();
