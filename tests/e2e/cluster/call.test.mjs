// Calls through the gateway on a real cluster.

import { callCases } from '../lib/call-cases.mjs';
import { clusterTarget } from '../lib/cluster-target.mjs';

callCases({
  open: clusterTarget,
  room: (target) => target.room(),
  closeRoom: (target, room) => target.closeRoom(room),
});
