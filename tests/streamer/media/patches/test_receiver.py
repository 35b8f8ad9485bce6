"""What is changed of aiortc's receiving, held against its own: where that is as good one day, the change can go."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from aiortc import rtp
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import RemoteStreamTrack, RTCRtpReceiver

from streamer.media.audio_encoder import OpusEncoder
from streamer.media.patches.receiver import (
    DECODER_PACKETS,
    INCOMING_FRAMES,
    MAX_INCOMING_STREAMS,
    IncomingQueue,
    SteadyReceiver,
)
from tests.streamer.media.simulated import SimulatedTime, settle
from tests.streamer.media.transports import OPUS, RecordingTransport


def receive(receiver_class: type[RTCRtpReceiver], sequences: list[int]) -> tuple[list[Any], Any]:
    """Feeds real Opus packets with these numbers; returns what comes out of the track, and the receiver."""
    encoder = OpusEncoder()
    tone = (6000 * np.sin(2 * np.pi * 300 * np.arange(960) / 48_000)).astype(np.int16)
    payloads = [bytes(encoder.encode(tone, block)) for block in range(max(sequences) + 1)]

    async def main() -> tuple[list[Any], Any]:
        receiver: Any = receiver_class("audio", RecordingTransport(SimulatedTime()))  # type: ignore[arg-type]
        receiver._track = RemoteStreamTrack(kind="audio")
        receiver._set_rtcp_ssrc(1)
        await receiver.receive(RTCRtpReceiveParameters(codecs=[OPUS], muxId="0"))
        await settle()
        for number in sequences:
            packet = rtp.RtpPacket(96, 0, (65_500 + number) % 65_536, (2**32 - 9600 + 960 * number) % 2**32, 5)
            packet.payload = payloads[number]
            await receiver._handle_rtp_packet(packet, arrival_time_ms=0)
            while receiver._RTCRtpReceiver__decoder_queue.qsize() > 30:  # the thread is slower than this loop
                await asyncio.sleep(0.001)
        await receiver.stop()  # joins the decoder's thread
        await settle()
        queue = receiver.track._queue
        frames = [queue.get_nowait() for _ in range(queue.qsize())]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return [frame for frame in frames if frame is not None], receiver

    return asyncio.run(main())


def test_incoming_sound_goes_on_over_holes() -> None:
    """Every tenth packet is missing. Ours gives the others, in time; aiortc's gives far fewer."""
    sequences = [number for number in range(50) if number % 10 != 5]
    frames, receiver = receive(SteadyReceiver, sequences)
    assert [round(frame.pts / 960) for frame in frames] == sequences
    assert receiver.jitter_stats.lost == 5 and receiver.jitter_stats.packets == 45
    plain, _ = receive(RTCRtpReceiver, sequences)
    assert len(plain) < 0.8 * len(sequences)


def test_incoming_sound_is_put_in_order_over_the_wrap_of_both_counters() -> None:
    order = list(range(49))
    order[10], order[11] = order[11], order[10]  # around the wrap of the RTP time
    order[36], order[37] = order[37], order[36]  # … and of the sequence number
    frames, receiver = receive(SteadyReceiver, order)
    assert [frame.pts for frame in frames] == [960 * number for number in range(49)]
    assert receiver.jitter_stats.lost == 0


def test_the_last_packet_before_a_silence_is_not_kept_back() -> None:
    """Behind a hole, with nothing newer coming: the timer releases it."""

    async def main() -> None:
        receiver: Any = SteadyReceiver("audio", RecordingTransport(SimulatedTime()))  # type: ignore[arg-type]
        receiver._track = RemoteStreamTrack(kind="audio")
        await receiver.receive(RTCRtpReceiveParameters(codecs=[OPUS], muxId="0"))
        payload = bytes(OpusEncoder().encode(np.zeros(960, np.int16), 0))
        for number in (0, 2):
            packet = rtp.RtpPacket(96, 0, number, 960 * number, 5, payload)
            await receiver._handle_rtp_packet(packet, arrival_time_ms=0)
        frames = [await asyncio.wait_for(receiver.track.recv(), 20) for _ in range(2)]
        assert [frame.pts for frame in frames] == [0, 1920]
        await receiver.stop()

    asyncio.run(main())


def test_incoming_streams_are_bounded() -> None:
    async def main() -> None:
        receiver: Any = SteadyReceiver("audio", RecordingTransport(SimulatedTime()))  # type: ignore[arg-type]
        receiver._track = RemoteStreamTrack(kind="audio")
        await receiver.receive(RTCRtpReceiveParameters(codecs=[OPUS], muxId="0"))
        for ssrc in range(100):
            await receiver._handle_rtp_packet(rtp.RtpPacket(96, 0, 0, 0, ssrc, b""), arrival_time_ms=0)
        assert len(receiver._RTCRtpReceiver__remote_streams) == MAX_INCOMING_STREAMS
        await receiver.stop()

    asyncio.run(main())


def test_a_track_that_nobody_reads_does_not_grow() -> None:
    async def main() -> None:
        receiver: Any = SteadyReceiver("audio", RecordingTransport(SimulatedTime()))  # type: ignore[arg-type]
        receiver._track = track = RemoteStreamTrack(kind="audio")
        for number in range(1000):
            await track._queue.put(number)
        assert isinstance(track._queue, IncomingQueue)
        assert track._queue.qsize() == INCOMING_FRAMES and track._queue.dropped == 950
        assert await track.recv() == 950  # the oldest went

    asyncio.run(main())


def test_a_decoder_that_hangs_loses_packets_instead_of_storing_them() -> None:
    async def main() -> None:
        receiver: Any = SteadyReceiver("audio", RecordingTransport(SimulatedTime()))  # type: ignore[arg-type]
        receiver._RTCRtpReceiver__decoder_thread = object()  # takes nothing
        receiver._RTCRtpReceiver__codecs = {96: OPUS}
        for number in range(1000):
            await receiver._handle_rtp_packet(rtp.RtpPacket(96, 0, number, 960 * number, 5, b"x"), arrival_time_ms=0)
        assert receiver._RTCRtpReceiver__decoder_queue.qsize() == DECODER_PACKETS

    asyncio.run(main())
