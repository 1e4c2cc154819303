"""The media of one participant on aiortc: two peer connections, asked for one line of JSON at a time.

Each line of standard input is {"id", "do", ...}; each gets a line {"id", "answer"} or {"id", "error"}
on standard output. Descriptions go in and out as text: signalling is the business of the one who asks.
"""

import asyncio
import fractions
import json
import math
import struct
import sys

from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
    rtcdtlstransport,
)
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError
from av import AudioFrame, VideoFrame

WIDTH, HEIGHT = 320, 180
RATE = 48_000
CHUNK = RATE // 50
# Red in BT.601.
RED = (81, 90, 240)


if "sha1" in sys.argv[1:]:
    # As stacks do that know nothing newer.
    rtcdtlstransport.SRTP_PROFILES[:] = [rtcdtlstransport.SRTP_AES128_CM_SHA1_80]


class Red(VideoStreamTrack):
    """A red picture."""

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane, value in zip(frame.planes, RED):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = pts, time_base
        return frame


class Tone(AudioStreamTrack):
    """440 Hz, in real time."""

    def __init__(self):
        super().__init__()
        self.position = 0
        self.begun = None

    async def recv(self):
        now = asyncio.get_running_loop().time()
        self.begun = self.begun or now
        await asyncio.sleep(max(0, self.begun + self.position / RATE - now))
        samples = [
            int(8000 * math.sin(2 * math.pi * 440 * (self.position + i) / RATE))
            for i in range(CHUNK)
        ]
        frame = AudioFrame(format="s16", layout="mono", samples=CHUNK)
        frame.planes[0].update(struct.pack(f"<{CHUNK}h", *samples))
        frame.sample_rate = RATE
        frame.pts, frame.time_base = self.position, fractions.Fraction(1, RATE)
        self.position += CHUNK
        return frame


class Peer:
    def __init__(self):
        configuration = RTCConfiguration(iceServers=[])
        self.publisher = RTCPeerConnection(configuration)
        self.subscriber = RTCPeerConnection(configuration)
        self.received = {}
        self.tasks = set()
        self.subscriber.on("track", self.on_track)

    def on_track(self, track):
        # aiortc tells of a track again at each renegotiation.
        if track.id not in self.received:
            self.received[track.id] = {"kind": track.kind, "frames": 0}
            task = asyncio.ensure_future(self.consume(track))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def consume(self, track):
        seen = self.received[track.id]
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            seen["frames"] += 1
            if track.kind == "video":
                seen["width"], seen["height"] = frame.width, frame.height
            else:
                data = bytes(frame.planes[0])
                samples = struct.unpack(f"<{len(data) // 2}h", data)
                power = math.sqrt(sum(s * s for s in samples) / max(1, len(samples)))
                seen["loudest"] = max(seen.get("loudest", 0), round(power))

    async def tracks(self, _):
        """Makes the tracks to publish."""
        made = [Tone(), Red()]
        for track in made:
            self.publisher.addTrack(track)
        return [{"cid": track.id, "kind": track.kind} for track in made]

    async def offer(self, _):
        await self.publisher.setLocalDescription(await self.publisher.createOffer())
        return self.publisher.localDescription.sdp

    async def answered(self, ask):
        await self.publisher.setRemoteDescription(RTCSessionDescription(ask["sdp"], "answer"))

    async def subscribe(self, ask):
        """Answers an offer of the server."""
        # aiortc starts no receivers for an offer that comes while it connects.
        while self.subscriber.localDescription and self.subscriber.connectionState != "connected":
            await asyncio.sleep(0.02)
        await self.subscriber.setRemoteDescription(RTCSessionDescription(ask["sdp"], "offer"))
        await self.subscriber.setLocalDescription(await self.subscriber.createAnswer())
        return self.subscriber.localDescription.sdp

    async def stats(self, _):
        connections = {
            "publisher": self.publisher.connectionState,
            "subscriber": self.subscriber.connectionState,
        }
        return {"received": self.received, "connections": connections, "protocols": ["udp"]}

    async def close(self, _):
        await asyncio.gather(self.publisher.close(), self.subscriber.close())


async def main():
    peer = Peer()
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        ask = json.loads(line)
        try:
            answer = {"id": ask["id"], "answer": await getattr(peer, ask["do"])(ask)}
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            answer = {"id": ask["id"], "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    await peer.close({})


asyncio.run(main())
