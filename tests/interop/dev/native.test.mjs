// The native stack on a single server: `plenum-worker dev`, or any server named by PLENUM_E2E_URL.

import { randomUUID } from 'node:crypto';
import { devTarget } from '../../e2e/lib/dev-target.mjs';
import { interopCases } from '../lib/interop-cases.mjs';

interopCases({ open: devTarget, room: async () => `room-${randomUUID()}` });
