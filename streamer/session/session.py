"""A session: one presenter from the first frame to the last. `Audience` is who is connected, `Speech` what is said."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import numpy as np

from models.gallery import Avatar
from streamer.errors import EngineError, ProtocolError
from streamer.log import shortened
from streamer.media import FPS
from streamer.protocol import Closed, ClosedReason, Emotion, ErrorMessage, SessionInfo, prompt_text
from streamer.session.audience import Audience
from streamer.session.chunks import ChunkLoop
from streamer.session.cutter import ChunkTimes, Cutter
from streamer.session.figures import Figures
from streamer.session.hub import Hub
from streamer.session.metrics import Metrics
from streamer.session.parts import SessionParts, SessionSpec
from streamer.session.speech import Speech
from streamer.session.tasks import Tasks, within_limit
from streamer.session.timeline import Timeline

LINKS = ("webrtc", "whep", "events", "say", "audio", "interrupt")

log = logging.getLogger(__name__)


class Session:
    """One live session. `run` is its life; everything else may be called while it runs.

    None of its parts knows it, so that all of them are gone at once when it is let go.

    Args:
        ident: of the session; hard to guess, for whoever knows it may join.
        times: of its chunks.
        longest_s: after which it ends; None for no end.
        now_ms: time of day, milliseconds.
    """

    def __init__(
        self,
        ident: str,
        spec: SessionSpec,
        parts: SessionParts,
        times: ChunkTimes,
        metrics: Metrics,
        longest_s: float | None = None,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ):
        self.ident = ident
        self.parts = parts
        self.first_cut_s = parts.clock.wall_s(times.first_cut_s)
        self.end_reason: ClosedReason | None = None
        self.has_started = asyncio.Event()
        self.tasks = Tasks()
        self.hub = Hub()
        self.timeline = Timeline(parts.clock, self.hub.emit, self.tasks.spawn)
        self.cutter = Cutter(times, self.timeline, metrics)
        self.audience = Audience(
            describe(ident, spec, parts, now_ms()),
            parts,
            self.cutter,
            self.timeline,
            self.hub,
            self.tasks,
            metrics,
        )
        self.figures = Figures(times, parts, self.audience, metrics)
        self.chunks = ChunkLoop(times, parts, self.cutter, self.timeline, self.figures, self.hub, self.tasks)
        self.speech = Speech(spec, parts, self.cutter, self.chunks, self.hub, self.tasks)
        self._longest_s = longest_s
        self._is_barge_in = spec.is_barge_in
        self._is_prompt_own = spec.prompt != spec.avatar.prompt
        self._next_avatar: tuple[Avatar, np.ndarray] | None = None
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Lives until `end` is called or something in it fails; everything is closed afterwards."""
        try:
            async with self.tasks:
                self.tasks.spawn(self.parts.broadcast.run())
                self.tasks.spawn(self.chunks.run(self._between_chunks))
                self.tasks.spawn(self.figures.report(self.hub))
                self.tasks.spawn(self._end_when_alone())
                if self._longest_s is not None:
                    self.tasks.spawn(self._end_at(self._longest_s))
                if self._is_barge_in:
                    self.tasks.spawn(self.speech.listen())
                self.has_started.set()
                await self._ended.wait()
                self.tasks.cancel()
        except* EngineError as errors:
            log.error("session %s lost the engine: %s", shortened(self.ident), errors.exceptions[0])
            self.end("engine_lost")
        except* Exception as errors:
            if self.end_reason is None:
                log.error("session %s failed", shortened(self.ident), exc_info=errors)
            self.end("internal")
        finally:
            self.end("server_stopping")
            self.has_started.set()
            self.speech.close()
            await within_limit(self.parts.stream.close())
            await self.audience.close()

    def end(self, reason: ClosedReason) -> None:
        """Says why and lets `run` come to its end. Only the first reason counts."""
        if self.end_reason is None:
            self.end_reason = reason
            self.hub.emit(Closed(reason=reason))
            self.tasks.shut()
            self._ended.set()

    async def ended(self) -> None:
        """Returns when `end` has been called."""
        await self._ended.wait()

    async def _end_when_alone(self) -> None:
        await self.audience.gone()
        self.end("idle")

    async def _end_at(self, media_s: float) -> None:
        await self.parts.clock.wait_until(media_s)
        self.end("time_limit")

    async def set_prompt(self, prompt: str | None, emotion: Emotion | None, gestures: float | None) -> None:
        """From the next chunk on.

        Raises:
            ProtocolError: if there is nothing to set.
            EngineError: if the engine does not take it.
        """
        text = prompt_text(prompt, emotion)
        if text is None and gestures is None:
            raise ProtocolError("`set_prompt` needs `prompt`, `emotion` or `gestures`.")
        await self.parts.stream.update(prompt=text, motion_energy=gestures)
        if text is not None and text != self.audience.info.prompt:
            self._is_prompt_own = True
            self.audience.describe(prompt=text)

    async def set_avatar(self, name: str) -> None:
        """At the next moment without speech.

        Raises:
            UnknownAvatarError: if there is none of that name, or its picture cannot be read.
        """
        avatar = self.parts.find_avatar(name)
        self._next_avatar = (avatar, await asyncio.to_thread(self.parts.load_reference, avatar))

    def _between_chunks(self) -> None:
        if self._next_avatar is not None and self.cutter.is_quiet and not self.timeline.is_speaking:
            (avatar, reference), self._next_avatar = self._next_avatar, None
            self.tasks.spawn(self._change_avatar(avatar, reference))

    async def _change_avatar(self, avatar: Avatar, reference: np.ndarray) -> None:
        prompt = None if self._is_prompt_own else avatar.prompt
        try:
            await self.parts.stream.update(reference=reference, prompt=prompt)
        except EngineError as error:
            self.hub.emit(ErrorMessage(code="engine_lost", message=str(error), in_reply_to="set_avatar"))
            return
        self.audience.describe(avatar=avatar.name, prompt=self.audience.info.prompt if prompt is None else prompt)


def describe(ident: str, spec: SessionSpec, parts: SessionParts, created_ms: int) -> SessionInfo:
    """A session as the protocol shows it before anybody has come."""
    return SessionInfo(
        id=ident,
        avatar=spec.avatar.name,
        prompt=spec.prompt,
        mode=spec.mode,
        state="idle",
        prompt_bytes=parts.prompt_bytes,
        frame_size=parts.frame_size,
        fps=FPS,
        viewers=0,
        created_ms=created_ms,
        links={name: f"/v1/sessions/{ident}/{name}" for name in LINKS},
    )
