"""What a bystander at 25 frames a second notices of attacks on the server: `python -m benchmarks.bench_attack`.

The server runs with its test pattern and without limits by client, so that what lies behind them is measured.
Attackers run in processes of their own, on the same machine. Each attack once brought the server down: an offer whose
reading took 7 s, candidates without end (3 frames/s left), a message without end over a data channel (1.2 frames/s
left), 300 viewers at once where there is room for 100.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcsctptransport import DataChunk, serialize_packet

from benchmarks.bench_live import RESULTS, machine, print_table
from benchmarks.browser.live_server import LiveServer

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
FLOOD_BYTES_S = {"candidates": 20_000, "message": 600_000}
FRAGMENT_BYTES = 1_150


class Viewer:
    """Watches a session and notes when frames come."""

    def __init__(self) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.connection.createDataChannel("events")
        self.frames_s: list[float] = []
        for kind in ("audio", "video"):
            self.connection.addTransceiver(kind, direction="recvonly")
        self.connection.on("track", lambda track: tasks.append(asyncio.ensure_future(self._read(track))))
        tasks = self._tasks = []  # type: list[asyncio.Task[None]]

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def watch(self, http: aiohttp.ClientSession, session: str) -> str:
        """Connects; returns the connection's address."""
        async with http.post(f"/v1/sessions/{session}/whep", data=await self.offer(), headers=SDP) as answer:
            answer.raise_for_status()
            await self.connection.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))
            return answer.headers["Location"]

    async def _read(self, track: Any) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                await track.recv()
                if track.kind == "video":
                    self.frames_s.append(time.monotonic())

    async def frames_of(self, seconds: float) -> dict[str, float]:
        """Frames a second and the longest gap of the next seconds."""
        began, started_s = len(self.frames_s), time.monotonic()
        await asyncio.sleep(seconds)
        times = [started_s, *self.frames_s[began:], time.monotonic()]
        gap_s = max(after - before for before, after in zip(times, times[1:], strict=False))
        return {"fps": (len(times) - 2) / (times[-1] - started_s), "worst_gap_ms": 1000 * gap_s}

    async def close(self) -> None:
        await self.connection.close()
        for task in self._tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def made_session(http: aiohttp.ClientSession) -> AsyncIterator[str]:
    async with http.post("/v1/sessions") as made:
        made.raise_for_status()
        session = (await made.json())["id"]
    async with http.ws_connect(f"/v1/sessions/{session}/events"):  # or it ends for want of company
        yield session
    async with http.delete(f"/v1/sessions/{session}"):
        pass


def crowded_offer(offer: str) -> str:
    """64 KiB of codecs and of feedback for all of them."""
    lines, feedback = "a=rtpmap:96 a/1\r\n" * 1_300, "a=rtcp-fb:* n\r\n"
    room = 64 * 1024 - len(offer) - len(lines)
    return offer + lines + feedback * (room // len(feedback))


async def flood(url: str, session: str, kind: str, seconds: float) -> None:
    """The attacker's process: as many bytes a second as did the harm."""
    os.nice(15)  # it stands for another machine
    viewer = Viewer()
    async with aiohttp.ClientSession(url) as http:
        place = await viewer.watch(http, session)
        started_s, sent, number, outcomes = time.monotonic(), 0, 0, Counter[str]()
        while (passed_s := time.monotonic() - started_s) < seconds:
            if sent > passed_s * FLOOD_BYTES_S[kind]:
                await asyncio.sleep(0.002)
            elif kind == "candidates":
                ports = range(1024 + number, 1064 + number)
                body = "\r\n".join(f"a=candidate:1 1 udp 5 10.9.8.7 {port} typ host" for port in ports)
                async with http.patch(place, data=body, headers=FRAGMENT) as answer:
                    outcomes[str(answer.status)] += 1
                sent, number = sent + len(body), (number + 40) % 60_000
            else:
                sent, number = sent + await _send_fragment(viewer, number), number + 1
        print(json.dumps({"sent_kb": sent // 1000, "outcomes": outcomes}))
    await viewer.close()


async def _send_fragment(viewer: Viewer, number: int) -> int:
    """The next part of a message that does not end."""
    sctp: Any = viewer.connection.sctp
    while viewer.channel.readyState == "connecting":
        await asyncio.sleep(0.01)
    chunk = DataChunk(flags=2 if number == 0 else 0)
    chunk.tsn = (sctp._local_tsn + number) % 2**32
    chunk.stream_id, chunk.stream_seq, chunk.protocol = viewer.channel.id, 1, 51
    chunk.user_data = bytes(FRAGMENT_BYTES)
    packet = serialize_packet(sctp._local_port, sctp._remote_port, sctp._remote_verification_tag, chunk)
    with contextlib.suppress(ConnectionError):
        await sctp.transport._send_data(packet)
    return FRAGMENT_BYTES


async def measure(server: LiveServer, seconds: float) -> dict[str, Any]:
    """All attacks, one after the other, with somebody who watches another session."""
    found: dict[str, Any] = {}
    every = aiohttp.TCPConnector(limit=0)  # at once, and not 100 of them after each other
    async with (
        aiohttp.ClientSession(server.url, connector=every) as http,
        made_session(http) as own,
        made_session(http) as attacked,
    ):
        bystander, spare = Viewer(), Viewer()
        await bystander.watch(http, own)
        await asyncio.sleep(3.0)
        found["rest"] = await bystander.frames_of(seconds)
        offer, times_ms = crowded_offer(await spare.offer()), []
        for _ in range(10):
            started_s = time.monotonic()
            async with http.post(f"/v1/sessions/{attacked}/whep", data=offer, headers=SDP) as answer:
                await answer.read()
            times_ms.append(1000 * (time.monotonic() - started_s))
        found["offer"] = {
            "bytes": len(offer),
            "status": answer.status,
            "worst_ms": max(times_ms),
            "median_ms": statistics.median(times_ms),
        }
        for kind in FLOOD_BYTES_S:
            line = [sys.executable, "-m", "benchmarks.bench_attack", "--flood", kind, server.url, attacked]
            child = await asyncio.create_subprocess_exec(
                *line, "--seconds", str(seconds + 4), stdout=asyncio.subprocess.PIPE
            )
            await asyncio.sleep(4.0)  # it has to connect
            found[kind] = await bystander.frames_of(seconds) | json.loads((await child.communicate())[0])
        offer = await spare.offer()
        statuses = await asyncio.gather(*(_knock(http, attacked, offer) for _ in range(300)))
        found["viewers"] = {"statuses": Counter(statuses)}
        for viewer in (bystander, spare):
            await viewer.close()
    return found


async def _knock(http: aiohttp.ClientSession, session: str, offer: str) -> str:
    async with http.post(f"/v1/sessions/{session}/whep", data=offer, headers=SDP) as answer:
        await answer.read()
        return str(answer.status)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_attack", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="of each flood; with 10 all of it takes a minute")
    parser.add_argument("--out", metavar="NAME", help="writes benchmarks/results/NAME.json")
    parser.add_argument("--flood", nargs=3, metavar=("KIND", "URL", "SESSION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.flood:
        kind, url, session = options.flood
        asyncio.run(flood(url, session, kind, options.seconds))
        return 0
    before = machine()
    limits = [f"--limit={name}=1000000" for name in ("offers", "candidates")]
    with LiveServer(["--threads", "1", "--max-sessions", "4", *limits]) as server:
        found = asyncio.run(measure(server, options.seconds))
    rows = [("bystander at rest", _frames(found["rest"]), "")]
    offer = found["offer"]
    rows.append(("64 KiB offer", f"{offer['median_ms']:.0f} / {offer['worst_ms']:.0f} ms", f"{offer['status']}"))
    rows += [(f"flood: {kind}", _frames(found[kind]), f"{found[kind]['outcomes']}") for kind in FLOOD_BYTES_S]
    rows.append(("300 viewers at once", f"{dict(found['viewers']['statuses'])}", ""))
    print_table(f"attacks, load {before['load'][0]:.1f}", rows)
    if options.out:
        path = RESULTS / f"{options.out}.json"
        path.write_text(json.dumps({"machine": before, "seconds": options.seconds, **found}, indent=1) + "\n")
        print(f"written: {path}")
    return 0


def _frames(figures: dict[str, float]) -> str:
    return f"{figures['fps']:.1f} frames/s, gaps up to {figures['worst_gap_ms']:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
