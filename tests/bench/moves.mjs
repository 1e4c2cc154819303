// How long a move between rooms leaves somebody without a picture: on the same worker, to another one,
// and by leaving and joining. On a cluster, with stock clients in Chromium. Started by ./run-moves.

import { clusterTarget, openMeeting, unique } from '../e2e/lib/cluster-target.mjs';
import { Stage } from '../e2e/lib/call.mjs';
import { apply, condition, find, mintToken } from '../e2e/lib/kube.mjs';
import { waitFor } from '../e2e/lib/wait.mjs';

const MOVES = Number(process.env.PLENUM_BENCH_MOVES ?? 30);
const TOPIC = 'plenum.v1';
const say = (text) => console.error(`    ${text}`);

/** In the page: when a frame of whom was shown, by the browser's own clock. */
const watchFrames = () => {
  globalThis.lastFrame = new Map();
  globalThis.firstFrames = [];
  const seen = new WeakSet();
  const watch = (video) => {
    if (seen.has(video) || video.tagName !== 'VIDEO') return;
    seen.add(video);
    const { identity } = video.dataset;
    const onFrame = (now) => {
      if (!globalThis.lastFrame.has(identity)) globalThis.firstFrames.push({ identity, at: now });
      globalThis.lastFrame.set(identity, now);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  };
  const media = globalThis.document.getElementById('media');
  // A client that resumes keeps its room's events back for two seconds, its participants' own it does not.
  const heed = (participant) =>
    participant.on('trackSubscribed', (track) => {
      if (track.attachedElements.length > 0) return;
      const element = track.attach();
      element.dataset.identity = participant.identity;
      media.append(element);
    });
  // The participants of the other room are listed right after this event.
  globalThis.room.on('moved', () => setTimeout(() => globalThis.room.remoteParticipants.forEach(heed)));
  new globalThis.MutationObserver(() => media.childNodes.forEach(watch)).observe(media, { childList: true });
  media.childNodes.forEach(watch);
};

/** In the page: asks for a move and answers the gap between the last frame here and the first there. */
const moveTo = async ({ room, from, to, topic }) => {
  globalThis.lastFrame.delete(to);
  globalThis.firstFrames = [];
  const request = { id: Date.now(), do: 'chooseRoom', room };
  await globalThis.room.localParticipant.publishData(new TextEncoder().encode(JSON.stringify(request)), {
    reliable: true,
    topic,
  });
  const until = performance.now() + 60_000;
  for (;;) {
    const first = globalThis.firstFrames.find((frame) => frame.identity === to);
    if (first) return first.at - globalThis.lastFrame.get(from);
    if (performance.now() > until) throw new Error(`no frame of ${to} in ${room}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

const leaveAndJoin = async ({ url, token, from, to }) => {
  globalThis.lastFrame.delete(to);
  globalThis.firstFrames = [];
  await globalThis.harness.leave();
  globalThis.document.getElementById('media').replaceChildren();
  await globalThis.harness.join({ url, token });
  const until = performance.now() + 60_000;
  for (;;) {
    const first = globalThis.firstFrames.find((frame) => frame.identity === to);
    if (first) return first.at - globalThis.lastFrame.get(from);
    if (performance.now() > until) throw new Error(`no frame of ${to} after joining`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

function percentile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)];
}

function figures(gaps) {
  const sorted = gaps.map(Math.round).sort((a, b) => a - b);
  return {
    moves: sorted.length,
    p50_ms: percentile(sorted, 0.5),
    p99_ms: percentile(sorted, 0.99),
    max_ms: sorted.at(-1),
  };
}

async function bench() {
  const target = await clusterTarget();
  const stage = await Stage.open(target);
  try {
    const name = unique('moves');
    const { namespace } = target;
    await openMeeting(namespace, name, {});
    const ids = [1, 2, 3, 4].map((i) => `${name}-${i}`);
    await apply(
      ...ids.map((id) => ({
        apiVersion: 'plenum.dev/v1alpha1',
        kind: 'BreakoutRoom',
        metadata: { name: id, namespace },
        // People who are expected weigh: the rooms spread over the workers.
        spec: { meetingRef: { name }, participants: Array.from({ length: 60 }, (_, i) => `${id}-${i}`) },
      })),
    );
    const workers = new Map();
    for (const id of ids) {
      const room = await waitFor(
        async () => {
          const object = await find('breakoutroom', id, namespace);
          return condition(object, 'Ready')?.status === 'True' && object;
        },
        { what: `${id} is open` },
      );
      workers.set(id, room.status.assignment.workerUID);
    }
    const pairs = ids.flatMap((a) => ids.filter((b) => b > a).map((b) => [a, b]));
    const same = pairs.find(([a, b]) => workers.get(a) === workers.get(b));
    const across = pairs.find(([a, b]) => workers.get(a) !== workers.get(b));
    if (!same || !across)
      throw new Error(`four rooms on ${new Set(workers.values()).size} worker(s): no pair of each kind`);

    const needed = [...new Set([...same, ...across])];
    const who = (id) => `in-${id}`;
    const invite = async (identity, room, role) => {
      const { status } = await mintToken(namespace, name, {
        identity,
        role,
        ...(room && { room }),
        ttlSeconds: 7200,
      });
      return { url: status.url, token: status.token };
    };
    for (const id of needed) {
      const peer = await stage.peer(who(id));
      await peer.join(await invite(who(id), null, 'host'));
      await peer.publishCamera();
      await peer.call('sendData', {
        text: JSON.stringify({ id: 1, do: 'chooseRoom', room: id }),
        reliable: true,
        topic: TOPIC,
      });
    }
    const mover = await stage.peer('mover');
    await mover.join(await invite('mover', null, 'host'));
    await mover.page.evaluate(watchFrames);

    const settle = async (room) => {
      await mover.waitDecoded(who(room));
      // What a client sends before its resume is over may be lost.
      await mover.until('is connected', async () => (await mover.view()).state === 'connected');
    };
    const first = async (room) => {
      await mover.call('sendData', {
        text: JSON.stringify({ id: 2, do: 'chooseRoom', room }),
        reliable: true,
        topic: TOPIC,
      });
      await settle(room);
    };
    const series = async ([a, b]) => {
      await first(a);
      const gaps = [];
      let [from, to] = [a, b];
      for (let i = 0; i < MOVES; i++) {
        gaps.push(
          await mover.page.evaluate(moveTo, { room: to, from: who(from), to: who(to), topic: TOPIC }),
        );
        await settle(to);
        [from, to] = [to, from];
      }
      return gaps;
    };
    const results = {};
    results.same_worker = figures(await series(same));
    say(`same worker: ${JSON.stringify(results.same_worker)}`);
    results.other_worker = figures(await series(across));
    say(`other worker: ${JSON.stringify(results.other_worker)}`);

    // Somebody whom nobody ever placed: where the token says is where they go.
    const walker = await stage.peer('walker');
    const ticketTo = (room) =>
      target.invite({
        identity: 'walker',
        room: `${namespace}/${name}/${room}`,
        grant: { canPublish: false },
      });
    const byHand = [];
    let [from, to] = same;
    await walker.join(await ticketTo(from));
    await walker.page.evaluate(watchFrames);
    await walker.waitDecoded(who(from));
    for (let i = 0; i < MOVES; i++) {
      const ticket = await ticketTo(to);
      byHand.push(await walker.page.evaluate(leaveAndJoin, { ...ticket, from: who(from), to: who(to) }));
      await walker.waitDecoded(who(to));
      [from, to] = [to, from];
    }
    results.leave_and_join = figures(byHand);
    say(`leave and join: ${JSON.stringify(results.leave_and_join)}`);
    console.log('| way | moves | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|');
    for (const [way, r] of Object.entries(results))
      console.log(`| ${way.replaceAll('_', ' ')} | ${r.moves} | ${r.p50_ms} | ${r.p99_ms} | ${r.max_ms} |`);
    console.log(JSON.stringify(results));
  } finally {
    await stage.close();
    await target.close();
  }
}

await bench();
