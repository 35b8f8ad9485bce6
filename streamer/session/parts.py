"""What a session is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from models.gallery import Avatar
from streamer.media.hearing import GateLike, Hearing, MicrophoneLike
from streamer.protocol import Mode
from streamer.session.chunks import EngineStreamLike, PlayoutLike
from streamer.session.sources import VoiceLike
from streamer.session.timeline import Clock

Role = Literal["caller", "viewer"]


class BroadcastLike(Protocol):
    """What is needed of `streamer.media.broadcast.Broadcast`."""

    async def run(self) -> None: ...
    @property
    def stats(self) -> Any: ...


class PeerLike(Protocol):
    """What is needed of `streamer.media.peer.Peer`."""

    async def answer(self, offer_sdp: str) -> str: ...
    async def add_candidates(self, sdp_fragment: str) -> None: ...
    def send(self, message: str) -> None: ...
    async def close(self) -> None: ...
    def stats(self) -> Any: ...


class Control(Protocol):
    """What carries out a connection's messages: `streamer.session.control.Controller`."""

    def offer(self, raw: str | bytes) -> None: ...
    def close(self) -> None: ...


class SpeakingVoice(VoiceLike, Protocol):
    """What is needed of `streamer.voice.client.Speaker`."""

    def check(self) -> None: ...


@dataclass(frozen=True)
class SessionSpec:
    """What a session was asked to be."""

    avatar: Avatar
    prompt: str
    mode: Mode
    seed: int
    is_barge_in: bool


@dataclass(frozen=True)
class SessionParts:
    """What a session is made of, so that tests can make it of something else.

    Attributes:
        stream: the engine's, opened.
        is_engine_ready: whether it takes steps now.
        cancelled: what a rewound step raises.
        gate: makes a speech gate.
        microphone: makes the receiving end of a caller's sound.
        peer: makes the connection of a browser; see `Session.connect`.
        load_reference: the picture of an avatar, float32 [3, H, W], in the size of the engine's frames.
    """

    clock: Clock
    playout: PlayoutLike
    broadcast: BroadcastLike
    stream: EngineStreamLike
    is_engine_ready: Callable[[], bool]
    cancelled: type[Exception]
    voice: SpeakingVoice
    gate: Callable[[], GateLike]
    microphone: Callable[[], MicrophoneLike]
    peer: Callable[..., PeerLike]
    load_reference: Callable[[Avatar], np.ndarray]
    find_avatar: Callable[[str], Avatar]
    frame_size: tuple[int, int]


@dataclass(eq=False)
class Connection:
    """A browser that is connected by WebRTC."""

    ident: str
    role: Role
    peer: PeerLike
    hearing: Hearing | None
    control: Control
    is_closed: bool = False

    def send(self, message: str, is_optional: bool = False) -> None:
        """Sends over the data channel; lost, and counted there, if that is not open or backed up."""
        self.peer.send(message)
