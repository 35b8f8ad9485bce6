"""The version that the changes of aiortc are for, and what is changed of its connections."""

from __future__ import annotations

import asyncio
import importlib.metadata

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtcrtpsender import RTCRtpSender

from streamer.errors import MissingExtraError
from streamer.media.patches.connection import PatchedConnection, apply
from streamer.media.patches.receiver import SteadyReceiver
from streamer.media.patches.sender import PacedSender
from tests.streamer.media.offers import CHROME


@pytest.fixture
def unapplied():
    apply.cache_clear()
    yield
    apply.cache_clear()


def test_apply_is_idempotent(unapplied: None) -> None:
    apply()
    apply()


@pytest.mark.parametrize("version", ["1.15.0", "1.17.0", "2.0.0", "unknown"])
def test_another_aiortc_is_refused_in_a_sentence(
    unapplied: None, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    with pytest.raises(MissingExtraError, match=r"aiortc 1\.16.*pip install"):
        apply()


def test_a_renamed_method_is_noticed(unapplied: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(RTCRtpSender, "_retransmit")
    with pytest.raises(MissingExtraError, match="_retransmit"):
        apply()


@pytest.mark.parametrize(("patched", "is_clean"), [(True, True), (False, False)])
def test_close_returns_when_nothing_runs_any_more(patched: bool, is_clean: bool) -> None:
    async def main() -> None:
        configuration = RTCConfiguration(iceServers=[])
        connection = PatchedConnection(configuration) if patched else RTCPeerConnection(configuration)
        await connection.setRemoteDescription(RTCSessionDescription(CHROME, "offer"))
        await connection.setLocalDescription()
        await asyncio.sleep(0)
        await connection.close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert (not left) == is_clean
        await asyncio.gather(*left, return_exceptions=True)

    asyncio.run(main())


def test_nothing_is_changed_for_others() -> None:
    async def main() -> None:
        apply()
        other = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        other.addTransceiver("audio")
        (transceiver,) = other.getTransceivers()
        assert type(transceiver.sender) is RTCRtpSender and type(transceiver.receiver) is RTCRtpReceiver
        ours = PatchedConnection(RTCConfiguration(iceServers=[]))
        ours.addTransceiver("audio")
        (transceiver,) = ours.getTransceivers()
        assert type(transceiver.sender) is PacedSender and type(transceiver.receiver) is SteadyReceiver
        await other.close()
        await ours.close()

    asyncio.run(main())
