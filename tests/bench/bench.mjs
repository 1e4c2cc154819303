// One publisher, many subscribers, and what that costs the server. Started by ./run.

import { setTimeout as pause } from 'node:timers/promises';
import { waitFor } from '../e2e/lib/wait.mjs';
import { Client } from './lib/clients.mjs';
import { cpuSeconds, rssKib } from './lib/proc.mjs';
import { figures, ratios, table } from './lib/report.mjs';
import { livekit, plenum } from './lib/servers.mjs';

const ROOM = 'bench';
const PER_PROCESS = 5;

function positive(name, fallback) {
  const value = Number(process.env[name] ?? fallback);
  if (!Number.isInteger(value) || value < 1) throw new Error(`${name} must be a whole number from 1 on`);
  return value;
}
const SUBSCRIBERS = positive('PLENUM_BENCH_SUBSCRIBERS', 20);
const WINDOW_SECONDS = positive('PLENUM_BENCH_SECONDS', 10);

const say = (text) => console.error(`    ${text}`);

/** Answers the server's count as soon as it has changed: counts come in steps, and a step is a whole one. */
async function nextCount(server) {
  if (!server.sent) return null;
  const before = await server.sent();
  const changed = async () => ((now) => now !== before && { now })(await server.sent());
  return (await waitFor(changed, { what: `${server.name} counts what it sent` })).now;
}

async function measure(server, clients) {
  const publisher = new Client();
  clients.push(publisher);
  await publisher.ask('publish', await server.invite(ROOM, 'publisher'));

  const groups = Array.from({ length: Math.ceil(SUBSCRIBERS / PER_PROCESS) }, () => new Client());
  clients.push(...groups);
  const rssBefore = rssKib(server.pid);
  const cpuBefore = cpuSeconds(server.pid);
  // One after the other, and before there is any media: what is charged is the joins alone.
  for (let i = 0; i < SUBSCRIBERS; i++) {
    await groups[i % groups.length].ask('subscribe', await server.invite(ROOM, `subscriber-${i}`));
  }
  const joinCpu = cpuSeconds(server.pid) - cpuBefore;
  say(`${server.name}: ${SUBSCRIBERS} subscribers joined`);

  await publisher.ask('speak');
  await Promise.all(groups.map((group) => group.ask('receiving')));
  say(`${server.name}: every subscriber receives; measuring`);

  const received = async () => Promise.all(groups.map((group) => group.ask('received')));
  const sample = async () => {
    const sent = await nextCount(server);
    const [at, cpu] = [performance.now(), cpuSeconds(server.pid)];
    const all = await received();
    const of = (what) => all.reduce((total, group) => total + group[what], 0);
    return { at, cpu, sent, packets: of('packets'), lost: of('lost') };
  };
  const first = await sample();
  // A server that counts in steps closes the window with the step that falls due then.
  const early = server.sent ? 1 : 0;
  await pause(Math.max(0, WINDOW_SECONDS - early) * 1000);
  const last = await sample();
  return figures({
    subscribers: SUBSCRIBERS,
    seconds: (last.at - first.at) / 1000,
    cpu: last.cpu - first.cpu,
    sent: last.sent === null ? null : last.sent - first.sent,
    received: last.packets - first.packets,
    lost: last.lost - first.lost,
    rss: rssKib(server.pid),
    rssBefore,
    joinCpu,
  });
}

async function bench(open, command) {
  const server = await open(command);
  const clients = [];
  try {
    return await measure(server, clients);
  } catch (error) {
    throw new Error(`${server.name}: ${error.message}\n${server.log()}`, { cause: error });
  } finally {
    await Promise.all(clients.map((client) => client.stop()));
    await server.stop();
  }
}

// One after the other, so that neither runs beside the other's load.
const servers = { plenum: await bench(plenum, process.env.PLENUM_WORKER_BIN) };
const other = process.env.LIVEKIT_SERVER;
if (other) servers.livekit = await bench(livekit, other);
const ratio = other && ratios(servers.plenum, servers.livekit);
console.log(table(servers, ratio));
console.log(JSON.stringify({ subscribers: SUBSCRIBERS, ...servers, ...(ratio && { ratio }) }));
