// What the pages of a call write down about it. Each function runs inside a page, alone.

/** In the subscriber's page: every frame shown, and the counters of both streams, five times a second. */
export function watch(identity) {
  const lk = globalThis.lk;
  const probe = (globalThis.probe = { marks: [], samples: [], frames: [] });
  const seen = new WeakSet();
  const frames = () => {
    for (const video of globalThis.document.querySelectorAll('#media video')) {
      if (video.dataset.identity !== identity || seen.has(video)) continue;
      seen.add(video);
      const shown = (now, frame) => {
        probe.frames.push([now, frame.height]);
        video.requestVideoFrameCallback(shown);
      };
      video.requestVideoFrameCallback(shown);
    }
  };
  const inbound = async (source) => {
    const participant = globalThis.room.remoteParticipants.get(identity);
    const track = participant?.getTrackPublication(lk.Track.Source[source])?.track;
    const report = await track?.getRTCStatsReport?.();
    return report && [...report.values()].find((stat) => stat.type === 'inbound-rtp');
  };
  const sample = async () => {
    frames();
    const [video, audio] = await Promise.all([inbound('Camera'), inbound('Microphone')]);
    if (!video) return;
    probe.samples.push({
      at: performance.now(),
      framesDecoded: video.framesDecoded ?? 0,
      framesDropped: video.framesDropped ?? 0,
      keyFrames: video.keyFramesDecoded ?? 0,
      freezes: video.freezeCount ?? 0,
      frozen: video.totalFreezesDuration ?? 0,
      bytes: (video.bytesReceived ?? 0) + (video.headerBytesReceived ?? 0),
      packets: video.packetsReceived ?? 0,
      lost: video.packetsLost ?? 0,
      again: video.retransmittedPacketsReceived ?? 0,
      nacks: video.nackCount ?? 0,
      plis: video.pliCount ?? 0,
      waited: video.jitterBufferDelay ?? 0,
      emitted: video.jitterBufferEmittedCount ?? 0,
      audioSamples: audio?.totalSamplesReceived ?? 0,
      concealed: audio?.concealedSamples ?? 0,
      audioWaited: audio?.jitterBufferDelay ?? 0,
      audioEmitted: audio?.jitterBufferEmittedCount ?? 0,
    });
  };
  probe.mark = async (name) => {
    await sample();
    probe.marks.push([name, performance.now()]);
  };
  probe.timer = setInterval(() => void sample(), 200);
}

/** In the subscriber's page: whether the last second, all of it after a mark if named, was as good as it gets. */
export function isBest({ height, fps, mark }) {
  const from = performance.now() - 1000;
  const marked = globalThis.probe.marks.find(([name]) => name === mark);
  if (marked && marked[1] > from) return false;
  const last = globalThis.probe.frames.filter(([at]) => at >= from);
  return last.length >= 0.8 * fps && last.every((frame) => frame[1] >= height);
}

/** In the publisher's page: what the camera gives and what leaves. */
export async function sending() {
  const publication = globalThis.room.localParticipant.getTrackPublication(globalThis.lk.Track.Source.Camera);
  const report = await publication.track.sender.getStats();
  const all = [...report.values()];
  const source = all.find((stat) => stat.type === 'media-source');
  const pair = all.find((stat) => stat.type === 'candidate-pair' && stat.nominated);
  const layers = all
    .filter((stat) => stat.type === 'outbound-rtp')
    .map((stat) => ({
      rid: stat.rid ?? '',
      height: stat.frameHeight ?? 0,
      active: stat.active ?? true,
      frames: stat.framesEncoded ?? 0,
      bytes: (stat.bytesSent ?? 0) + (stat.headerBytesSent ?? 0),
      again: stat.retransmittedPacketsSent ?? 0,
      nacks: stat.nackCount ?? 0,
      plis: stat.pliCount ?? 0,
      limited: { ...stat.qualityLimitationDurations },
    }));
  return {
    at: performance.now(),
    frames: source?.frames ?? 0,
    available: pair?.availableOutgoingBitrate ?? null,
    layers,
  };
}
