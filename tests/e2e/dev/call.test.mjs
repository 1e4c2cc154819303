// Calls on a single server: `plenum-worker dev`, or any server named by PLENUM_E2E_URL.

import { randomUUID } from 'node:crypto';
import { callCases } from '../lib/call-cases.mjs';
import { devTarget } from '../lib/dev-target.mjs';

callCases({ open: devTarget, room: async () => `room-${randomUUID()}` });
