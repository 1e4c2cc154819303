// Refusals of a single server.

import { randomUUID } from 'node:crypto';
import { devTarget } from '../lib/dev-target.mjs';
import { refusalCases } from '../lib/refusal-cases.mjs';

refusalCases({ open: devTarget, room: async () => `room-${randomUUID()}`, otherRoom: 'another-room' });
