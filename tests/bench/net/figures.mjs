// From what the pages wrote down to figures.

/** What the table shows, with so many digits. */
export const FIGURES = [
  ['still_ms', 0],
  ['frozen_ms', 0],
  ['freezes', 1],
  ['longest_gap_ms', 0],
  ['recover_ms', 0],
  ['fps', 1],
  ['height', 0],
  ['switches', 1],
  ['frames_dropped', 0],
  ['video_kbps', 0],
  ['line_percent', 0],
  ['line_drops', 0],
  ['jitter_buffer_ms', 0],
  ['audio_buffer_ms', 0],
  ['concealed_percent', 2],
  ['nacks', 0],
  ['plis', 1],
  ['key_frames', 1],
  ['sent_kbps', 0],
  ['available_kbps', 0],
];

const round = (value, digits = 3) => (Number.isFinite(value) ? Number(value.toFixed(digits)) : null);

/** The last sample at or before a time, or else the first there is. */
function sampleAt(samples, at) {
  return samples.findLast((sample) => sample.at <= at) ?? samples[0];
}

/** The longest time without a frame between two moments, both ends counted. */
export function longestGap(frames, from, to) {
  const before = frames.findLast(([at]) => at <= from)?.[0] ?? from;
  const times = [before, ...frames.map(([at]) => at).filter((at) => at > from && at <= to), to];
  return Math.max(...times.slice(1).map((at, i) => at - times[i]));
}

/** How long somebody saw a picture stand still for longer than `limit`, in all, both ends counted. */
export function stillness(frames, from, to, limit = 250) {
  const times = [from, ...frames.map(([at]) => at).filter((at) => at > from && at <= to), to];
  const gaps = times.slice(1).map((at, i) => at - times[i]);
  return gaps.filter((gap) => gap > limit).reduce((sum, gap) => sum + gap, 0);
}

/** The mean height of the picture, by how long each was shown, and how often it changed. */
export function heights(frames, from, to) {
  let [sum, switches] = [0, 0];
  let [at, height] = [from, frames.findLast((frame) => frame[0] <= from)?.[1] ?? 0];
  for (const [when, next] of frames) {
    if (when <= from || when > to) continue;
    sum += height * (when - at);
    if (height !== 0 && next !== height) switches += 1;
    [at, height] = [when, next];
  }
  sum += height * (to - at);
  return { height: sum / (to - from), switches };
}

/** How long until a second begins with enough frames, all of the best size; null is never. */
export function recovery(frames, from, { height, fps }) {
  const later = frames.filter(([at]) => at >= from);
  const end = later.at(-1)?.[0] ?? from;
  for (const [start] of [[from], ...later]) {
    if (start + 1000 > end + 1000 / fps) return null;
    const second = later.filter(([at]) => at >= start && at < start + 1000);
    if (second.length >= 0.8 * fps && second.every((frame) => frame[1] >= height)) return start - from;
  }
  return null;
}

/** One cell's figures of one call. */
export function figures({ probe, link, sent, best, kbps }) {
  const marks = Object.fromEntries(probe.marks);
  const [from, to] = [marks.during, marks.after];
  const seconds = (to - from) / 1000;
  const [first, last] = [sampleAt(probe.samples, from), sampleAt(probe.samples, to)];
  const more = (what) => last[what] - first[what];
  const { height, switches } = heights(probe.frames, from, to);
  const lineKbps = (link.passedBytes * 8) / 1000 / seconds;
  const all = {
    still_ms: stillness(probe.frames, from, to),
    frozen_ms: more('frozen') * 1000,
    freezes: more('freezes'),
    longest_gap_ms: longestGap(probe.frames, from, to),
    recover_ms: recovery(probe.frames, marks.after, best),
    fps: more('framesDecoded') / ((last.at - first.at) / 1000),
    height,
    switches,
    frames_dropped: more('framesDropped'),
    video_kbps: (more('bytes') * 8) / (last.at - first.at),
    line_kbps: lineKbps,
    line_percent: kbps === null ? null : (lineKbps * 100) / kbps,
    line_drops: link.full,
    line_losses: link.lost,
    jitter_buffer_ms: (more('waited') * 1000) / more('emitted'),
    audio_buffer_ms: (more('audioWaited') * 1000) / more('audioEmitted'),
    concealed_percent: (more('concealed') * 100) / more('audioSamples'),
    packets: more('packets'),
    lost: more('lost'),
    again: more('again'),
    nacks: more('nacks'),
    plis: more('plis'),
    key_frames: more('keyFrames'),
    ...sent,
  };
  return Object.fromEntries(Object.entries(all).map(([name, value]) => [name, round(value)]));
}

/** What the publisher did between two looks at it. */
export function sendingFigures(first, last) {
  const seconds = (last.at - first.at) / 1000;
  const of = (what, layers) => layers.reduce((sum, layer) => sum + layer[what], 0);
  const limited = (why) =>
    Math.max(
      0,
      ...last.layers.map((layer) => {
        const before = first.layers.find((other) => other.rid === layer.rid);
        return (layer.limited[why] ?? 0) - (before?.limited[why] ?? 0);
      }),
    );
  return {
    sent_kbps: ((of('bytes', last.layers) - of('bytes', first.layers)) * 8) / 1000 / seconds,
    sent_again: of('again', last.layers) - of('again', first.layers),
    uplink_nacks: of('nacks', last.layers) - of('nacks', first.layers),
    uplink_plis: of('plis', last.layers) - of('plis', first.layers),
    available_kbps: last.available === null ? null : last.available / 1000,
    camera_fps: (last.frames - first.frames) / seconds,
    cpu_limited_percent: (limited('cpu') * 100) / seconds,
    bandwidth_limited_percent: (limited('bandwidth') * 100) / seconds,
  };
}

function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Medians over repeats. Never is later than any time: where most repeats have none, the median is none. */
export function medians(runs) {
  const names = Object.keys(runs[0]);
  const of = (name) => round(median(runs.map((run) => run[name] ?? Infinity)));
  return Object.fromEntries(names.map((name) => [name, of(name)]));
}

/** Of the first to the second; null where there is nothing to compare. */
export function ratio(first, second) {
  return typeof first === 'number' && typeof second === 'number' && second !== 0
    ? round(first / second)
    : null;
}

/** Why a cell says more about this machine than about a network. */
export function spoiled(figures, fps) {
  const why = [];
  if (figures.cpu_limited_percent > 5) why.push('the encoder was limited by the CPU');
  if (figures.camera_fps < 0.8 * fps) why.push(`the camera gave ${figures.camera_fps} of ${fps} frames`);
  return why;
}

/** Rows of text: cell, figure, each server, ratio. */
export function table(results, cells) {
  const servers = Object.keys(results);
  const text = (value, digits) => (value === null || value === undefined ? '-' : value.toFixed(digits));
  const lines = [
    `| cell | figure | ${servers.join(' | ')} | ratio |`,
    `|---|---|${servers.map(() => '---|').join('')}---|`,
  ];
  for (const cell of cells) {
    for (const [name, digits] of FIGURES) {
      const values = servers.map((server) => results[server][cell]?.[name]);
      if (values.every((value) => value === null || value === undefined || value === 0)) continue;
      const compared = servers.length === 2 ? text(ratio(values[0], values[1]), 2) : '-';
      lines.push(
        `| ${cell} | ${name} | ${values.map((value) => text(value, digits)).join(' | ')} | ${compared} |`,
      );
    }
  }
  return lines.join('\n');
}
