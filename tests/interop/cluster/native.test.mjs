// The native stack through the gateway on a real cluster.

import { clusterTarget } from '../../e2e/lib/cluster-target.mjs';
import { interopCases } from '../lib/interop-cases.mjs';

interopCases({
  open: clusterTarget,
  room: (target) => target.room(),
  closeRoom: (target, room) => target.closeRoom(room),
});
