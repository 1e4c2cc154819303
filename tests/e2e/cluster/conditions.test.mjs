// The life of a Meeting as its status tells it, recorded version by version, and judged as kstatus and
// the chart's Argo CD script would.

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Stage } from '../lib/call.mjs';
import { clusterTarget, meeting, openMeeting, unique, workerPool } from '../lib/cluster-target.mjs';
import { argoHealth, kstatus } from '../lib/health.mjs';
import { SYSTEM, apply, condition, kubectl, remove, waitForObject, watchRaw } from '../lib/kube.mjs';
import { waitFor } from '../lib/wait.mjs';

const RESULTS = new URL('../../results/e2e/', import.meta.url);

const poolObject = (name) =>
  workerPool(name, {
    capacity: { meetings: 1 },
    // A worker with people on it stays until they leave: that shows Draining for as long as one likes.
    drain: { mode: 'Wait', timeout: '1h' },
  });

/** What one version of the object says, and what the judges make of it. */
function judge({ type, object }) {
  const conditions = object.status?.conditions ?? [];
  return {
    type,
    generation: object.metadata.generation,
    observedGeneration: object.status?.observedGeneration,
    conditions: Object.fromEntries(conditions.map((c) => [c.type, `${c.status} ${c.reason}`])),
    assignment: object.status?.assignment ?? null,
    kstatus: kstatus(object),
    argo: argoHealth(object).status,
  };
}

/** Rules that hold for every version, and from each version to the next. */
function checkRecord(versions) {
  const first = versions[0];
  assert.deepEqual(
    [first.kstatus, first.argo],
    ['InProgress', 'Progressing'],
    'a fresh Meeting looks healthy',
  );
  for (const version of versions) {
    const { Ready, Reconciling, Stalled } = version.conditions;
    const told = JSON.stringify(version);
    assert.ok(!(Reconciling && Stalled), `Reconciling and Stalled at once: ${told}`);
    assert.ok(
      !/^False/.test(Reconciling ?? '') && !/^False/.test(Stalled ?? ''),
      `abnormal but False: ${told}`,
    );
    assert.ok((version.observedGeneration ?? -1) <= version.generation, told);
    if (version.kstatus === 'Current') assert.ok(/^True/.test(Ready ?? ''), `current but not Ready: ${told}`);
    if (/^True (Idle|Active)/.test(Ready ?? '')) assert.ok(version.assignment, `ready on no worker: ${told}`);
    if (version.kstatus === 'Failed') assert.equal(version.argo, 'Degraded', told);
    if (version.kstatus === 'Current') assert.match(version.argo, /Healthy|Suspended/, told);
  }
}

/** lastTransitionTime changes with the status of a condition and with nothing else. */
function checkTransitions(objects) {
  const last = new Map();
  for (const object of objects) {
    for (const { type, status, lastTransitionTime } of object.status?.conditions ?? []) {
      const before = last.get(type);
      if (before?.status === status) {
        assert.equal(lastTransitionTime, before.lastTransitionTime, `${type} stayed ${status}`);
      }
      last.set(type, { status, lastTransitionTime });
    }
    // A condition that was dropped begins anew.
    const present = new Set((object.status?.conditions ?? []).map((c) => c.type));
    for (const type of last.keys()) if (!present.has(type)) last.delete(type);
  }
}

test('the conditions of a Meeting through its life', async (t) => {
  const target = await clusterTarget();
  t.after(() => target.close());
  const stage = await Stage.open(target);
  t.after(() => stage.close());
  const { namespace } = target;
  const [life, blocker, poolName] = ['life', 'blocker', unique('pool')];
  const inPool = { workerPoolRef: { name: poolName, namespace: SYSTEM } };
  const watch = watchRaw(
    `/apis/plenum.dev/v1alpha1/namespaces/${namespace}/meetings?fieldSelector=metadata.name%3D${life}`,
  );
  t.after(() => watch.stop());
  const reach = (what, accept) => waitForObject('meeting', life, namespace, what, accept);
  const ready = (reason) => (m) => condition(m, 'Ready')?.reason === reason;
  const edit = (spec) =>
    kubectl(['-n', namespace, 'patch', 'meeting', life, '--type=merge', '-p', JSON.stringify({ spec })]);
  /** Judges of the version that is there now. */
  const verdict = (object) => [kstatus(object), argoHealth(object).status];

  // No pool of that name: somebody must act.
  await apply(meeting(namespace, life, { workerPoolRef: { name: 'missing' } }));
  const missing = await reach('has no pool', ready('PoolNotFound'));
  assert.deepEqual(verdict(missing), ['Failed', 'Degraded']);

  // One of another namespace that does not let it in; whether it exists is none of the Meeting's business.
  await edit({ workerPoolRef: { name: 'missing', namespace: SYSTEM } });
  const foreign = await reach('may not use that pool', ready('NotAllowed'));
  assert.deepEqual(verdict(foreign), ['Failed', 'Degraded']);

  // A pool for one meeting, which another one has taken: it waits, and recovers by itself.
  await apply(poolObject(poolName));
  t.after(() => remove('mediaworkerpool', poolName, SYSTEM, '--wait=false'));
  await openMeeting(namespace, blocker, inPool);
  await edit(inPool);
  const full = await reach('has no place', ready('NoCapacity'));
  assert.deepEqual(verdict(full), ['InProgress', 'Progressing']);
  await remove('meeting', blocker, namespace);
  const idle = await reach('is idle', ready('Idle'));
  assert.deepEqual(verdict(idle), ['Current', 'Healthy']);

  // Somebody comes.
  const alice = await stage.joined('alice', `${namespace}/${life}`);
  const active = await reach('is active', (m) => condition(m, 'Active')?.status === 'True');
  assert.deepEqual(verdict(active), ['Current', 'Healthy']);
  assert.equal(condition(active, 'Ready').reason, 'Active');

  // Its worker is to go, and waits for the call to end; then it may stay after all.
  await kubectl(['-n', SYSTEM, 'scale', 'mediaworkerpool', poolName, '--replicas=0']);
  const draining = await reach('is draining', (m) => condition(m, 'Draining')?.status === 'True');
  assert.equal(condition(draining, 'Ready').status, 'True');
  assert.equal((await alice.view()).state, 'connected');
  await kubectl(['-n', SYSTEM, 'scale', 'mediaworkerpool', poolName, '--replicas=1']);
  await reach('drains no more', (m) => !condition(m, 'Draining'));

  // Closed for now, and open again.
  await alice.leave();
  await edit({ suspend: true });
  const suspended = await reach('is suspended', ready('Suspended'));
  assert.deepEqual(verdict(suspended), ['Current', 'Suspended']);
  await edit({ suspend: false });
  await reach('is idle again', ready('Idle'));

  await kubectl(['-n', namespace, 'delete', 'meeting', life, '--timeout=60s']);
  await waitFor(() => watch.events.some((e) => e.type === 'DELETED'), {
    what: 'the watch tells of the deletion',
  });

  const record = watch.events.map(judge);
  await mkdir(RESULTS, { recursive: true });
  await writeFile(new URL('conditions.json', RESULTS), JSON.stringify(record, null, 1));
  checkRecord(record);
  checkTransitions(watch.events.map((e) => e.object));
  assert.ok(
    record.some((v) => v.kstatus === 'Terminating' && v.argo === 'Progressing'),
    'never seen as being deleted',
  );
  t.diagnostic(`${record.length} versions`);

  // The faults are told as Events too.
  const events = JSON.parse(
    await kubectl([
      '-n',
      namespace,
      'get',
      'events.events.k8s.io',
      '-o',
      'json',
      `--field-selector=regarding.name=${life}`,
    ]),
  );
  const reasons = new Set(events.items.filter((e) => e.type === 'Warning').map((e) => e.reason));
  for (const reason of ['PoolNotFound', 'NotAllowed', 'NoCapacity'])
    assert.ok(reasons.has(reason), [...reasons].join());
});
