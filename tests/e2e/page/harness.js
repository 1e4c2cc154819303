// Runs inside the browser: one room of the stock client, its events on record, and its media in
// numbers. Everything it returns is plain JSON, so that the test process can judge it.

const lk = window.LivekitClient;
window.lk = lk;

const events = [];
let room = null;
let tone = null;

function record(type, detail) {
  events.push({ type, at: Math.round(performance.now()), ...detail });
}

function enumName(values, value) {
  return values?.[value] ?? value ?? null;
}

function attach(track, identity) {
  const element = track.attach();
  element.dataset.identity = identity;
  document.getElementById('media').append(element);
}

function watch(r) {
  const on = (event, detail) => r.on(event, (...args) => record(event, detail(...args)));
  const none = () => ({});
  const person = (p) => ({ identity: p.identity });
  const publication = (pub, p) => ({ identity: p.identity, source: pub.source, sid: pub.trackSid });
  const { RoomEvent } = lk;
  on(RoomEvent.Connected, none);
  on(RoomEvent.Reconnecting, none);
  on(RoomEvent.SignalReconnecting, none);
  on(RoomEvent.Reconnected, none);
  on(RoomEvent.Disconnected, (reason) => ({ reason: enumName(lk.DisconnectReason, reason) }));
  on(RoomEvent.ParticipantConnected, person);
  on(RoomEvent.ParticipantDisconnected, person);
  on(RoomEvent.TrackPublished, publication);
  on(RoomEvent.TrackUnpublished, publication);
  on(RoomEvent.TrackMuted, publication);
  on(RoomEvent.TrackUnmuted, publication);
  on(RoomEvent.ActiveSpeakersChanged, (speakers) => ({ speakers: speakers.map((s) => s.identity) }));
  on(RoomEvent.TrackStreamStateChanged, (pub, streamState, p) => ({ ...publication(pub, p), streamState }));
  on(RoomEvent.ConnectionQualityChanged, (quality, p) => ({ identity: p.identity, quality }));
  on(RoomEvent.RoomMetadataChanged, (metadata) => ({ metadata }));
  on(RoomEvent.DataReceived, (payload, p, kind, topic) => ({
    identity: p?.identity ?? null,
    kind: enumName(lk.DataPacket_Kind, kind),
    topic: topic ?? null,
    text: new TextDecoder().decode(payload.slice(0, 64)),
    size: payload.length,
  }));
  r.on(RoomEvent.TrackSubscribed, (track, pub, p) => {
    record(RoomEvent.TrackSubscribed, publication(pub, p));
    attach(track, p.identity);
  });
  r.on(RoomEvent.TrackUnsubscribed, (track, pub, p) => {
    record(RoomEvent.TrackUnsubscribed, publication(pub, p));
    for (const element of track.detach()) element.remove();
  });
}

function remoteTrack(identity, source) {
  return room?.remoteParticipants.get(identity)?.getTrackPublication(source)?.track ?? null;
}

function publicationJson(pub) {
  return {
    sid: pub.trackSid,
    kind: pub.kind,
    source: pub.source,
    muted: pub.isMuted,
    subscribed: pub.isSubscribed,
    mimeType: pub.mimeType ?? null,
    encryption: pub.trackInfo ? ['NONE', 'GCM', 'CUSTOM'][pub.trackInfo.encryption] : null,
    width: pub.dimensions?.width ?? null,
    height: pub.dimensions?.height ?? null,
  };
}

function participantJson(p) {
  return {
    identity: p.identity,
    sid: p.sid,
    name: p.name ?? '',
    metadata: p.metadata ?? '',
    attributes: { ...p.attributes },
    speaking: p.isSpeaking,
    tracks: [...p.trackPublications.values()].map(publicationJson),
  };
}

function errorJson(error) {
  return {
    name: error.name,
    message: error.message,
    reason: error.reasonName ?? null,
    status: error.status ?? null,
    context: error.context === undefined ? null : JSON.parse(JSON.stringify(error.context ?? null)),
  };
}

/** For a client that encrypts end to end what it sends, data too. */
async function keysFrom(passphrase) {
  const keyProvider = new lk.ExternalE2EEKeyProvider();
  await keyProvider.setKey(passphrase);
  return { keyProvider, worker: new Worker('/e2ee-worker.mjs', { type: 'module' }) };
}

function sourceOf(name) {
  return lk.Track.Source[name];
}

window.harness = {
  events,

  /** Joins a room. Answers {ok:true} or {ok:false, error}: a refusal is a result, not a failure. */
  async join({ url, token, roomOptions, connectOptions, passphrase }) {
    const encryption = passphrase && (await keysFrom(passphrase));
    room = new lk.Room({ dynacast: true, adaptiveStream: false, encryption, ...roomOptions });
    window.room = room;
    watch(room);
    try {
      if (encryption) await room.setE2EEEnabled(true);
      // No ICE servers: the server's own candidates must do.
      await room.connect(url, token, { rtcConfig: { iceServers: [] }, ...connectOptions });
      return { ok: true };
    } catch (error) {
      return { ok: false, error: errorJson(error) };
    }
  },

  async leave() {
    await room?.disconnect();
  },

  async publishCamera({
    width,
    height,
    frameRate = 20,
    simulcast = false,
    videoCodec = 'vp8',
    scalabilityMode,
    videoEncoding,
  }) {
    const track = await lk.createLocalVideoTrack({ resolution: { width, height, frameRate } });
    const publication = await room.localParticipant.publishTrack(track, {
      source: sourceOf('Camera'),
      simulcast,
      videoCodec,
      scalabilityMode,
      videoEncoding,
      backupCodec: false,
      // Tests judge the size, so a busy machine may cost frames but no pixels.
      degradationPreference: 'maintain-resolution',
    });
    return publicationJson(publication);
  },

  /** The fake microphone beeps once a second. `options` are the client's for publishing. */
  async publishMicrophone(options) {
    const publication = await room.localParticipant.setMicrophoneEnabled(true, undefined, options);
    return publicationJson(publication);
  },

  /** A steady tone in place of the microphone, so that its speaker is heard without a break. */
  async publishTone() {
    const context = new AudioContext();
    await context.resume();
    const oscillator = new OscillatorNode(context, { frequency: 440 });
    const gain = new GainNode(context, { gain: 0.5 });
    const sink = new MediaStreamAudioDestinationNode(context);
    oscillator.connect(gain).connect(sink);
    oscillator.start();
    tone = { context, oscillator };
    const publication = await room.localParticipant.publishTrack(sink.stream.getAudioTracks()[0], {
      source: sourceOf('Microphone'),
      dtx: false,
    });
    return publicationJson(publication);
  },

  stopTone() {
    tone?.oscillator.stop();
  },

  async unpublish(source) {
    const publication = room.localParticipant.getTrackPublication(sourceOf(source));
    await room.localParticipant.unpublishTrack(publication.track);
  },

  async setMuted(source, muted) {
    const publication = room.localParticipant.getTrackPublication(sourceOf(source));
    await (muted ? publication.mute() : publication.unmute());
  },

  setSubscribed(identity, source, subscribed) {
    room.remoteParticipants.get(identity).getTrackPublication(sourceOf(source)).setSubscribed(subscribed);
  },

  setQuality(identity, source, quality) {
    room.remoteParticipants
      .get(identity)
      .getTrackPublication(sourceOf(source))
      .setVideoQuality(lk.VideoQuality[quality]);
  },

  async sendData({ text, size, reliable, topic, to }) {
    const payload = size === undefined ? new TextEncoder().encode(text) : new Uint8Array(size);
    if (size !== undefined) payload.set(new TextEncoder().encode(text));
    await room.localParticipant.publishData(payload, {
      reliable,
      topic,
      destinationIdentities: to,
    });
  },

  async setMetadata({ name, metadata, attributes }) {
    if (name !== undefined) await room.localParticipant.setName(name);
    if (metadata !== undefined) await room.localParticipant.setMetadata(metadata);
    if (attributes !== undefined) await room.localParticipant.setAttributes(attributes);
  },

  /** Breaks the signalling socket, as a network that went away does. */
  async breakSignal() {
    await room.simulateScenario('signal-reconnect');
  },

  /** What this client sees of the room now. */
  view() {
    if (!room) return { state: 'none' };
    return {
      state: room.state,
      name: room.name,
      metadata: room.metadata ?? '',
      server: room.serverInfo ?? null,
      local: participantJson(room.localParticipant),
      remote: [...room.remoteParticipants.values()].map(participantJson),
      activeSpeakers: room.activeSpeakers.map((p) => p.identity),
      canPlaybackAudio: room.canPlaybackAudio,
    };
  },

  /** The inbound stream of one remote track, or null while there is none. */
  async inbound(identity, source) {
    const report = await remoteTrack(identity, sourceOf(source))?.getRTCStatsReport?.();
    if (!report) return null;
    for (const stat of report.values()) {
      if (stat.type !== 'inbound-rtp') continue;
      return {
        packetsReceived: stat.packetsReceived,
        packetsLost: stat.packetsLost,
        bytesReceived: stat.bytesReceived,
        framesDecoded: stat.framesDecoded ?? 0,
        keyFramesDecoded: stat.keyFramesDecoded ?? 0,
        frameWidth: stat.frameWidth ?? 0,
        frameHeight: stat.frameHeight ?? 0,
        framesDropped: stat.framesDropped ?? 0,
        totalAudioEnergy: stat.totalAudioEnergy ?? 0,
        totalSamplesDuration: stat.totalSamplesDuration ?? 0,
        nackCount: stat.nackCount ?? 0,
        pliCount: stat.pliCount ?? 0,
        packetsDiscarded: stat.packetsDiscarded ?? 0,
        concealedSamples: stat.concealedSamples ?? 0,
        freezeCount: stat.freezeCount ?? 0,
        totalFreezesDuration: stat.totalFreezesDuration ?? 0,
        decoder: stat.decoderImplementation ?? null,
        codec: report.get(stat.codecId)?.mimeType ?? null,
      };
    }
    return null;
  },

  /** The outbound stream of one local track (the first, where there are layers), or null. */
  async outbound(source) {
    const publication = room?.localParticipant.getTrackPublication(sourceOf(source));
    const sender = publication?.track?.sender;
    const report = await sender?.getStats();
    if (!report) return null;
    for (const stat of report.values()) {
      if (stat.type !== 'outbound-rtp') continue;
      return {
        packetsSent: stat.packetsSent,
        bytesSent: stat.bytesSent,
        nackCount: stat.nackCount ?? 0,
        retransmittedPacketsSent: stat.retransmittedPacketsSent ?? 0,
        // The statistics name what redundant data carries.
        codec: sender.getParameters().codecs[0]?.mimeType ?? null,
      };
    }
    return null;
  },

  /** What the server last told this client of one of its sections with sound: the lines of it. */
  answeredAudio(source) {
    const publication = room.localParticipant.getTrackPublication(sourceOf(source));
    const { pcManager } = room.engine;
    const pc = pcManager.publisher._pc ?? pcManager.publisher.pc;
    const transceiver = pc.getTransceivers().find((t) => t.sender === publication.track.sender);
    const sections = pc.remoteDescription.sdp.split('\r\nm=');
    return sections.find((s) => s.split('\r\n').includes(`a=mid:${transceiver.mid}`)) ?? '';
  },

  /** From now on this browser has no redundant audio data, as some have none. */
  withoutRed() {
    for (const name of ['createOffer', 'createAnswer']) {
      const original = RTCPeerConnection.prototype[name];
      RTCPeerConnection.prototype[name] = async function (...args) {
        const { type, sdp } = await original.apply(this, args);
        const numbers = [...sdp.matchAll(/^a=rtpmap:(\d+) red\/48000/gm)].map((m) => m[1]);
        const lines = sdp.split('\r\n').flatMap((line) => {
          if (numbers.some((n) => new RegExp(`^a=(rtpmap|fmtp|rtcp-fb):${n} `).test(line))) return [];
          if (!line.startsWith('m=audio ')) return [line];
          return [
            line
              .split(' ')
              .filter((part, i) => i < 3 || !numbers.includes(part))
              .join(' '),
          ];
        });
        return { type, sdp: lines.join('\r\n') };
      };
    }
  },

  /** Every peer connection of the engine: how many there are tells v1 (one) from v0 (two). */
  async transports() {
    const manager = room?.engine?.pcManager;
    const answers = [];
    for (const [name, transport] of [
      ['publisher', manager?.publisher],
      ['subscriber', manager?.subscriber],
    ]) {
      if (!transport) continue;
      const stats = await transport.getStats();
      const all = [...stats.values()];
      const pair = all.find((s) => s.type === 'candidate-pair' && s.nominated && s.state === 'succeeded');
      const remote = pair && stats.get(pair.remoteCandidateId);
      answers.push({
        name,
        state: transport.getConnectionState(),
        ice: transport.getICEConnectionState(),
        remote: remote ? `${remote.protocol}://${remote.address}:${remote.port}` : null,
        bytesSent: pair?.bytesSent ?? 0,
        bytesReceived: pair?.bytesReceived ?? 0,
      });
    }
    return answers;
  },
};
record('loaded', {});
