// The figures of the benchmark of bad networks, from what pages wrote down.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  figures,
  heights,
  longestGap,
  medians,
  ratio,
  recovery,
  sendingFigures,
  spoiled,
  stillness,
  table,
} from '../../bench/net/figures.mjs';

/** Frames of one height, every 50 ms. */
const steady = (from, to, height) =>
  Array.from({ length: (to - from) / 50 }, (_, i) => [from + i * 50, height]);

test('the longest gap counts both ends', () => {
  const frames = [...steady(0, 1000, 360), [1700, 360], [1750, 360]];
  assert.equal(longestGap(frames, 1000, 2000), 750);
  assert.equal(longestGap(frames, 1000, 3000), 1250);
  assert.equal(longestGap(frames, 200, 900), 50);
  assert.equal(longestGap([], 1000, 3000), 2000);
});

test('stillness adds up what is longer than a blink', () => {
  const frames = [...steady(0, 1000, 360), [1700, 360], [1900, 360], [2300, 360]];
  assert.equal(stillness(frames, 0, 2300), 750 + 400);
  assert.equal(stillness(frames, 0, 5000), 750 + 400 + 2700);
  assert.equal(stillness([], 1000, 3000), 2000);
});

test('heights weigh by time, and changes are counted', () => {
  const frames = [...steady(0, 1000, 540), ...steady(1000, 2000, 180), ...steady(2000, 3000, 540)];
  const { height, switches } = heights(frames, 500, 2500);
  assert.ok(Math.abs(height - 360) < 20, String(height));
  assert.equal(switches, 2);
  assert.deepEqual(heights(frames, 1200, 1900), { height: 180, switches: 0 });
});

test('recovery is the beginning of the first good second', () => {
  const best = { height: 540, fps: 20 };
  assert.equal(recovery(steady(0, 5000, 540), 2000, best), 0);
  const late = [...steady(0, 3000, 180), ...steady(3000, 6000, 540)];
  assert.equal(recovery(late, 2000, best), 1000);
  // Frames of the best size, but too few of them until 4 s.
  const slow = [...steady(0, 2000, 540), [2500, 540], [3000, 540], [3500, 540], ...steady(4000, 6000, 540)];
  const recovered = recovery(slow, 2000, best);
  assert.ok(recovered >= 1500 && recovered <= 2000, String(recovered));
  assert.equal(recovery(steady(0, 5000, 180), 2000, best), null);
  // Half a second is not a second.
  assert.equal(recovery(steady(0, 2500, 540), 2000, best), null);
});

test('figures are of the window between the marks', () => {
  const counters = (at, by) => ({
    at,
    framesDecoded: 20 * by,
    framesDropped: 0,
    keyFrames: 1,
    freezes: by > 5 ? 1 : 0,
    frozen: by > 5 ? 0.4 : 0,
    bytes: 50_000 * by,
    packets: 50 * by,
    lost: by,
    again: 0,
    nacks: 2 * by,
    plis: 0,
    waited: by,
    emitted: 20 * by,
    audioSamples: 48_000 * by,
    concealed: 480 * by,
    audioWaited: 2_400 * by,
    audioEmitted: 48_000 * by,
  });
  const probe = {
    marks: [
      ['during', 2000],
      ['after', 12_000],
    ],
    samples: Array.from({ length: 16 }, (_, second) => counters(second * 1000, second)),
    frames: steady(0, 15_000, 540),
  };
  const answer = figures({
    probe,
    link: { passedBytes: 625_000, full: 3, lost: 4 },
    sent: { sent_kbps: 700 },
    best: { height: 540, fps: 20 },
    kbps: 1000,
  });
  const expected = {
    still_ms: 0,
    frozen_ms: 400,
    freezes: 1,
    longest_gap_ms: 50,
    recover_ms: 0,
    fps: 20,
    height: 540,
    video_kbps: 400,
    line_kbps: 500,
    line_percent: 50,
    line_drops: 3,
    jitter_buffer_ms: 50,
    audio_buffer_ms: 50,
    concealed_percent: 1,
    nacks: 20,
    lost: 10,
    sent_kbps: 700,
  };
  for (const [name, value] of Object.entries(expected)) assert.equal(answer[name], value, name);
});

test('what the publisher sends, and what held it back', () => {
  const layer = (rid, bytes, cpu) => ({ rid, bytes, again: 0, nacks: 1, plis: 0, limited: { cpu } });
  const first = { at: 0, frames: 0, available: 1e6, layers: [layer('q', 0, 0), layer('h', 0, 0)] };
  const last = {
    at: 10_000,
    frames: 150,
    available: 2e6,
    layers: [layer('q', 125_000, 1), layer('h', 500_000, 3)],
  };
  const answer = sendingFigures(first, last);
  assert.equal(answer.sent_kbps, 500);
  assert.equal(answer.camera_fps, 15);
  assert.equal(answer.available_kbps, 2000);
  assert.equal(answer.cpu_limited_percent, 30);
  assert.equal(spoiled(answer, 20).length, 2);
  assert.deepEqual(spoiled({ camera_fps: 19, cpu_limited_percent: 0 }, 20), []);
});

test('medians keep never as never', () => {
  const of = (...values) => medians(values.map((recover_ms) => ({ recover_ms }))).recover_ms;
  assert.equal(of(100, null, 300), 300);
  assert.equal(of(null, null, 300), null);
  assert.equal(of(100, 200), 150);
});

test('ratios are of numbers only, and the table shows both servers', () => {
  assert.equal(ratio(1, 2), 0.5);
  assert.equal(ratio(null, 2), null);
  assert.equal(ratio(1, 0), null);
  const cell = 'down loss 5 %';
  const text = table({ plenum: { [cell]: { frozen_ms: 50 } }, livekit: { [cell]: { frozen_ms: 100 } } }, [
    cell,
  ]);
  assert.match(text, /\| down loss 5 % \| frozen_ms \| 50 \| 100 \| 0\.50 \|/);
});
