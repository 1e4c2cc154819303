// Meetings on a real cluster to make calls on, reached through the gateway as people reach it.

import { randomUUID } from 'node:crypto';
import {
  SYSTEM,
  apply,
  condition,
  find,
  json,
  kubectl,
  mintToken,
  podMetrics,
  pods,
  remove,
  waitForObject,
} from './kube.mjs';
import { mint } from './tokens.mjs';

/** A name that no other run uses. */
export const unique = (name) => `${name}-${randomUUID().slice(0, 8)}`;

/** A Meeting as JSON. */
export const meeting = (namespace, name, spec = {}) => ({
  apiVersion: 'plenum.dev/v1alpha1',
  kind: 'Meeting',
  metadata: { name, namespace },
  spec,
});

/** A MediaWorkerPool of its own as JSON, for the Meetings that name it. */
export const workerPool = (name, spec) => ({
  apiVersion: 'plenum.dev/v1alpha1',
  kind: 'MediaWorkerPool',
  metadata: { name, namespace: SYSTEM },
  spec: { replicas: 1, allowedMeetings: { namespaces: 'All' }, ...spec },
});

/** Applies a Meeting and waits until a worker holds it. */
export async function openMeeting(namespace, name, spec) {
  await apply(meeting(namespace, name, spec));
  return waitForObject(
    'meeting',
    name,
    namespace,
    'is Ready',
    (m) => condition(m, 'Ready')?.status === 'True',
  );
}

/** The installation's own API key, as people with access to the Secret have it. */
export async function installationKeys() {
  const { data } = await json('-n', SYSTEM, 'get', 'secret', process.env.PLENUM_KEYS_SECRET ?? 'plenum-keys');
  const text = (key) => Buffer.from(data[key], 'base64').toString();
  return { apiKey: text('apiKey'), apiSecret: text('apiSecret') };
}

/** A namespace of its own, gone at the end with all that is in it. */
export async function clusterTarget() {
  const namespace = unique('e2e');
  await kubectl(['create', 'namespace', namespace]);
  const addresses = new Map();
  let keys;

  async function urlOf(room) {
    if (!addresses.has(room)) {
      const [ns, name] = room.split('/');
      addresses.set(room, (await find('meeting', name, ns)).status.signalURL);
    }
    return addresses.get(room);
  }

  return {
    name: 'the cluster',
    ours: true,
    roomsAreObjects: true,
    namespace,
    keysOf: async () => (keys ??= await installationKeys()),

    /** What RBAC gives where it can say what is asked for; the API key for the rest. */
    async invite({ identity, room, role = 'participant', ...rest }) {
      if (Object.keys(rest).length > 0) {
        return {
          url: await urlOf(room),
          token: await mint(await this.keysOf(), { identity, room, ...rest }),
        };
      }
      const [ns, name] = room.split('/');
      const { status } = await mintToken(ns, name, { identity, role, ttlSeconds: 600 });
      return { url: status.url, token: status.token };
    },

    /** A Meeting of its own, Ready: answers the room's name. */
    async room(spec) {
      const name = unique('call');
      await openMeeting(namespace, name, spec);
      return `${namespace}/${name}`;
    },

    closeRoom: (room) => remove('meeting', room.split('/')[1], namespace, '--wait=false'),

    async workerOf(room) {
      const [ns, name] = room.split('/');
      return (await find('meeting', name, ns)).status.assignment;
    },

    async metrics(room) {
      const { worker, workerNamespace } = await this.workerOf(room);
      return podMetrics(worker, workerNamespace);
    },

    async log() {
      const tails = [];
      for (const component of ['worker', 'gateway', 'controller']) {
        for (const pod of await pods(component)) {
          const { name } = pod.metadata;
          const tail = await kubectl(['-n', SYSTEM, 'logs', name, '--tail=30']).catch((e) => e.message);
          tails.push(`--- ${name}`, tail.trimEnd());
        }
      }
      const events = await kubectl(['-n', namespace, 'get', 'events', '--sort-by=.lastTimestamp']).catch(
        () => '',
      );
      return [...tails, '--- events', events].join('\n');
    },

    async close() {
      await kubectl(['-n', namespace, 'delete', 'meetings,breakoutrooms', '--all', '--wait=false']).catch(
        () => {},
      );
      await kubectl(['delete', 'namespace', namespace, '--wait=false']);
    },
  };
}
