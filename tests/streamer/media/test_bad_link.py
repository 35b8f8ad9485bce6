"""A caller behind a bad network: 5 % of the packets lost each way, 100 ms of round trip."""

from __future__ import annotations

import asyncio
import statistics
import time
from fractions import Fraction
from typing import Any

import av
import numpy as np
from aiortc import rtp
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from benchmarks.browser.link import Link, address_of, with_address, without_candidates
from streamer.media.audio_encoder import OpusEncoder
from streamer.media.microphone import Microphone
from streamer.media.peer import Peer
from tests.streamer.media.client import Client, Live, make_peer, run_clean

LOSS = 0.05
DELAY_S = 0.05
SEED = 35  # neither lucky nor unlucky: 5.1 % of the first thousand packets, each way
SECONDS = 20
CHUNK_SAMPLES = 23_040  # 480 ms


class EncodedTone(MediaStreamTrack):
    """A microphone whose packets are ready: on a busy machine an encoder's thread would be later than any network."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        encoder = OpusEncoder()
        wave = (8000 * np.sin(2 * np.pi * 400 * np.arange(48_000) / 48_000)).astype(np.int16)
        self._payloads = [bytes(encoder.encode(block, k)) for k, block in enumerate(wave.reshape(50, 960))]
        self._sent = 0
        self._started_s = time.monotonic()

    async def recv(self) -> av.Packet:
        if self.readyState != "live":
            raise MediaStreamError
        await asyncio.sleep(max(0.0, self._started_s + 0.02 * self._sent - time.monotonic()))
        packet = av.Packet(self._payloads[self._sent % 50])
        packet.pts, packet.time_base = 960 * self._sent, Fraction(1, 48_000)
        self._sent += 1
        return packet


class Arrivals:
    """When the packets of a client's picture come. What its decoder makes of them is not the server's doing."""

    def __init__(self, client: Client):
        self.at_s: dict[int, float] = {}  # by RTP timestamp; a packet that is sent again is one that comes late
        receiver: Any = next(t.receiver for t in client.connection.getTransceivers() if t.kind == "video")
        handle = receiver._handle_rtp_packet

        async def noted(packet: rtp.RtpPacket, arrival_time_ms: int) -> None:
            self.at_s.setdefault(packet.timestamp, time.monotonic())
            await handle(packet, arrival_time_ms)

        receiver._handle_rtp_packet = noted

    def behind_s(self) -> list[float]:
        """How much later than at the first every frame came, against its media time, in order of coming."""
        first, first_s = next(iter(self.at_s.items()))
        return [at_s - first_s - (timestamp - first) % 2**32 / 90_000 for timestamp, at_s in self.at_s.items()]


async def connect(client: Client, peer: Peer) -> Link:
    """Through a link that loses nothing until the connection stands, and then what it should."""
    answer = await peer.answer(without_candidates(await client.offer()))
    link = await Link.open(address_of(answer), 0.0, DELAY_S, seed=SEED)
    await client.accept(with_address(answer, link.address))
    await client.until(lambda: len(client.pictures) > 5)
    link.loss = LOSS
    return link


def test_picture_and_voice_get_through_a_bad_network_without_falling_behind() -> None:
    async def scenario() -> None:
        async with Live() as live:
            microphone = Microphone()
            peer, client = make_peer(live, microphone=microphone), Client(microphone=EncodedTone())
            link = await connect(client, peer)
            arrivals = Arrivals(client)
            await live.clock.wait_until(live.clock.media_s() + 1.0)
            microphone.take(CHUNK_SAMPLES)  # what came while nobody took
            before_ms = microphone.stats.concealed_ms + microphone.stats.starved_ms
            began_s, left_ms = live.clock.media_s(), []
            for chunk in range(int(SECONDS / 0.48)):
                await live.clock.wait_until(began_s + 0.48 * (chunk + 1))
                left_ms.append(microphone.buffered_samples / 48 - 480)
                microphone.take(CHUNK_SAMPLES)
            seconds = live.clock.media_s() - began_s
            missing_ms = microphone.stats.concealed_ms + microphone.stats.starved_ms - before_ms
            behind_s = arrivals.behind_s()

            assert len(behind_s) / (seconds + 1.0) >= 20
            half = len(behind_s) // 2
            assert statistics.median(behind_s[half:]) - statistics.median(behind_s[:half]) < 0.1
            assert 0.01 * seconds < missing_ms / 1000 <= 0.07 * seconds  # the network does lose
            assert max(left_ms) < 300 and statistics.median(left_ms[len(left_ms) // 2 :]) < 150
            for direction in (link.up, link.down):
                assert 0.03 < direction.lost / direction.sent < 0.07
            rtt_ms = peer.stats().rtt_ms
            assert rtt_ms is not None and rtt_ms > 90
            await peer.close()
            await client.close()
            link.close()
            await microphone.close()

    run_clean(scenario)
