// Breakout rooms run by kubectl, the same cases.

import { breakoutCases } from '../lib/breakout-cases.mjs';
import { KubectlDriver } from '../lib/breakout-drivers.mjs';

breakoutCases({ way: 'by kubectl', driverOf: (conference) => new KubectlDriver(conference) });
