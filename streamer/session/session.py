"""A session: one presenter, its clock, what it says, and everybody who is connected to it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np

from models.gallery import Avatar
from streamer.errors import CapacityError, EngineError, MissingExtraError, ProtocolError, SessionError
from streamer.media.hearing import LISTEN_S, Hearing
from streamer.protocol import (
    Closed,
    ClosedReason,
    Emotion,
    ErrorMessage,
    Queued,
    SessionInfo,
    SessionMessage,
    dump,
    prompt_text,
)
from streamer.session.chunks import ChunkLoop
from streamer.session.cutter import ChunkTimes, Cutter
from streamer.session.figures import REPORT_S, Figures
from streamer.session.hub import Hub, Listener
from streamer.session.metrics import Metrics
from streamer.session.parts import Connection, Control, PeerLike, Role, SessionParts, SessionSpec
from streamer.session.sources import (
    Queue,
    SoundFile,
    StreamUtterance,
    Utterance,
    check_text,
    decoded,
    spoken,
)
from streamer.session.timeline import Timeline

IDLE_S = 30.0  # without a connection
MAX_VIEWERS = 100
CLOSE_TIMEOUT_S = 3.0
FPS = 25

log = logging.getLogger(__name__)


class Session:
    """One live session. `run` is its life; everything else may be called while it runs.

    Args:
        ident: of the session; hard to guess, for whoever knows it may join.
        times: of its chunks.
        now_ms: time of day, milliseconds.
    """

    def __init__(
        self,
        ident: str,
        spec: SessionSpec,
        parts: SessionParts,
        times: ChunkTimes,
        metrics: Metrics,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ):
        self.ident = ident
        self.spec = spec
        self.parts = parts
        self.times = times
        self.hub = Hub()
        self.connections: dict[str, Connection] = {}
        self.end_reason: ClosedReason | None = None
        self.has_started = asyncio.Event()
        self.timeline = Timeline(parts.clock, self.hub.emit, self.spawn)
        self.queue = Queue()
        self.cutter = Cutter(times, self.queue, self.timeline, metrics)
        budget = times.new_budget()
        self.first_cut_s = parts.clock.wall_s(times.cut_s(0, budget.seconds))
        self.chunks = ChunkLoop(
            times,
            budget,
            parts.clock,
            parts.stream,
            parts.playout,
            self.cutter,
            self.timeline,
            metrics,
            is_engine_ready=parts.is_engine_ready,
            encode_ms=lambda: parts.broadcast.stats.encode_ms,
            emit=self.hub.emit,
            spawn=self.spawn,
            cancelled=parts.cancelled,
        )
        self.chunks.before_cut = self._between_chunks
        self._figures = Figures(parts.broadcast, parts.playout, self.chunks.counts, metrics)
        self._metrics = metrics
        self._frame_size = parts.frame_size
        self._avatar = spec.avatar
        self._prompt = spec.prompt
        self._is_prompt_own = spec.prompt != spec.avatar.prompt
        self._next_avatar: tuple[Avatar, np.ndarray] | None = None
        self._created_ms = now_ms()
        self._names = 0
        self._websockets = 0
        self._told = self.describe()
        self._ended = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._idle_timer: asyncio.Task[None] | None = None

    # -- life ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Lives until `end` is called or something in it fails; everything is closed afterwards."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for work in (self.parts.broadcast.run(), self.chunks.run(), self._listen(), self._report()):
                    self.spawn(work)
                self._connections_changed()
                self.has_started.set()
                await self._ended.wait()
                for task in tuple(self._tasks):
                    task.cancel()
        except* EngineError as errors:
            log.error("session %s lost the engine: %s", self.ident, errors.exceptions[0])
            self.end("engine_lost")
        except* Exception as errors:
            if self.end_reason is None:
                log.error("session %s failed", self.ident, exc_info=errors)
            self.end("internal")
        finally:
            self.end("server_stopping")
            self.has_started.set()
            await self._close()

    def end(self, reason: ClosedReason) -> None:
        """Says why and lets `run` come to its end. Only the first reason counts."""
        if self.end_reason is None:
            self.end_reason = reason
            self.hub.emit(Closed(reason=reason))
            self._ended.set()

    async def ended(self) -> None:
        """Returns when `end` has been called."""
        await self._ended.wait()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs something as a part of the session: it ends with it, and its failure ends it."""
        if self._group is None or self._ended.is_set():
            work.close()
            raise SessionError("The session is ending.")
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _close(self) -> None:
        self.queue.clear()
        await self._within(self.parts.stream.close())
        for connection in list(self.connections.values()):
            await self._close_connection(connection)

    def forget_parts(self) -> None:
        """Lets go of the frames' memory, descriptors and encoders now, not when the garbage collector comes by.

        After `run` only; nothing but `describe`, `join` and `leave` can be called from now on.
        """
        del self.parts, self.chunks, self.cutter, self._figures

    async def _within(self, closing: Coroutine[Any, Any, None]) -> None:
        """What closes must not keep the rest from closing."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await closing
        except Exception as error:
            log.warning("session %s: closing failed: %r", self.ident, error)

    # -- who is connected ----------------------------------------------------------------------------------

    @property
    def viewers(self) -> int:
        return sum(connection.role == "viewer" for connection in self.connections.values())

    def describe(self) -> SessionInfo:
        """The session as the protocol shows it."""
        base = f"/v1/sessions/{self.ident}"
        return SessionInfo(
            id=self.ident,
            avatar=self._avatar.name,
            prompt=self._prompt,
            mode=self.spec.mode,
            state=self.timeline.state,
            frame_size=self._frame_size,
            fps=FPS,
            viewers=self.viewers,
            created_ms=self._created_ms,
            links={name: f"{base}/{name}" for name in ("webrtc", "whep", "events", "say", "audio", "interrupt")},
        )

    def session_message(self) -> SessionMessage:
        return SessionMessage(**self.describe().model_dump())

    async def connect(
        self, offer_sdp: str, role: Role, control_by: Callable[[Callable[[str], None]], Control]
    ) -> tuple[str, str]:
        """A browser joins. A second caller takes the place of the first.

        Args:
            control_by: makes what carries out the connection's messages, and answers by the function it is given.

        Returns:
            The connection's id and the SDP answer.

        Raises:
            ProtocolError: for an offer that cannot be used.
            CapacityError: if there are too many viewers.
            SessionError: if the session has ended meanwhile.
        """
        if role == "viewer" and self.viewers >= MAX_VIEWERS:
            raise CapacityError(f"This session has {MAX_VIEWERS} viewers already.")
        has_microphone = role == "caller" and self.spec.mode == "conversation"
        microphone = self.parts.microphone() if has_microphone else None
        hearing = Hearing(microphone, self.parts.gate()) if microphone is not None else None
        ident = secrets.token_urlsafe(12)
        control = control_by(lambda message: peer.send(message))
        peer: PeerLike = self.parts.peer(
            broadcast=self.parts.broadcast,
            microphone=microphone,
            on_open=lambda: peer.send(dump(self.session_message())),
            on_message=control.offer,
            on_gone=lambda reason: self._on_gone(connection, reason),
        )
        connection: Connection = Connection(ident, role, peer, hearing, control)
        try:
            answer = await peer.answer(offer_sdp)
            if self._ended.is_set():
                raise SessionError("The session has ended.")
        except BaseException:
            await self._within(peer.close())
            raise
        former = [other for other in self.connections.values() if role == other.role == "caller"]
        self.connections[ident] = connection
        if role == "caller":
            self.cutter.hearing = hearing
        self.hub.add(connection)
        for other in former:
            self.spawn(self._close_connection(other))
        self._connections_changed()
        return ident, answer

    def connection(self, ident: str) -> Connection:
        """
        Raises:
            SessionError: if there is no such connection (any more).
        """
        if ident not in self.connections:
            raise SessionError("There is no such connection; it may have ended.", "unknown_connection")
        return self.connections[ident]

    async def disconnect(self, ident: str) -> None:
        """Ends a connection.

        Raises:
            SessionError: if there is no such connection (any more).
        """
        await self._close_connection(self.connection(ident))

    def _on_gone(self, connection: Connection, reason: str) -> None:
        if not self._ended.is_set() and not connection.is_closed:
            log.info("session %s: a %s is gone: %s", self.ident, connection.role, reason)
            self.spawn(self._close_connection(connection))

    async def _close_connection(self, connection: Connection) -> None:
        if connection.is_closed:
            return
        connection.is_closed = True
        self.connections.pop(connection.ident, None)
        self.hub.remove(connection)
        if self.cutter.hearing is connection.hearing:
            self.cutter.hearing = None
        connection.hearing = None  # its resampler has threads, which would wait for the garbage collector
        self._connections_changed()
        connection.control.close()
        await self._within(connection.peer.close())

    def join(self, listener: Listener) -> None:
        """A WebSocket joins; it is told the session first."""
        self._websockets += 1
        self.hub.add(listener)
        self._connections_changed()

    def leave(self, listener: Listener) -> None:
        self._websockets -= 1
        self.hub.remove(listener)
        self._connections_changed()

    def _connections_changed(self) -> None:
        if self._ended.is_set() or self._group is None:
            return
        is_alone = not self.connections and not self._websockets
        if self._idle_timer is not None and not is_alone:
            self._idle_timer.cancel()
            self._idle_timer = None
        elif self._idle_timer is None and is_alone:
            self._idle_timer = self.spawn(self._end_when_idle())
        self._tell()

    def _tell(self) -> None:
        """Says what the session is, if anything of it but its state has changed; the state has its own message."""
        described = self.describe().model_copy(update={"state": "idle"})
        if described != self._told:
            self._told = described
            self.hub.emit(self.session_message())

    async def _end_when_idle(self) -> None:
        await self.parts.clock.wait_until(self.parts.clock.media_s() + IDLE_S)
        self.end("idle")

    # -- what it says --------------------------------------------------------------------------------------

    def say(self, text: str, name: str | None = None) -> str:
        """Queues a text; returns the utterance's id.

        Raises:
            ProtocolError, CapacityError, MissingExtraError: if it cannot be said.
        """
        text = check_text(text)
        try:
            self.parts.voice.check()
        except MissingExtraError as error:
            raise ProtocolError(str(error), "no_voice") from error
        utterance = self._enqueue(Utterance(self._name(name), "text"))
        self.spawn(utterance.fill(spoken(self.parts.voice, text, self.spec.seed)))
        return utterance.name

    async def play_file(self, path: Path) -> tuple[str, int | None]:
        """Queues a sound file, which is deleted in the end; returns the utterance's id and the length in ms, if known.

        Raises:
            AudioError: if there is no sound in it.
            CapacityError: if the queue is full.
        """
        try:
            self.queue.check_room()
            sound = await asyncio.to_thread(SoundFile, path)
            utterance = Utterance(self._name(None), "file")
            filling = self.spawn(utterance.fill(decoded(sound)))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        try:
            await utterance.has_sound.wait()
            if utterance.failure is not None:
                raise ProtocolError(utterance.failure.message, "bad_audio")
            self._enqueue(utterance)
        except BaseException:
            utterance.close()
            filling.cancel()
            raise
        return utterance.name, None if sound.duration_s is None else round(1000 * sound.duration_s)

    def open_stream(self, sample_rate: int, name: str | None) -> StreamUtterance:
        """Queues an utterance that is still to come.

        Raises:
            ProtocolError, CapacityError: if it cannot be queued.
        """
        utterance = StreamUtterance(self._name(name), sample_rate, time.monotonic())
        self._enqueue(utterance)
        return utterance

    def clear_streams(self) -> None:
        """Forgets what agents appended and is not yet played."""
        if self.timeline.is_live("stream"):
            self.chunks.interrupt(is_kept=lambda utterance: not isinstance(utterance, StreamUtterance))
        for stream in self.queue.clear(is_kept=lambda utterance: not isinstance(utterance, StreamUtterance)):
            self.timeline.forget(stream.name)

    def interrupt(self, cause: str = "client") -> tuple[str | None, int | None]:
        """See `ChunkLoop.interrupt`."""
        name, played_ms = self.chunks.interrupt()
        if name is not None:
            self._metrics.interrupts.labels(cause).inc()
        return name, played_ms

    def _enqueue(self, utterance: Utterance) -> Utterance:
        self.queue.add(utterance)
        self.hub.emit(Queued(utterance=utterance.name))
        return utterance

    def _name(self, wanted: str | None) -> str:
        if wanted is not None:
            return wanted
        self._names += 1
        return f"utterance-{self._names}"

    # -- who says it, and how ------------------------------------------------------------------------------

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
        if text is not None and text != self._prompt:
            self._prompt, self._is_prompt_own = text, True
            self._tell()

    async def set_avatar(self, name: str) -> None:
        """At the next moment without speech.

        Raises:
            UnknownAvatarError: if there is none of that name, or its picture cannot be read.
        """
        avatar = self.parts.find_avatar(name)
        self._next_avatar = (avatar, await asyncio.to_thread(self.parts.load_reference, avatar))

    def set_microphone(self, is_enabled: bool) -> None:
        self.cutter.is_microphone_on = is_enabled

    def _between_chunks(self) -> None:
        if self._next_avatar is not None and self.cutter.is_quiet and not self.timeline.is_speaking:
            (avatar, reference), self._next_avatar = self._next_avatar, None
            self.spawn(self._change_avatar(avatar, reference))

    async def _change_avatar(self, avatar: Avatar, reference: np.ndarray) -> None:
        prompt = None if self._is_prompt_own else avatar.prompt
        try:
            await self.parts.stream.update(reference=reference, prompt=prompt)
        except EngineError as error:
            self.hub.emit(ErrorMessage(code="engine_lost", message=str(error), in_reply_to="set_avatar"))
            return
        self._avatar = avatar
        self._prompt = self._prompt if prompt is None else prompt
        self._tell()

    # -- while it lives ------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Lets the caller's voice interrupt what is said, where that is wanted."""
        if not self.spec.is_barge_in:
            return
        clock, cutter = self.parts.clock, self.cutter
        media_s = clock.media_s()
        while True:
            media_s = max(media_s + LISTEN_S, clock.media_s())
            await clock.wait_until(media_s)
            hearing = cutter.hearing
            if hearing is None or not cutter.is_microphone_on or not cutter.is_utterance_playing:
                continue
            if hearing.listen():
                hearing.forget_speech()
                self.interrupt("caller")

    async def _report(self) -> None:
        """Metrics once a second."""
        clock = self.parts.clock
        media_s = clock.media_s()
        while True:
            media_s = max(media_s + REPORT_S, clock.media_s())
            await clock.wait_until(media_s)
            self.hub.emit(self._figures.read(self.connections.values()), is_optional=True)

    # what the gauges read

    @property
    def bitrate_bps(self) -> float:
        return self._figures.bitrate_bps

    @property
    def rung(self) -> int:
        return self.chunks.counts.rung

    @property
    def fps(self) -> float:
        return float(self.parts.broadcast.stats.fps_out)

    @property
    def av_offset_ms(self) -> float | None:
        offset = self.parts.broadcast.stats.av_offset_ms
        return None if offset is None else float(offset)
