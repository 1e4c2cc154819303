// Free ports and child processes, each ended by the one who started it.

import { createServer } from 'node:net';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { spawn } from 'node:child_process';

/** A port that is free for TCP and UDP at this moment. */
export async function freePort() {
  const tcp = createServer().listen(0, '0.0.0.0');
  await once(tcp, 'listening');
  const { port } = tcp.address();
  const udp = createSocket('udp4');
  const bound = await new Promise((resolve) => {
    udp.once('error', () => resolve(false));
    udp.bind(port, '0.0.0.0', () => resolve(true));
  });
  if (bound) await new Promise((resolve) => udp.close(resolve));
  await new Promise((resolve) => tcp.close(resolve));
  return bound ? port : freePort();
}

/** Children that are running: they end with the process that started them, however it ends. */
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.once(signal, () => process.exit(1));

/**
 * A child process with the tail of what it said.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {object} [env]
 */
export function start(command, args, env = {}) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  const lines = [];
  const keep = (chunk) => {
    lines.push(...String(chunk).trimEnd().split('\n'));
    lines.splice(0, Math.max(0, lines.length - 500));
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  child.on('error', (error) => keep(`could not start: ${error.message}`));
  const exited = new Promise((resolve) => {
    child.on('close', (code, signal) => {
      running.delete(child);
      resolve({ code, signal });
    });
  });
  return {
    pid: child.pid,
    log: () => lines.join('\n'),
    running: () => child.exitCode === null && child.signalCode === null && child.pid !== undefined,
    exited,
    async stop(signal = 'SIGTERM') {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
      child.kill(signal);
      const stubborn = setTimeout(() => child.kill('SIGKILL'), 10_000);
      await exited;
      clearTimeout(stubborn);
    },
  };
}
