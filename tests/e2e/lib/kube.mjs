// kubectl, and what tests ask of it.

import { execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { waitFor } from './wait.mjs';

/** Where the operator runs. */
export const SYSTEM = process.env.PLENUM_NAMESPACE ?? 'plenum-system';
/** Whether the cluster is this machine's own: then its processes can be seen, and killed. */
export const LOCAL = !process.env.KUBECONFIG || process.env.PLENUM_LOCAL_CLUSTER === '1';

const KUBECONFIG =
  process.env.KUBECONFIG ??
  execFileSync(fileURLToPath(new URL('../../cluster/kubeconfig', import.meta.url)), {
    encoding: 'utf8',
  }).trim();
/** A tool beside the kubeconfig, as the local cluster has them, else that on PATH. */
function tool(name) {
  const beside = join(dirname(KUBECONFIG), 'bin', name);
  return existsSync(beside) ? beside : name;
}
const KUBECTL = process.env.KUBECTL ?? tool('kubectl');
const HELM = process.env.HELM ?? tool('helm');
// A cache of its own: what kubectl remembers of another installation's API is no fact about this one.
const CACHE = mkdtempSync(join(tmpdir(), 'plenum-kubectl-'));
process.on('exit', () => rmSync(CACHE, { recursive: true, force: true }));
const ENV = { ...process.env, KUBECONFIG, KUBECACHEDIR: CACHE };

/** A command that answered with an error. */
export class CommandError extends Error {}

function run(command, args, input) {
  return new Promise((resolve, reject) => {
    const child = execFile(
      command,
      args,
      { env: ENV, maxBuffer: 64 << 20, timeout: 120_000 },
      (error, stdout, stderr) => {
        if (!error) resolve(stdout);
        else
          reject(
            new CommandError(`${basename(command)} ${args.join(' ')}: ${stderr.trim() || error.message}`),
          );
      },
    );
    child.stdin.on('error', () => {});
    child.stdin.end(typeof input === 'object' ? JSON.stringify(input) : input);
  });
}

/**
 * Runs kubectl and answers its standard output.
 *
 * @param {string[]} args
 * @param {string | object} [input] Standard input; an object is sent as JSON.
 * @returns {Promise<string>}
 */
export const kubectl = (args, input) => run(KUBECTL, args, input);

/** Runs helm and answers its standard output. */
export const helm = (args) => run(HELM, args);

/** Runs kubectl with `-o json` and answers the object. */
export async function json(...args) {
  return JSON.parse(await kubectl([...args, '-o', 'json']));
}

/** The object, or null where there is none. */
export async function find(kind, name, namespace) {
  const text = await kubectl(['-n', namespace, 'get', kind, name, '-o', 'json', '--ignore-not-found']);
  return text.trim() ? JSON.parse(text) : null;
}

export function apply(...objects) {
  return kubectl(['apply', '--server-side', '--force-conflicts', '-f', '-'], {
    apiVersion: 'v1',
    kind: 'List',
    items: objects,
  });
}

export function remove(kind, name, namespace, ...more) {
  return kubectl(['-n', namespace, 'delete', kind, name, '--ignore-not-found', ...more]);
}

/** The condition of that type, or undefined. */
export function condition(object, type) {
  return object?.status?.conditions?.find((c) => c.type === type);
}

/** Waits until `accept` likes the object. */
export function waitForObject(kind, name, namespace, what, accept) {
  return waitFor(
    async () => {
      const object = await find(kind, name, namespace);
      return (await accept(object)) ? (object ?? true) : null;
    },
    {
      what: `${kind} ${namespace}/${name}: ${what}`,
      stepMs: 250,
      diagnose: () => kubectl(['-n', namespace, 'describe', kind, name]),
    },
  );
}

/** Mints a token through the live API, as an optional other user. */
export async function mintToken(namespace, meeting, spec, ...more) {
  const path = `/apis/live.plenum.dev/v1alpha1/namespaces/${namespace}/meetings/${meeting}/token`;
  const request = { apiVersion: 'live.plenum.dev/v1alpha1', kind: 'TokenRequest', spec };
  return JSON.parse(await kubectl(['create', '--raw', path, '-f', '-', ...more], request));
}

/** Everything that the API server tells of the objects at `path` from now on, in order. */
export function watchRaw(path) {
  const child = spawn(KUBECTL, ['get', '--raw', `${path}${path.includes('?') ? '&' : '?'}watch=1`], {
    env: ENV,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  /** @type {{type: string, object: any}[]} */
  const events = [];
  createInterface({ input: child.stdout }).on('line', (line) => events.push(JSON.parse(line)));
  return {
    events,
    async stop() {
      const gone = new Promise((resolve) => child.once('close', resolve));
      child.kill();
      await gone;
    },
  };
}

/** Metrics of a Pod, through the API server's proxy. */
export function podMetrics(pod, namespace) {
  return kubectl(['get', '--raw', `/api/v1/namespaces/${namespace}/pods/${pod}:9090/proxy/metrics`]);
}

/** Names of the pods of one component. */
export async function pods(component, namespace = SYSTEM) {
  const { items } = await json(
    '-n',
    namespace,
    'get',
    'pods',
    '-l',
    `app.kubernetes.io/component=${component}`,
  );
  return items;
}
