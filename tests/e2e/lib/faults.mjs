// Faults of the installation itself.

import { readFileSync, readdirSync } from 'node:fs';
import { LOCAL, SYSTEM, condition, pods, remove } from './kube.mjs';
import { waitFor } from './wait.mjs';

/** How each component is started: its process's first argument. */
const SUBCOMMAND = { controller: 'controller', gateway: 'gateway', worker: 'serve' };

/** Processes of a Pod that run `word` as their subcommand: on this machine they can be seen. */
function processesOf(uid, word) {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        const cgroups = readFileSync(`/proc/${pid}/cgroup`, 'utf8').replaceAll('_', '-');
        return cgroups.includes(uid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[1] === word;
      } catch {
        return false; // It ended meanwhile.
      }
    })
    .map(Number);
}

/** SIGKILL for one Pod's process; where it cannot be seen, the Pod goes at once. */
export async function killPod({ metadata }, component) {
  const processes = LOCAL ? processesOf(metadata.uid, SUBCOMMAND[component]) : [];
  if (processes.length > 0) processes.forEach((pid) => process.kill(pid, 'SIGKILL'));
  else await remove('pod', metadata.name, metadata.namespace, '--force', '--grace-period=0');
}

/** SIGKILL for every process of a component; answers the pods that had one. */
export async function killAll(component) {
  const victims = await pods(component);
  for (const pod of victims) await killPod(pod, component);
  return victims;
}

/** Waits until a component's pods are new, or began anew, and are Ready. */
export function waitBack(component, victims, diagnose) {
  const restarts = (list) =>
    list.reduce((n, p) => n + (p.status.containerStatuses?.[0]?.restartCount ?? 0), 0);
  return waitFor(
    async () => {
      const now = await pods(component, SYSTEM);
      const replaced = now.some((pod) => !victims.some((old) => old.metadata.uid === pod.metadata.uid));
      return (
        (replaced || restarts(now) > restarts(victims)) &&
        now.every((p) => condition(p, 'Ready')?.status === 'True')
      );
    },
    { what: `the ${component}s are back`, diagnose, limitMs: 120_000 },
  );
}
