// Runs inside the browser: an encoder and a player in forty lines each, as WHIP (RFC 9725) and WHEP want
// them: RTCPeerConnection and fetch. What it returns is plain JSON.

{
  /** @type {{pc: RTCPeerConnection, location: string, etag: string, answer: string} | null} */
  let session = null;

  async function post(url, token, pc) {
    await pc.setLocalDescription();
    const response = await fetch(url, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/sdp' },
      body: pc.localDescription.sdp,
    });
    const body = await response.text();
    if (response.status !== 201) return { status: response.status, problem: JSON.parse(body) };
    // Readable only as far as the server lets pages of other origins.
    const location = new URL(response.headers.get('location'), url).href;
    const etag = response.headers.get('etag');
    await pc.setRemoteDescription({ type: 'answer', sdp: body });
    session = { pc, location, etag, answer: body };
    return { status: 201, location, etag, acceptPatch: response.headers.get('accept-patch') };
  }

  const field = (sdp, name) => sdp.match(new RegExp(`^a=${name}:(.*?)\r?$`, 'm'))?.[1];

  async function patch(etag, fragment) {
    const response = await fetch(session.location, {
      method: 'PATCH',
      headers: {
        'content-type': 'application/trickle-ice-sdpfrag',
        ...(etag === null ? {} : { 'if-match': etag }),
      },
      body: fragment,
    });
    const body = await response.text();
    return { status: response.status, etag: response.headers.get('etag'), body };
  }

  function fragmentOf(sdp) {
    const media = sdp.match(/^m=.*$/m)[0].trim();
    const candidates = sdp.split(/\r?\n/).filter((line) => line.startsWith('a=candidate:'));
    return [
      `a=ice-ufrag:${field(sdp, 'ice-ufrag')}`,
      `a=ice-pwd:${field(sdp, 'ice-pwd')}`,
      media,
      'a=mid:0',
      ...candidates,
      'a=end-of-candidates',
      '',
    ].join('\r\n');
  }

  window.whip = {
    async publish({ url, token, simulcast = false }) {
      const media = await navigator.mediaDevices.getUserMedia({
        audio: true,
        video: { width: 640, height: 360 },
      });
      const pc = new RTCPeerConnection();
      const [audio, video] = [media.getAudioTracks()[0], media.getVideoTracks()[0]];
      pc.addTransceiver(audio, { direction: 'sendonly', streams: [media] });
      // Of so small a picture Chromium sends two layers at most.
      const layers = [{ rid: 'q', scaleResolutionDownBy: 2 }, { rid: 'f' }];
      pc.addTransceiver(video, {
        direction: 'sendonly',
        streams: [media],
        ...(simulcast ? { sendEncodings: layers } : {}),
      });
      return post(url, token, pc);
    },

    async play({ url, token }) {
      const pc = new RTCPeerConnection();
      pc.addTransceiver('audio', { direction: 'recvonly' });
      pc.addTransceiver('video', { direction: 'recvonly' });
      pc.ontrack = ({ streams }) => {
        const element = document.createElement('video');
        element.srcObject = streams[0];
        element.autoplay = true;
        document.getElementById('media').append(element);
      };
      return post(url, token, pc);
    },

    /** All candidates of this side, as a page would trickle them. */
    trickle(etag) {
      return patch(etag === undefined ? session.etag : etag, fragmentOf(session.pc.localDescription.sdp));
    },

    /** Restarts ICE, and goes on with what the server says. */
    async restart() {
      const { pc, answer } = session;
      await pc.setLocalDescription(await pc.createOffer({ iceRestart: true }));
      const reply = await patch('*', fragmentOf(pc.localDescription.sdp));
      if (reply.status !== 200) return reply;
      session.etag = reply.etag;
      session.answer = answer
        .replaceAll(/^a=ice-ufrag:.*?\r?$/gm, `a=ice-ufrag:${field(reply.body, 'ice-ufrag')}`)
        .replaceAll(/^a=ice-pwd:.*?\r?$/gm, `a=ice-pwd:${field(reply.body, 'ice-pwd')}`);
      await pc.setRemoteDescription({ type: 'answer', sdp: session.answer });
      return reply;
    },

    async end() {
      return (await fetch(session.location, { method: 'DELETE' })).status;
    },

    /** Numbers of what comes in, by kind, and of the transport. */
    async numbers() {
      const stats = [...(await session.pc.getStats()).values()];
      const inbound = (kind) => {
        const found = stats.find((s) => s.type === 'inbound-rtp' && s.kind === kind);
        return (
          found && {
            frames: found.framesDecoded ?? null,
            width: found.frameWidth ?? null,
            energy: found.totalAudioEnergy ?? null,
            ssrc: found.ssrc,
          }
        );
      };
      return {
        state: session.pc.connectionState,
        ufrag: field(session.pc.localDescription.sdp, 'ice-ufrag'),
        audio: inbound('audio') ?? null,
        video: inbound('video') ?? null,
      };
    },
  };
}
