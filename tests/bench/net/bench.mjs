// The same call through bad networks, server by server. Started by ../run-net, in namespaces of its own.

import { loadavg } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { BadLink, NEAR } from '../../e2e/lib/bad-link.mjs';
import { CHROMIUM, launch, launchApart } from '../../e2e/lib/browser.mjs';
import { Stage } from '../../e2e/lib/call.mjs';
import { livekit, plenum } from '../lib/servers.mjs';
import { CELLS, QUICK } from './cells.mjs';
import { figures, medians, ratio, sendingFigures, spoiled, table, FIGURES } from './figures.mjs';
import { isBest, sending, watch } from './probe.mjs';

const say = (text) => console.error(`    ${text}`);

const HELP = `make bench-net, or tests/bench/run-net [options]
  --quick           two networks, subscriber's side, once
  --series LIST     down (the subscriber is behind the network), up (the publisher is); default both
  --cells LIST      names of networks, by commas; default all: ${CELLS.map((cell) => cell.name).join(', ')}
  --repeats N       times everything is measured, medians are shown (PLENUM_BENCH_REPEATS, 3)
  --seconds N       a window (PLENUM_BENCH_SECONDS, 15)
  --size WxH        the camera's picture (PLENUM_BENCH_SIZE, 960x540: the smallest with three layers)
  --fps N           its frames per second (PLENUM_BENCH_FPS, 20)
  --verbose         all figures of each call, as they come
  --servers LIST    plenum, livekit; default those whose program is known`;

function misused(why) {
  console.error(`error: ${why}\n  remedy: see tests/bench/run-net --help`);
  process.exit(2);
}

function options() {
  const { values } = parseArgs({
    options: {
      help: { type: 'boolean' },
      quick: { type: 'boolean' },
      verbose: { type: 'boolean' },
      series: { type: 'string', default: 'down,up' },
      cells: { type: 'string' },
      repeats: { type: 'string', default: process.env.PLENUM_BENCH_REPEATS ?? '3' },
      seconds: { type: 'string', default: process.env.PLENUM_BENCH_SECONDS ?? '15' },
      size: { type: 'string', default: process.env.PLENUM_BENCH_SIZE ?? '960x540' },
      fps: { type: 'string', default: process.env.PLENUM_BENCH_FPS ?? '20' },
      servers: { type: 'string', default: process.env.LIVEKIT_SERVER ? 'plenum,livekit' : 'plenum' },
    },
  });
  if (values.help) {
    console.log(HELP);
    process.exit(0);
  }
  const list = (text, known) => {
    const names = text.split(',').map((name) => name.trim());
    const strange = names.find((name) => !known.includes(name));
    if (strange !== undefined) misused(`${strange} is none of: ${known.join(', ')}`);
    return names;
  };
  const number = (name) => {
    const value = Number(values[name]);
    if (!Number.isInteger(value) || value < 1) misused(`--${name} must be a whole number from 1 on`);
    return value;
  };
  const size = /^(\d+)x(\d+)$/.exec(values.size);
  if (!size) misused('--size must be like 960x540');
  const all = CELLS.map((cell) => cell.name);
  const cells = values.cells ? list(values.cells, all) : values.quick ? QUICK : all;
  return {
    cells: CELLS.filter((cell) => cells.includes(cell.name)),
    series: values.quick ? ['down'] : list(values.series, ['down', 'up']),
    repeats: values.quick ? 1 : number('repeats'),
    seconds: number('seconds'),
    width: Number(size[1]),
    height: Number(size[2]),
    fps: number('fps'),
    verbose: values.verbose ?? false,
    servers: list(values.servers, ['plenum', 'livekit']),
  };
}

const OPEN = {
  plenum: () => plenum(process.env.PLENUM_WORKER_BIN, NEAR),
  livekit: () => livekit(process.env.LIVEKIT_SERVER, NEAR),
};
/** The longest that a call may take to be as good as it gets, before and after its window. */
const BEST_LIMIT_MS = 30_000;
const SETTLE_MS = 6_000;

/** Waits for the best picture; answers whether it came. */
async function waitBest(subscriber, best) {
  const end = performance.now() + BEST_LIMIT_MS;
  while (performance.now() < end) {
    if (await subscriber.page.evaluate(isBest, best)) return true;
    await pause(250);
  }
  return false;
}

/** One call: joins on a good network (or begins on the bad one), goes through the bad one, and recovers. */
async function call({ link, stage, server, series, cell, options }) {
  const [forth, back] = series === 'down' ? ['down', 'up'] : ['up', 'down'];
  await link.set(forth, cell.before);
  await link.set(back, cell.before.replace(/ rate=\S+/, ''));
  // Pages go to the near and the far browser by turns.
  const order = series === 'down' ? ['publisher', 'subscriber'] : ['subscriber', 'publisher'];
  const peers = {};
  for (const identity of order) peers[identity] = await stage.peer(identity);
  const { publisher, subscriber } = peers;
  // Streams of their own for both directions, adaptive stream off: nobody's window decides the layer.
  for (const identity of order) await peers[identity].join(await server.invite('bench', identity));
  await publisher.publishTone();
  await publisher.publishCamera({
    width: options.width,
    height: options.height,
    frameRate: options.fps,
    simulcast: true,
  });
  await subscriber.page.evaluate(watch, 'publisher');
  const frames = () => subscriber.page.evaluate(() => globalThis.probe.frames.length);
  await subscriber.until('a first frame', frames);

  const cameraFps = async (ms) => {
    const first = await publisher.page.evaluate(sending);
    await pause(ms);
    const last = await publisher.page.evaluate(sending);
    return ((last.frames - first.frames) * 1000) / (last.at - first.at);
  };
  const fps = Math.min(options.fps, await cameraFps(SETTLE_MS));
  const best = { height: options.height, fps };
  const warm = cell.fixed || (await waitBest(subscriber, best));

  const sentBefore = await publisher.page.evaluate(sending);
  const linkBefore = await link.stats();
  await subscriber.page.evaluate(() => globalThis.probe.mark('during'));
  await link.set(forth, cell.during);
  await link.set(back, cell.back);
  await pause(options.seconds * 1000);
  await subscriber.page.evaluate(() => globalThis.probe.mark('after'));
  await link.set('both', cell.after);
  const linkAfter = await link.stats();
  const sentAfter = await publisher.page.evaluate(sending);
  await waitBest(subscriber, { ...best, mark: 'after' });
  // The last second is judged by its frames, and they need one to end with.
  await pause(500);
  const probe = await subscriber.page.evaluate(() => {
    clearInterval(globalThis.probe.timer);
    return globalThis.probe;
  });
  const passed = (what) => linkAfter[forth][what] - linkBefore[forth][what];
  const result = figures({
    probe,
    link: { passedBytes: passed('passedBytes'), full: passed('full'), lost: passed('lost') },
    sent: sendingFigures(sentBefore, sentAfter),
    best,
    kbps: cell.kbps,
  });
  const notes = spoiled(result, options.fps);
  if (!warm) notes.push(`the best picture did not come within ${BEST_LIMIT_MS / 1000} s on the good network`);
  return { result, notes };
}

async function measure({ link, stage, name, series, cell, options }) {
  const server = await OPEN[name]();
  stage.target.log = async () => server.log();
  try {
    return await call({ link, stage, server, series, cell, options });
  } catch (error) {
    throw new Error(`${name}, ${series} ${cell.name}: ${error.message}`, { cause: error });
  } finally {
    await stage.clear();
    await link.set('both', 'clear');
    await server.stop();
  }
}

async function bench(link, options) {
  const apart = await link.atFarEnd(CHROMIUM);
  const stage = await Stage.open({ name: 'bad networks', log: async () => '' }, [
    launch,
    () => launchApart(apart),
  ]);
  const runs = {};
  const notes = {};
  try {
    for (let repeat = 0; repeat < options.repeats; repeat++) {
      for (const series of options.series) {
        for (const cell of options.cells) {
          // By turns, so that both meet the same machine.
          for (const name of options.servers) {
            const key = `${series} ${cell.name}`;
            // A round that could not be measured must not take the others with it.
            try {
              const { result, notes: why } = await measure({ link, stage, name, series, cell, options });
              ((runs[name] ??= {})[key] ??= []).push(result);
              for (const note of why) (notes[`${name}, ${key}`] ??= new Set()).add(note);
              say(
                `${name}, ${key}: still ${result.still_ms} ms, longest gap ${result.longest_gap_ms} ms, ` +
                  `${result.fps} fps at ${result.height}, ${result.video_kbps} kbit/s, back after ` +
                  `${result.recover_ms ?? '-'} ms${why.length > 0 ? ` (${why.join('; ')})` : ''}`,
              );
              if (options.verbose) say(JSON.stringify(result));
            } catch (error) {
              (notes[`${name}, ${key}`] ??= new Set()).add('not measured');
              // All of it is in tests/results.
              say(error.message.slice(0, 500));
              process.exitCode = 1;
            }
          }
        }
      }
    }
  } finally {
    await stage.close();
  }
  return { runs, notes };
}

const chosen = options();
const loadBefore = loadavg();
const link = await BadLink.open();
let measured;
try {
  measured = await bench(link, chosen);
} finally {
  await link.close();
}
const results = Object.fromEntries(
  chosen.servers.map((name) => [
    name,
    Object.fromEntries(
      Object.entries(measured.runs[name] ?? {}).map(([cell, runs]) => [cell, medians(runs)]),
    ),
  ]),
);
const cells = chosen.series.flatMap((series) => chosen.cells.map((cell) => `${series} ${cell.name}`));
console.log(table(results, cells));
const notes = Object.fromEntries(Object.entries(measured.notes).map(([cell, why]) => [cell, [...why]]));
for (const [cell, why] of Object.entries(notes)) console.log(`spoiled: ${cell}: ${why.join('; ')}`);
const [one, other] = chosen.servers;
const ratios =
  other &&
  Object.fromEntries(
    cells.map((cell) => [
      cell,
      Object.fromEntries(
        FIGURES.map(([name]) => [name, ratio(results[one][cell]?.[name], results[other][cell]?.[name])]),
      ),
    ]),
  );
console.log(
  JSON.stringify({
    link: 'emulator',
    options: { ...chosen, cells: chosen.cells.map((cell) => cell.name) },
    machine: { load_before: loadBefore, load_after: loadavg() },
    ...results,
    ...(ratios && { ratios }),
    spoiled: notes,
  }),
);
