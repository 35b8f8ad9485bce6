"""The sessions of a server: made while there is room, ended when nobody needs them, all closed in the end."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from models.gallery import Avatar
from streamer.errors import CapacityError, RateError, SessionError
from streamer.log import shortened
from streamer.protocol import ClosedReason, SessionRequest
from streamer.session.metrics import Metrics
from streamer.session.parts import SessionSpec
from streamer.session.session import Session

RETRY_AFTER_S = 10
STOP_TIMEOUT_S = 10.0
UNSEEN_S = 5.0  # after which a session that nobody has connected to gives way to a newcomer
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


@dataclass(eq=False)
class Place:
    """One of the places for sessions, from the moment at which somebody asks for it.

    Attributes:
        client: whose it is.
        phase: of its chunk ticks, seconds modulo `chunk_s`; None while it may still be any.
    """

    client: str
    phase: float | None
    session: Session | None = None
    life: asyncio.Task[None] | None = None
    since_s: float = math.inf

    @property
    def is_unseen(self) -> bool:
        """Whether nobody has connected to it yet."""
        return self.session is None or not self.session.audience.has_been_joined


class Registry:
    """All sessions.

    Args:
        build: makes a session from its id, its spec and the phase its chunk ticks should have (seconds modulo
            `chunk_s`; None: at once); may take its time.
        choose: the avatar of that name, the first for None. Raises UnknownAvatarError.
        chunk_s: period of the chunk ticks; sessions get ticks as far apart as they can be.
        max_unseen: sessions of one client that nobody has connected to.
    """

    def __init__(
        self,
        build: Callable[[str, SessionSpec, float | None], Awaitable[Session]],
        choose: Callable[[str | None], Avatar],
        metrics: Metrics,
        max_sessions: int,
        chunk_s: float,
        max_unseen: int = 4,
    ):
        self.max_sessions = max_sessions
        self._build = build
        self._choose = choose
        self._metrics = metrics
        self._chunk_s = chunk_s
        self._max_unseen = max_unseen
        self._places: dict[str, Place] = {}
        self._is_stopping = False

    def __iter__(self) -> Iterator[Session]:
        return iter([place.session for place in self._places.values() if place.session is not None])

    def __contains__(self, ident: object) -> bool:
        place = self._places.get(ident) if isinstance(ident, str) else None
        return place is not None and place.session is not None and place.session.end_reason is None

    def __len__(self) -> int:
        return len(self._places)

    async def create(self, request: SessionRequest, name: str | None = None, client: str = "") -> Session:
        """A new session, alive.

        Args:
            name: its id; None makes one up that cannot be guessed.
            client: the address of whoever asks.

        Raises:
            SessionError: if there is one of that name.
            UnknownAvatarError: if there is no such avatar.
            CapacityError: if there is no room.
            EngineError: if the engine does not take it.
        """
        avatar = self._choose(request.avatar)
        if name in self._places:
            raise SessionError("There is a session of this name already.", "out_of_order")
        former = self._make_room(client)
        ident = name or secrets.token_urlsafe(12)
        spec = SessionSpec(
            avatar=avatar,
            prompt=avatar.prompt if request.prompt is None else request.prompt,
            mode=request.mode,
            seed=secrets.randbelow(2**31) if request.seed is None else request.seed,
            is_barge_in=request.barge_in,
        )
        # The place is taken before anything is waited for: two requests at once cannot share it.
        taken = [other.phase for other in self._places.values() if other.phase is not None]
        place = self._places[ident] = Place(client, widest_gap(taken, self._chunk_s))
        try:
            if former is not None:
                await self._end(former, "idle")
            session = await self._build(ident, spec, place.phase)
        except BaseException:
            del self._places[ident]
            raise
        place.phase = session.first_cut_s % self._chunk_s
        place.session, place.since_s = session, time.monotonic()
        place.life = asyncio.create_task(self._live(session), name="session")
        await session.has_started.wait()
        if self._is_stopping:
            session.end("server_stopping")
        return session

    def _make_room(self, client: str) -> Place | None:
        """The place that a newcomer gets, if another has to go for it.

        Raises:
            CapacityError: if there is no room.
        """
        if self._is_stopping:
            raise CapacityError("The server is stopping.", RETRY_AFTER_S)
        unseen = [place for place in self._places.values() if place.is_unseen]
        if sum(place.client == client for place in unseen) >= self._max_unseen:
            raise RateError("Nobody has connected to the sessions that you made before.", RETRY_AFTER_S)
        if len(self) < self.max_sessions:
            return None
        former = min(unseen, key=lambda place: place.since_s, default=None)
        if former is None or time.monotonic() - former.since_s < UNSEEN_S:
            self._metrics.sessions_refused.inc()
            people = "1 session is" if self.max_sessions == 1 else f"{self.max_sessions} sessions are"
            raise CapacityError(f"{people} all this server can hold now; try again in a moment.", RETRY_AFTER_S)
        former.since_s = math.inf  # nobody else gets it
        return former

    async def _live(self, session: Session) -> None:
        """A session's life; nothing that happens in it gets out of here."""
        try:
            await session.run()
        except Exception:
            log.exception("session %s could not be closed cleanly", shortened(session.ident))
        finally:
            self._metrics.sessions_ended.labels(session.end_reason or "internal").inc()
            del self._places[session.ident]

    async def _end(self, place: Place, reason: ClosedReason) -> None:
        """Ends a session and waits until everything of it is closed."""
        assert place.session is not None and place.life is not None
        place.session.end(reason)
        await asyncio.wait({place.life})

    def get(self, ident: str) -> Session:
        """
        Raises:
            SessionError: if there is no such session (any more).
        """
        place = self._places.get(ident)
        if place is None or place.session is None or place.session.end_reason is not None:
            raise SessionError("There is no such session; it may have ended.")
        return place.session

    async def delete(self, ident: str, reason: ClosedReason = "deleted") -> None:
        """Ends a session and waits until everything of it is closed.

        Raises:
            SessionError: if there is no such session (any more).
        """
        self.get(ident)
        await self._end(self._places[ident], reason)

    async def close(self) -> None:
        """Ends all sessions; takes no more."""
        self._is_stopping = True
        for session in self:
            session.end("server_stopping")
        lives = [place.life for place in self._places.values() if place.life is not None]
        if lives:
            _, hanging = await asyncio.wait(lives, timeout=STOP_TIMEOUT_S)
            for life in hanging:
                life.cancel()
            if hanging:
                await asyncio.wait(hanging, timeout=STOP_TIMEOUT_S)
