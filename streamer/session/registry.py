"""The sessions of a server: made while there is room, ended when nobody needs them, all closed in the end."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator

from models.gallery import Avatar
from streamer.errors import CapacityError, SessionError
from streamer.protocol import ClosedReason, SessionRequest
from streamer.session.metrics import Metrics
from streamer.session.parts import SessionSpec
from streamer.session.session import Session

RETRY_AFTER_S = 10
STOP_TIMEOUT_S = 10.0
SHARE_OF_ENGINE = 0.9  # of real time that sessions may fill
MOST_SESSIONS = 64

log = logging.getLogger(__name__)


def default_max_sessions(warm_rtf: float) -> int:
    """How many sessions an engine that takes `warm_rtf` s for a second of one can serve; at least 1."""
    if warm_rtf <= 0:
        return MOST_SESSIONS
    return min(max(1, int(SHARE_OF_ENGINE / warm_rtf)), MOST_SESSIONS)


def widest_gap(taken: list[float], period: float) -> float | None:
    """A phase in [0, period) as far as can be from the phases that are taken; None if all are equally good."""
    if not taken:
        return None
    phases = sorted(phase % period for phase in taken)
    gaps = [(after - phase, phase) for phase, after in zip(phases, [*phases[1:], phases[0] + period], strict=True)]
    gap, phase = max(gaps)
    return (phase + gap / 2) % period


class Registry:
    """All sessions.

    Args:
        build: makes a session from its id, its spec and the phase its chunk ticks should have (seconds modulo
            `chunk_s`; None: at once); may take its time.
        choose: the avatar of that name, the first for None. Raises UnknownAvatarError.
        chunk_s: period of the chunk ticks; sessions get ticks as far apart as they can be.
    """

    def __init__(
        self,
        build: Callable[[str, SessionSpec, float | None], Awaitable[Session]],
        choose: Callable[[str | None], Avatar],
        metrics: Metrics,
        max_sessions: int,
        chunk_s: float,
    ):
        self.max_sessions = max_sessions
        self._build = build
        self._choose = choose
        self._metrics = metrics
        self._chunk_s = chunk_s
        self._sessions: dict[str, Session] = {}
        self._phases: dict[str, float | None] = {}  # of every session, None while it is being made
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._is_stopping = False

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._sessions.values()))

    def __contains__(self, ident: object) -> bool:
        session = self._sessions.get(ident) if isinstance(ident, str) else None
        return session is not None and session.end_reason is None

    def __len__(self) -> int:
        return len(self._phases)

    async def create(self, request: SessionRequest, name: str | None = None) -> Session:
        """A new session, alive.

        Args:
            name: its id; None makes one up that cannot be guessed.

        Raises:
            SessionError: if there is one of that name.
            UnknownAvatarError: if there is no such avatar.
            CapacityError: if there is no room.
            EngineError: if the engine does not take it.
        """
        avatar = self._choose(request.avatar)
        if self._is_stopping:
            raise CapacityError("The server is stopping.", RETRY_AFTER_S)
        if len(self) >= self.max_sessions:
            self._metrics.sessions_refused.inc()
            people = "1 session is" if self.max_sessions == 1 else f"{self.max_sessions} sessions are"
            raise CapacityError(f"{people} all this server can hold now; try again in a moment.", RETRY_AFTER_S)
        ident = name or secrets.token_urlsafe(12)
        if ident in self._phases:
            raise SessionError("There is a session of this name already.", "out_of_order")
        spec = SessionSpec(
            avatar=avatar,
            prompt=avatar.prompt if request.prompt is None else request.prompt,
            mode=request.mode,
            seed=secrets.randbelow(2**31) if request.seed is None else request.seed,
            is_barge_in=request.barge_in,
        )
        # The place is taken before anything is waited for: two requests at once cannot share it.
        phase = widest_gap([taken for taken in self._phases.values() if taken is not None], self._chunk_s)
        self._phases[ident] = phase
        try:
            session = await self._build(ident, spec, phase)
        except BaseException:
            del self._phases[ident]
            raise
        self._phases[ident] = session.first_cut_s % self._chunk_s
        self._sessions[ident] = session
        self._lives[ident] = asyncio.create_task(self._live(session), name=f"session {ident}")
        await session.has_started.wait()
        if self._is_stopping:
            session.end("server_stopping")
        return session

    async def _live(self, session: Session) -> None:
        """A session's life; nothing that happens in it gets out of here."""
        try:
            await session.run()
        except Exception:
            log.exception("session %s could not be closed cleanly", session.ident)
        finally:
            self._metrics.sessions_ended.labels(session.end_reason or "internal").inc()
            self._sessions.pop(session.ident, None)
            self._phases.pop(session.ident, None)
            self._lives.pop(session.ident, None)

    def get(self, ident: str) -> Session:
        """
        Raises:
            SessionError: if there is no such session (any more).
        """
        session = self._sessions.get(ident)
        if session is None or session.end_reason is not None:
            raise SessionError("There is no such session; it may have ended.")
        return session

    async def delete(self, ident: str, reason: ClosedReason = "deleted") -> None:
        """Ends a session and waits until everything of it is closed.

        Raises:
            SessionError: if there is no such session (any more).
        """
        session = self.get(ident)
        life = self._lives[ident]
        session.end(reason)
        await asyncio.wait({life})

    async def close(self) -> None:
        """Ends all sessions; takes no more."""
        self._is_stopping = True
        for session in self:
            session.end("server_stopping")
        if self._lives:
            _, hanging = await asyncio.wait(self._lives.values(), timeout=STOP_TIMEOUT_S)
            for life in hanging:
                life.cancel()
            if hanging:
                await asyncio.wait(hanging, timeout=STOP_TIMEOUT_S)
