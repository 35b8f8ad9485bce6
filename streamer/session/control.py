"""Carries out what a client says, over whichever door it comes, and answers for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from streamer.errors import AvatarError, ProtocolError, SessionError
from streamer.faults import INTERNAL, code_of, sentence
from streamer.protocol import (
    DEFAULT_RATE_HZ,
    AudioAppend,
    AudioClear,
    AudioCommit,
    AudioStart,
    ErrorMessage,
    Inbound,
    Interrupt,
    MessageError,
    Outbound,
    Ping,
    Pong,
    Say,
    SetAvatar,
    SetMicrophone,
    SetPrompt,
    check_pcm,
    dump,
    parse_message,
)
from streamer.session.session import Session
from streamer.session.sources import StreamUtterance

MAX_WAITING = 64

log = logging.getLogger(__name__)


class Controller:
    """The messages of one connection, carried out one after the other.

    Overflow: a data channel cannot be told to wait; with 64 messages waiting, further ones are answered with `busy`.

    Args:
        send: answers this connection.
        can_control: viewers may only ping.
    """

    def __init__(self, session: Session, send: Callable[[str], None], can_control: bool = True):
        self._session = session
        self._send = send
        self._can_control = can_control
        self._stream: StreamUtterance | None = None
        self._waiting: deque[str | bytes] = deque()
        self._task: asyncio.Task[Any] | None = None

    def offer(self, raw: str | bytes) -> None:
        """Takes a message to carry out soon."""
        if len(self._waiting) >= MAX_WAITING:
            self._complain("busy", "Messages come faster than they can be carried out; this one was left out.")
            return
        self._waiting.append(raw)
        if (self._task is None or self._task.done()) and self._session.end_reason is None:
            self._task = self._session.tasks.spawn(self._work())

    async def handle(self, raw: str | bytes) -> None:
        """Carries out a message. Whatever is wrong with it is answered, and nothing else happens."""
        message: Inbound | None = None
        try:
            message = parse_message(raw) if isinstance(raw, str) else None
            await self._carry_out(message, raw)
        except AvatarError as error:
            kind = error.in_reply_to if isinstance(error, MessageError) else None
            self._complain(code_of(error), str(error), kind or (message.type if message is not None else None))
        except Exception:
            log.exception("a message could not be carried out")
            self._complain("internal", INTERNAL, message.type if message is not None else None)

    def close(self) -> None:
        """The connection has ended: what it appended so far is all there will be."""
        self._waiting.clear()
        if self._stream is not None:
            self._stream.commit()
            self._stream = None

    async def _work(self) -> None:
        while self._waiting:
            await self.handle(self._waiting.popleft())

    async def _carry_out(self, message: Inbound | None, raw: str | bytes) -> None:
        session = self._session
        if session.end_reason is not None:
            raise SessionError("The session has ended.")
        if not self._can_control and not isinstance(message, Ping):
            raise ProtocolError("A viewer only watches; the session's own links control it.", "forbidden")
        match message:
            case None:
                assert isinstance(raw, bytes)
                await self._append(check_pcm(raw))
            case AudioAppend():
                await self._append(message.pcm())
            case Say():
                session.speech.say(message.text, message.id)
            case Interrupt():
                session.speech.interrupt()
            case SetPrompt():
                await session.set_prompt(message.prompt, message.emotion, message.gestures)
            case SetAvatar():
                await session.set_avatar(message.avatar)
            case SetMicrophone():
                session.cutter.is_microphone_on = message.enabled
            case AudioStart():
                if self._open_stream() is not None:
                    raise ProtocolError("An utterance is open already: commit or clear it first.", "out_of_order")
                self._stream = session.speech.open_stream(message.sample_rate, message.id)
            case AudioCommit():
                stream = self._open_stream()
                if stream is None:
                    raise ProtocolError("There is no open utterance to commit.", "out_of_order")
                stream.commit()
                self._stream = None
            case AudioClear():
                session.speech.clear_streams()
                self._stream = None
            case Ping():
                self._reply(Pong(id=message.id, media_ms=session.timeline.media_ms))

    async def _append(self, pcm: bytes) -> None:
        stream = self._open_stream()
        if stream is None:
            stream = self._stream = self._session.speech.open_stream(DEFAULT_RATE_HZ, None)
        await stream.append(pcm, time.monotonic())

    def _open_stream(self) -> StreamUtterance | None:
        """The open utterance, unless it was interrupted, cleared or given up meanwhile."""
        if self._stream is not None and self._stream.is_complete:
            self._stream = None
        return self._stream

    def _complain(self, code: str, message: str, in_reply_to: str | None = None) -> None:
        self._reply(ErrorMessage(code=code, message=sentence(message), in_reply_to=in_reply_to))

    def _reply(self, message: Outbound) -> None:
        self._send(dump(message))
