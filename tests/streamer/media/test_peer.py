"""Our peer and aiortc's own as the browser, over the loop, in real time."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from aiortc import rtp

from streamer.errors import ProtocolError
from streamer.media.microphone import Microphone
from tests.streamer.media.client import Client, Gone, Live, Tone, make_peer, run_clean
from tests.streamer.media.offers import CHROME, VIEWER, video_codec


def test_caller_sees_hears_speaks_and_writes() -> None:
    async def scenario() -> None:
        async with Live() as live:
            microphone, gone, heard = Microphone(), Gone(), []
            peer = make_peer(live, microphone=microphone, on_message=heard.append, on_gone=gone)
            client = Client(microphone=Tone(400.0), channel=True)
            answer = await client.connect(peer)
            assert video_codec(answer) == "H264"
            await client.until(lambda: len(client.pictures) > 30 and len(client.blocks) > 60)
            await client.until(lambda: client.channel.readyState == "open")
            assert peer.is_connected
            client.channel.send("hello")
            await client.until(lambda: bool(heard))
            peer.send("hi")
            await client.until(lambda: bool(client.messages))
            assert (heard, client.messages) == (["hello"], ["hi"])
            await client.until(lambda: microphone.buffered_samples > 30_000)
            assert (client.pictures[0].width, client.pictures[0].height) == (64, 64)
            steps = np.diff([picture.pts for picture in client.pictures])
            assert (steps > 0).all() and not (steps % 3600).any()  # a busy machine may skip some
            sound = microphone.take(24_000).astype(float)
            spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
            assert np.argmax(spectrum) * 48_000 / len(sound) == pytest.approx(400, abs=4)
            stats = peer.stats()
            assert stats.codec == "H264" and stats.packets_sent > 60 and stats.packets_lost == 0
            assert stats.silent_s is not None and stats.silent_s < 4
            await peer.close()
            await client.close()
            assert gone.reasons == []  # who closes knows it

    run_clean(scenario)


def test_vp8_is_the_fallback_and_both_play_at_once() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peers = [make_peer(live), make_peer(live)]
            clients = [Client(codec="VP8"), Client(codec="H264")]
            answers = [await client.connect(peer) for client, peer in zip(clients, peers, strict=True)]
            assert [video_codec(answer) for answer in answers] == ["VP8", "H264"]
            for client in clients:
                await client.until(lambda client=client: len(client.pictures) > 12)
            assert live.broadcast.stats.subscribers == {"VP8": 1, "H264": 1, "opus": 2}
            assert [peer.stats().codec for peer in peers] == ["VP8", "H264"]
            for each in [*peers, *clients]:
                await each.close()

    run_clean(scenario)


def test_five_viewers_get_one_encode_and_a_keyframe_each() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peers, clients = [], []
            for _ in range(5):
                peers.append(make_peer(live))
                clients.append(Client())
                await clients[-1].connect(peers[-1])
                await clients[-1].until(lambda: len(clients[-1].pictures) > 3)
            for client in clients:
                seen = len(client.pictures)
                await client.until(lambda client=client, seen=seen: len(client.pictures) > seen + 5)
            stats = live.broadcast.stats
            assert stats.subscribers["H264"] == 5 and stats.subscribers["opus"] == 5
            assert stats.encodes == {"H264": stats.frames_encoded}
            assert stats.frames_encoded <= live.playout.stats.frames_played + live.playout.stats.frames_held
            for each in [*peers, *clients]:
                await each.close()

    run_clean(scenario)


class Stamps:
    """What a client's receiver is told about time: the first RTP timestamp and the sender reports."""

    def __init__(self, receiver: Any, rate_hz: int):
        self.rate_hz = rate_hz
        self.origin: int | None = None
        self.reports: list[tuple[int, int]] = []
        handle_rtp, handle_rtcp = receiver._handle_rtp_packet, receiver._handle_rtcp_packet

        async def noted_rtp(packet: rtp.RtpPacket, arrival_time_ms: int) -> None:
            if self.origin is None:
                self.origin = packet.timestamp
            await handle_rtp(packet, arrival_time_ms)

        async def noted_rtcp(packet: rtp.AnyRtcpPacket) -> None:
            if isinstance(packet, rtp.RtcpSrPacket) and packet.sender_info.ntp_timestamp:
                self.reports.append((packet.sender_info.ntp_timestamp, packet.sender_info.rtp_timestamp))
            await handle_rtcp(packet)

        receiver._handle_rtp_packet, receiver._handle_rtcp_packet = noted_rtp, noted_rtcp

    def ntp_s(self, pts: int) -> float:
        """When that plays, by the last report."""
        assert self.origin is not None
        ntp, timestamp = self.reports[-1]
        distance = (self.origin + pts - timestamp + 2**31) % 2**32 - 2**31
        return ntp / 2**32 + distance / self.rate_hz


def is_white(picture: Any) -> bool:
    return bool(picture.to_ndarray()[:64].mean() > 125)


def loud_from(block: Any) -> int:
    """The sample where it becomes loud; 0 if it does not."""
    samples = np.abs(block.to_ndarray().reshape(-1, 2)[:, 0].astype(int))
    return int(np.argmax(samples > 1000)) if samples.max() > 2000 else 0


def follow_ups(frames: list[Any]) -> list[tuple[Any, Any]]:
    """Neighbours with nothing missing between them: a busy machine may skip some."""
    step = 3600 if frames and frames[0].time_base.denominator == 90_000 else 960
    return [(before, now) for before, now in zip(frames, frames[1:], strict=False) if now.pts - before.pts == step]


def test_flash_and_beep_have_the_same_time_by_the_reports() -> None:
    """Though every chunk is 80 ms late and sent late: reports are of media time."""

    async def scenario() -> None:
        async with Live(late_s=0.08) as live:
            peer, client = make_peer(live), Client()
            sound_receiver, video_receiver = client.connection.getReceivers()
            sound, video = Stamps(sound_receiver, 48_000), Stamps(video_receiver, 90_000)
            await client.connect(peer)
            start_s = live.clock.ntp(0.0) / 2**32

            def flashes() -> list[float]:
                pairs = follow_ups(client.pictures)
                starts = [now for before, now in pairs if is_white(now) and not is_white(before)]
                return [video.ntp_s(picture.pts) - start_s for picture in starts]

            def beeps() -> list[float]:
                pairs = follow_ups(client.blocks)
                starts = [now for before, now in pairs if loud_from(now) and not loud_from(before)]
                return [sound.ntp_s(block.pts + loud_from(block)) - start_s for block in starts]

            await client.until(lambda: bool(sound.reports) and bool(video.reports))
            await client.until(lambda: len(flashes()) >= 2 and len(beeps()) >= 2)
            for flash_s in flashes():
                assert abs(flash_s / 0.48 - round(flash_s / 0.48)) * 0.48 < 0.001
            for beep_s in beeps():  # Opus itself is 6.5 ms late
                assert -0.002 < beep_s - 0.48 * round(beep_s / 0.48) < 0.012
            for each in (peer, client):
                await each.close()

    run_clean(scenario)


# --- ends


def test_a_client_that_vanishes_is_noticed() -> None:
    async def scenario() -> None:
        async with Live() as live:
            gone = Gone()
            peer, client = make_peer(live, on_gone=gone, quiet_limit_s=1.5), Client()
            await client.connect(peer)
            await client.until(lambda: len(client.pictures) > 3)
            await client.vanish()
            await gone.wait()
            assert gone.reasons == ["timeout"]
            await peer.close()
            await client.close()

    run_clean(scenario)


def test_a_viewer_that_only_listens_is_not_taken_for_gone() -> None:
    """Its receiver reports are signs of life, and nothing else comes from it."""

    async def scenario() -> None:
        async with Live() as live:
            gone = Gone()
            peer, client = make_peer(live, on_gone=gone, quiet_limit_s=2.0), Client()
            await client.connect(peer)
            await client.until(lambda: len(client.pictures) > 80)  # more than three seconds
            assert gone.reasons == [] and peer.is_connected
            await peer.close()
            await client.close()

    run_clean(scenario)


def test_who_only_receives_or_sends_may_be_quiet_for_longer() -> None:
    """RFC 3550 lets reports be 7.5 s apart, and consent checks come every 4 to 6 s."""

    async def scenario() -> None:
        async with Live() as live:
            for offer, microphone, limit_s in (
                (CHROME, Microphone(), 4.0),
                (CHROME, None, 15.0),
                (VIEWER, Microphone(), 15.0),
                (CHROME.replace("a=sendrecv", "a=sendonly"), Microphone(), 15.0),
            ):
                peer = make_peer(live, microphone=microphone)
                await peer.answer(offer)
                assert peer._watchdog.silence_limit_s == limit_s
                await peer.close()

    run_clean(scenario)


def test_a_client_that_says_goodbye_is_gone_at_once() -> None:
    async def scenario() -> None:
        async with Live() as live:
            gone, connected = Gone(), Gone()
            peer, client = make_peer(live, on_gone=gone, on_connected=lambda: connected("connected")), Client()
            await client.connect(peer)
            await client.until(lambda: len(client.pictures) > 3)
            assert connected.reasons == ["connected"]
            await client.close()
            await gone.wait()
            assert gone.reasons == ["closed"]
            assert live.broadcast.stats.subscribers["H264"] == 0
            await peer.close()

    run_clean(scenario)


def test_a_client_that_never_connects_times_out() -> None:
    async def scenario() -> None:
        async with Live() as live:
            gone, connected = Gone(), Gone()
            peer = make_peer(live, on_gone=gone, on_connected=lambda: connected("connected"), connect_limit_s=0.1)
            await peer.answer(CHROME)
            await gone.wait()
            assert gone.reasons == ["timeout"] and not peer.is_connected and connected.reasons == []
            assert live.broadcast.stats.subscribers["H264"] == 0
            await peer.close()

    run_clean(scenario)


def test_the_owner_may_close_from_inside_on_gone() -> None:
    async def scenario() -> None:
        async with Live() as live:
            closed = asyncio.Event()

            async def on_gone(reason: str) -> None:
                await peer.close()
                closed.set()

            peer = make_peer(live, on_gone=on_gone, connect_limit_s=0.05)
            await peer.answer(VIEWER)
            await asyncio.wait_for(closed.wait(), 20)

    run_clean(scenario)


def test_close_may_come_at_any_moment_and_twice() -> None:
    async def scenario() -> None:
        async with Live() as live:
            never = make_peer(live)
            await never.close()
            await never.close()
            with pytest.raises(ProtocolError) as caught:
                await never.answer(VIEWER)
            assert caught.value.code == "out_of_order"

            early = make_peer(live, microphone=Microphone())
            answering = asyncio.ensure_future(early.answer(CHROME))
            await asyncio.sleep(0)
            await early.close()
            result = (await asyncio.gather(answering, return_exceptions=True))[0]
            assert isinstance(result, ProtocolError)

            answered = make_peer(live, microphone=Microphone(), connect_limit_s=3600.0)
            await answered.answer(CHROME)
            await asyncio.gather(answered.close(), answered.close(), answered.close())

            cancelled = make_peer(live)
            answering = asyncio.ensure_future(cancelled.answer(CHROME))
            await asyncio.sleep(0)
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            await cancelled.close()

    run_clean(scenario)


def test_ten_connections_leave_nothing() -> None:
    async def scenario() -> None:
        async with Live() as live:
            for _ in range(10):
                microphone = Microphone()
                peer, client = make_peer(live, microphone=microphone), Client(microphone=Tone(), channel=True)
                await client.connect(peer)
                await client.until(lambda client=client: bool(client.pictures))
                await peer.close()
                await client.close()
            stats = live.broadcast.stats
            assert stats.subscribers == {"H264": 0, "VP8": 0, "opus": 0}
            assert not live.broadcast._tracks

    run_clean(scenario)


# --- talking


def test_messages_are_dropped_and_counted_while_there_is_no_channel() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer = make_peer(live)
            peer.send("too early")
            await peer.answer(VIEWER)
            peer.send("no channel")
            assert peer.stats().messages_dropped == 2
            await peer.close()
            peer.send("too late")
            assert peer.stats().messages_dropped == 3

    run_clean(scenario)


def test_a_backed_up_channel_drops_messages() -> None:
    async def scenario() -> None:
        async with Live() as live:
            peer, client = make_peer(live), Client(channel=True)
            await client.connect(peer)
            await client.until(lambda: client.channel.readyState == "open")
            await client.vanish()
            for _ in range(100):
                peer.send("x" * 10_000)
            dropped = peer.stats().messages_dropped
            assert 60 <= dropped < 80
            await peer.close()
            await client.close()

    run_clean(scenario)


def test_the_first_message_can_be_sent_as_soon_as_the_channel_opens() -> None:
    async def scenario() -> None:
        async with Live() as live:
            opened: list[float] = []

            def greet() -> None:
                opened.append(live.clock.media_s())
                peer.send("welcome")

            peer, client = make_peer(live, on_open=greet), Client(channel=True)
            client.connection.createDataChannel("other")  # is closed, and nobody is told
            await client.connect(peer)
            await client.until(lambda: bool(client.messages))
            assert client.messages == ["welcome"] and len(opened) == 1
            assert peer.stats().messages_dropped == 0
            await peer.close()
            await client.close()

    run_clean(scenario)


def test_other_channels_are_closed() -> None:
    async def scenario() -> None:
        async with Live() as live:
            heard: list[str] = []
            peer, client = make_peer(live, on_message=heard.append), Client(channel=True)
            other = client.connection.createDataChannel("other")
            closed = asyncio.Event()
            other.on("close", closed.set)
            await client.connect(peer)
            await client.until(lambda: client.channel.readyState == "open")
            await asyncio.wait_for(closed.wait(), 20)
            client.channel.send(b"binary")  # is not taken
            client.channel.send("text")
            await client.until(lambda: bool(heard))
            assert heard == ["text"]
            await peer.close()
            await client.close()

    run_clean(scenario)


# --- offers
