// The chart as it is installed: rights, pod security, refused values, and its own test.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';
import { SYSTEM, helm, kubectl, pods } from '../lib/kube.mjs';

const CHART = fileURLToPath(new URL('../../../charts/plenum', import.meta.url));
const EVERYTHING = [
  'ingress.enabled=true',
  'httpRoute.enabled=true',
  'httpRoute.parentRefs[0].name=gateway',
  'metrics.podMonitor.enabled=true',
  'poolNamespaces={media-a,media-b}',
  'keySecrets[0].namespace=team-a',
  'keySecrets[0].names={meeting-keys}',
];

async function render(...values) {
  const sets = values.flatMap((value) => ['--set', value]);
  const text = await helm(['template', 'plenum', CHART, '-n', SYSTEM, '--kube-version', '1.36', ...sets]);
  return parseAllDocuments(text).map((d) => d.toJS());
}

describe('the chart', () => {
  test('grants no wildcard, no way to more rights, and no Secret but in the namespaces of pools', async () => {
    const objects = await render(...EVERYTHING);
    const roles = objects.filter((o) => /Role$/.test(o?.kind));
    assert.ok(roles.length > 5);
    for (const { kind, metadata, rules } of roles) {
      for (const rule of rules) {
        const told = `${kind} ${metadata.name}: ${JSON.stringify(rule)}`;
        const words = [...rule.apiGroups, ...rule.resources, ...rule.verbs];
        assert.ok(!words.some((word) => word.includes('*')), told);
        assert.ok(!rule.verbs.some((verb) => /escalate|bind|impersonate/.test(verb)), told);
        if (rule.resources.includes('secrets')) {
          assert.equal(kind, 'Role', told);
          assert.ok(rule.resourceNames || !rule.verbs.includes('list'), told);
        }
        assert.ok(!rule.resources.some((r) => /pods\/exec|serviceaccounts|roles|webhook/.test(r)), told);
      }
    }
    assert.ok(objects.some((o) => o?.kind === 'NetworkPolicy' && o.metadata.namespace === 'media-b'));
    assert.ok(objects.some((o) => o?.kind === 'PodDisruptionBudget'));
  });

  test('refuses values that it does not know', async () => {
    const refused = {
      'gateway.publicUrl=https://x': /publicUrl/,
      'gateway.publicURL=meet.example.org': /publicURL/,
      'gateway.replicas=two': /replicas/,
      'defaultPool.exposure.type=Magic': /exposure\/type/,
      'defaultPool.buffer.minFreeSlots=0': /minFreeSlots/,
      'images.operator.tag=a b': /tag/,
    };
    for (const [value, words] of Object.entries(refused)) await assert.rejects(render(value), words, value);
    const both = ['defaultPool.buffer.minFreeSlots=3', 'defaultPool.buffer.max=4'];
    await assert.rejects(render(...both), /exactly one of replicas and buffer/);
  });

  test('runs under Pod Security restricted, workers without an API token', async () => {
    const namespace = JSON.parse(await kubectl(['get', 'namespace', SYSTEM, '-o', 'json']));
    assert.equal(namespace.metadata.labels['pod-security.kubernetes.io/enforce'], 'restricted');
    for (const component of ['controller', 'gateway', 'worker']) {
      const running = await pods(component);
      assert.ok(running.length > 0, component);
      for (const { metadata, spec } of running) {
        const [container] = spec.containers;
        assert.equal(container.securityContext.readOnlyRootFilesystem, true, metadata.name);
        if (component !== 'worker') continue;
        assert.ok(!spec.volumes.some((v) => v.projected), `${metadata.name} has an API token`);
        const account = `system:serviceaccount:${SYSTEM}:${spec.serviceAccountName ?? 'default'}`;
        for (const may of [
          ['list', 'secrets'],
          ['get', 'pods'],
          ['list', 'meetings.plenum.dev'],
        ]) {
          const answer = await kubectl(['-n', SYSTEM, 'auth', 'can-i', ...may, `--as=${account}`]).catch(
            () => 'no',
          );
          assert.match(answer, /^no/, `${account} may ${may.join(' ')}`);
        }
      }
    }
  });

  test('helm test makes a real join', async () => {
    const release = process.env.PLENUM_RELEASE ?? 'plenum';
    assert.match(await helm(['test', release, '-n', SYSTEM, '--timeout', '120s']), /Phase:\s+Succeeded/);
  });
});
