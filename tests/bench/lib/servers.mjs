// The servers that can be measured, each on ports of its own on one address.

import { freePort, start } from '../../e2e/lib/net.mjs';
import { sum } from '../../e2e/lib/metrics.mjs';
import { mint } from '../../e2e/lib/tokens.mjs';
import { waitFor } from '../../e2e/lib/wait.mjs';

/** What `plenum-worker dev` signs with by default; the other server is told the same. */
const KEYS = { apiKey: 'devkey', apiSecret: 'devsecret-devsecret-devsecret-0000' };

async function listening({ name, command, args, http, health, sent }) {
  const server = start(command, args);
  try {
    await waitFor(() => !server.running() || fetch(http + health).then((answer) => answer.ok), {
      what: `${name} listens`,
      diagnose: async () => server.log(),
    });
    if (!server.running()) throw new Error(`${name} ended at once:\n${server.log()}`);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return {
    name,
    pid: server.pid,
    log: () => server.log(),
    stop: () => server.stop(),
    sent,
    invite: async (room, identity) => ({
      url: http.replace(/^http/, 'ws'),
      token: await mint(KEYS, { room, identity }),
    }),
  };
}

const LOOPBACK = '127.0.0.1';

/**
 * @param {string} command
 * @param {string} address Where clients reach it.
 */
export async function plenum(command, address = LOOPBACK) {
  const [port, media] = [await freePort(), await freePort()];
  const http = `http://${address}:${port}`;
  return listening({
    name: 'plenum',
    command,
    args: [
      'dev',
      `--listen=${address}:${port}`,
      `--media-listen=${address}:${media}`,
      `--advertise=${address}:${media}`,
    ],
    http,
    health: '/healthz',
    /** RTP packets sent so far. The server brings the number up to date every few seconds. */
    sent: async () =>
      sum(await (await fetch(`${http}/metrics`)).text(), 'plenum_worker_rtp_packets_total', {
        direction: 'out',
      }) ?? 0,
  });
}

/**
 * @param {string} command
 * @param {string} address Where clients reach it.
 */
export async function livekit(command, address = LOOPBACK) {
  const [port, udp, tcp] = [await freePort(), await freePort(), await freePort()];
  // --dev would log every detail, which is work that the other server does not do.
  const config = {
    port,
    rtc: { udp_port: udp, tcp_port: tcp, enable_loopback_candidate: address === LOOPBACK },
    logging: { level: 'info' },
  };
  return listening({
    name: 'livekit',
    command,
    args: [
      '--dev',
      `--bind=${address}`,
      `--node-ip=${address}`,
      `--keys=${KEYS.apiKey}: ${KEYS.apiSecret}`,
      // JSON is YAML.
      `--config-body=${JSON.stringify(config)}`,
    ],
    http: `http://${address}:${port}`,
    health: '/',
  });
}
