"""What is changed of aiortc's sending, held against its own: where that is as good one day, the change can go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from aiortc import rtp
from aiortc.rtcrtpparameters import RTCRtcpParameters, RTCRtpSendParameters
from aiortc.rtcrtpsender import RTCRtpSender

from streamer.media.patches.sender import PacedSender
from streamer.media.tracks import PacketTrack
from tests.streamer.media.simulated import SimulatedClock, SimulatedTime, settle
from tests.streamer.media.transports import H264, RecordingTransport


class Sending:
    """A sender of a track, in simulated time."""

    def __init__(self, sender_class: type[RTCRtpSender]):
        self.time = SimulatedTime()
        self.clock = SimulatedClock(self.time, unix_s=1_000_000_000.0)  # not the time of day
        self.keyframes = 0
        self.bitrate_bps = 500_000
        self.track = PacketTrack(
            "video",
            "H264",
            self.clock,
            on_subscribe=lambda track: None,
            on_stop=lambda track: None,
            on_keyframe=self._count_keyframe,
            bitrate_bps=lambda: self.bitrate_bps,
        )
        self.transport = RecordingTransport(self.time)
        options = {"now": self.time, "sleep": self._sleep} if sender_class is PacedSender else {}
        self.sender: Any = sender_class(self.track, self.transport, **options)  # type: ignore[arg-type]

    def _count_keyframe(self) -> None:
        self.keyframes += 1

    async def _sleep(self, seconds: float) -> None:
        self.time.now_s += seconds
        await asyncio.sleep(0)

    async def start(self) -> None:
        parameters = RTCRtpSendParameters(codecs=[H264], muxId="1")
        parameters.rtcp = RTCRtcpParameters(cname="name", mux=True, ssrc=self.sender._ssrc)
        await self.sender.send(parameters)
        await settle()

    async def frame(self, index: int, size: int = 100) -> None:
        unit = np.random.default_rng(index).integers(1, 255, size, np.uint8).tobytes()
        packet = av.Packet(b"\0\0\0\1\x65" + unit)
        packet.pts, packet.time_base, packet.is_keyframe = index * 3600, Fraction(1, 90_000), True
        self.track.offer(packet)
        await settle()
        await settle()


def sending(scenario: Callable[[Sending], Awaitable[None]], sender_class: type[RTCRtpSender] = PacedSender) -> None:
    async def main() -> None:
        stage = Sending(sender_class)
        await stage.start()
        try:
            await scenario(stage)
        finally:
            await stage.sender.stop()
        assert stage.track.readyState == "ended"

    asyncio.run(main())


async def report_error_s(stage: Sending, monkeypatch: pytest.MonkeyPatch) -> float:
    """How far the time in a sender report is from the media time of its RTP time, for a frame 150 ms late."""
    stage.time.now_s += 4.0 + 0.15
    await stage.frame(100)  # of 4.0 s
    (_, packet), *_ = stage.transport.packets()
    while not stage.transport.reports():
        stage.transport.arrival.clear()
        await asyncio.wait_for(stage.transport.arrival.wait(), 20)
    info = stage.transport.reports()[0].sender_info
    assert info.rtp_timestamp == packet.timestamp
    return (info.ntp_timestamp - stage.clock.ntp(4.0)) / 2**32


@pytest.mark.parametrize(("sender_class", "is_right"), [(PacedSender, True), (RTCRtpSender, False)])
def test_sender_reports_are_of_media_time(
    monkeypatch: pytest.MonkeyPatch, sender_class: type[RTCRtpSender], is_right: bool
) -> None:
    monkeypatch.setattr("aiortc.rtcrtpsender.random", SimpleNamespace(random=lambda: -0.45))  # a report in 50 ms

    async def scenario(stage: Sending) -> None:
        error_s = await report_error_s(stage, monkeypatch)
        assert (abs(error_s) < 1e-6) == is_right

    sending(scenario, sender_class)


@pytest.mark.parametrize(("sender_class", "is_paced"), [(PacedSender, True), (RTCRtpSender, False)])
def test_a_large_frame_is_spread_over_time(sender_class: type[RTCRtpSender], is_paced: bool) -> None:
    async def scenario(stage: Sending) -> None:
        await stage.frame(0, 49_000)
        packets = stage.transport.packets()
        assert len(packets) == 38
        assert [packet.marker for _, packet in packets] == [0] * 37 + [1]
        assert len({packet.timestamp for _, packet in packets}) == 1
        numbers = [packet.sequence_number for _, packet in packets]
        assert numbers == list(range(numbers[0], numbers[0] + 38))
        times = [when for when, _ in packets]
        assert (max(times.count(when) for when in times) <= 2) == is_paced
        assert (0.06 < times[-1] - times[0] <= 0.08) == is_paced

    sending(scenario, sender_class)


def test_frames_follow_at_their_rtp_time() -> None:
    async def scenario(stage: Sending) -> None:
        for index in (10, 11, 15):
            await stage.frame(index)
        stamps = [packet.timestamp for _, packet in stage.transport.packets()]
        assert np.diff(stamps).tolist() == [3600, 14_400]

    sending(scenario)


@pytest.mark.parametrize(("sender_class", "is_limited"), [(PacedSender, True), (RTCRtpSender, False)])
def test_repeat_requests_get_a_share_of_the_bitrate(sender_class: type[RTCRtpSender], is_limited: bool) -> None:
    async def scenario(stage: Sending) -> None:
        await stage.frame(0, 26_000)
        lost = [packet.sequence_number for _, packet in stage.transport.packets()]
        before = len(stage.transport.sent)
        for _ in range(50):
            await stage.sender._handle_rtcp_packet(
                rtp.RtcpRtpfbPacket(fmt=rtp.RTCP_RTPFB_NACK, ssrc=1, media_ssrc=stage.sender._ssrc, lost=lost)
            )
        resent = len(stage.transport.sent) - before
        assert (resent <= 8000 // 1200) == is_limited
        if is_limited:
            assert resent == stage.sender.packets_resent > 0
            assert stage.sender.budget.refused == 50 * len(lost) - resent
            resent_packet = rtp.RtpPacket.parse(stage.transport.sent[before][1])
            assert resent_packet.sequence_number == lost[0]

    sending(scenario, sender_class)


@pytest.mark.parametrize("kind", [rtp.RTCP_PSFB_PLI, rtp.RTCP_PSFB_FIR])
@pytest.mark.parametrize(("sender_class", "arrives"), [(PacedSender, True), (RTCRtpSender, False)])
def test_picture_loss_asks_the_broadcast_for_a_keyframe(
    kind: int, sender_class: type[RTCRtpSender], arrives: bool
) -> None:
    async def scenario(stage: Sending) -> None:
        await stage.frame(0)
        before = stage.keyframes
        await stage.sender._handle_rtcp_packet(rtp.RtcpPsfbPacket(fmt=kind, ssrc=1, media_ssrc=stage.sender._ssrc))
        assert stage.keyframes == before + arrives

    sending(scenario, sender_class)


@pytest.mark.parametrize(("sender_class", "arrives"), [(PacedSender, True), (RTCRtpSender, False)])
def test_remb_and_loss_reach_the_estimate(sender_class: type[RTCRtpSender], arrives: bool) -> None:
    def remb(bitrate_bps: int, ssrc: int) -> rtp.RtcpPsfbPacket:
        fci = rtp.pack_remb_fci(bitrate_bps, [ssrc])
        return rtp.RtcpPsfbPacket(fmt=rtp.RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=fci)

    async def scenario(stage: Sending) -> None:
        await stage.frame(0)
        await stage.sender._handle_rtcp_packet(remb(100_000, stage.sender._ssrc ^ 1))  # of another stream
        assert stage.track.estimate.limit_bps is None
        await stage.sender._handle_rtcp_packet(remb(240_000, stage.sender._ssrc))
        assert (stage.track.estimate.limit_bps == pytest.approx(240_000, rel=0.01)) == arrives
        report = rtp.RtcpReceiverInfo(stage.sender._ssrc, 128, 77, 0, 0, 0, 0)
        stage.bitrate_bps = 200_000
        await stage.sender._handle_rtcp_packet(rtp.RtcpRrPacket(ssrc=1, reports=[report]))
        assert (stage.track.estimate.limit_bps == pytest.approx(150_000)) == arrives
        if arrives:
            assert (stage.sender.packets_lost, stage.sender.fraction_lost) == (77, 0.5)

    sending(scenario, sender_class)


def test_broken_remb_is_harmless() -> None:
    async def scenario(stage: Sending) -> None:
        await stage.sender._handle_rtcp_packet(
            rtp.RtcpPsfbPacket(fmt=rtp.RTCP_PSFB_APP, ssrc=1, media_ssrc=0, fci=b"XXXX\1\2\3\4\5\6\7\10")
        )
        assert stage.track.estimate.limit_bps is None

    sending(scenario)
