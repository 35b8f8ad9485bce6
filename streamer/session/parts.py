"""What a session is asked to be, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from models.gallery import Avatar
from streamer.engine import EngineStream
from streamer.media.broadcast import Broadcast
from streamer.media.clock import MediaClock
from streamer.media.gate import SpeechGate
from streamer.media.hearing import Hearing
from streamer.media.microphone import Microphone
from streamer.media.peer import Peer
from streamer.media.playout import Playout
from streamer.protocol import Mode
from streamer.uploads import Uploads
from streamer.voice.client import Speaker

Role = Literal["caller", "viewer"]


class Control(Protocol):
    """What carries out a connection's messages: `streamer.session.control.Controller`."""

    def offer(self, raw: str | bytes) -> None:
        """Takes a message; it is carried out after those before it."""

    def close(self) -> None:
        """The connection has ended."""


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
        gate: makes a speech gate.
        microphone: makes the receiving end of a caller's sound.
        peer: makes the connection of a browser, of everything `Peer` takes but ICE servers.
        find_avatar: by name. Raises UnknownAvatarError.
        prompt_bytes: of a prompt that the models read; None where they read none.
        load_reference: the picture of an avatar, float32 [3, H, W], in the size of the engine's frames.
    """

    clock: MediaClock
    playout: Playout
    broadcast: Broadcast
    stream: EngineStream
    is_engine_ready: Callable[[], bool]
    uploads: Uploads
    voice: Speaker
    gate: Callable[[], SpeechGate]
    microphone: Callable[[], Microphone]
    peer: Callable[..., Peer]
    find_avatar: Callable[[str], Avatar]
    load_reference: Callable[[Avatar], np.ndarray]
    frame_size: tuple[int, int]
    prompt_bytes: int | None


@dataclass(eq=False)
class Connection:
    """A browser that is connected by WebRTC.

    Attributes:
        control, peer: set before anything can happen on the connection.
    """

    ident: str
    role: Role
    hearing: Hearing | None
    control: Control = field(init=False)
    peer: Peer = field(init=False)
    is_connected: bool = False
    is_closed: bool = False

    def send(self, message: str, is_optional: bool = False) -> None:
        """Sends over the data channel; lost, and counted there, if that is not open or backed up."""
        self.peer.send(message)
