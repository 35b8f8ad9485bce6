"""Puts the real parts together: engine, media and voice into sessions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.gallery import Avatar
from streamer.engine import Engine, StreamSpec
from streamer.media.broadcast import Broadcast
from streamer.media.clock import MediaClock
from streamer.media.gate import SpeechGate
from streamer.media.ice_servers import IceServer
from streamer.media.microphone import Microphone
from streamer.media.network import Network
from streamer.media.peer import Peer
from streamer.media.playout import Playout
from streamer.picture import load_picture
from streamer.presenters import find_avatar, prompt_bytes
from streamer.session.cutter import ChunkTimes
from streamer.session.metrics import Metrics
from streamer.session.parts import SessionParts, SessionSpec
from streamer.session.session import Session
from streamer.uploads import OwnPictures, Uploads
from streamer.uploads.own_pictures import PREFIX
from streamer.voice.client import Voice


class Assembly:
    """Makes sessions of a running engine and voice.

    Args:
        avatars: the gallery as far as it can be shown.
        default_avatar: of a session that does not ask for one; None for the first.
        chunk_latents: of every session, where the model leaves a choice.
        longest_session_s: None for no end.
        uploads, pictures: what users bring; pictures None: nobody can bring any.

    Raises:
        UnknownAvatarError: if there is no such default avatar.
    """

    def __init__(
        self,
        engine: Engine,
        voice: Voice,
        metrics: Metrics,
        avatars: list[Avatar],
        *,
        default_avatar: str | None = None,
        chunk_latents: int = 3,
        longest_session_s: float | None = None,
        ice_servers: Sequence[IceServer] = (),
        network: Network | None = None,
        uploads: Uploads | None = None,
        pictures: OwnPictures | None = None,
    ):
        facts = engine.facts
        self.times = ChunkTimes.of_engine(facts.fixed_latents or chunk_latents, facts.delay_frames, facts.warm_rtf)
        self._longest_session_s = longest_session_s
        self._engine = engine
        self._voice = voice
        self._uploads = Uploads() if uploads is None else uploads
        self._pictures = pictures
        self._metrics = metrics
        self._avatars = avatars
        self._default = find_avatar(default_avatar, avatars).name
        self._network = network
        self._ice_servers = ice_servers

    def choose(self, name: str | None) -> Avatar:
        """The avatar of that name, which may be a user's own picture, or the default one.

        Raises:
            UnknownAvatarError: if there is none.
        """
        if self._pictures is not None and name is not None and name.startswith(PREFIX):
            return self._pictures.get(name)
        return find_avatar(name or self._default, self._avatars)

    async def build(self, ident: str, spec: SessionSpec, phase: float | None) -> Session:
        """See `Registry`."""
        facts, times = self._engine.facts, self.times
        reference = await asyncio.to_thread(self.load_reference, spec.avatar)
        stream = await self._engine.open(StreamSpec(reference, spec.prompt, spec.seed, times.latents))
        try:
            now = time.monotonic()
            first_cut_s = now if phase is None else now + (phase - now) % times.chunk_s
            clock = MediaClock(first_cut_s - times.first_cut_s)
            playout = Playout(clock, facts.frame_size, times.max_frames_ahead)
            parts = SessionParts(
                clock=clock,
                playout=playout,
                broadcast=Broadcast(clock, playout, facts.frame_size),
                stream=stream,
                is_engine_ready=lambda: self._engine.is_ready,
                uploads=self._uploads,
                voice=self._voice.speaker(),
                gate=SpeechGate,
                microphone=Microphone,
                peer=self._peer,
                load_reference=self.load_reference,
                find_avatar=self.choose,
                frame_size=facts.frame_size,
                prompt_bytes=prompt_bytes(facts.preset),
            )
            return Session(ident, spec, parts, times, self._metrics, self._longest_session_s)
        except BaseException:
            await stream.close()
            raise

    def _peer(self, **wanted: Any) -> Peer:
        """A connection, with its own credentials for TURN servers."""
        issued = [server.issued() for server in self._ice_servers]
        servers = [{"urls": one.url, "username": one.username, "credential": one.credential} for one in issued]
        return Peer(ice_servers=servers, network=self._network, **wanted)

    def load_reference(self, avatar: Avatar) -> np.ndarray:
        """An avatar's picture, float32 [3, H, W] in 0 … 1, of the engine's size."""
        height, width = self._engine.facts.frame_size
        return load_picture(avatar.picture, height, width, avatar.square if height == width else None)
