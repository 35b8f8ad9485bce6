"""A session of fakes on a clock that tests turn by hand: nothing here waits for real time.

The fake engine makes frames whose brightness is the loudness of the sound they show, as the models would move a
mouth by it, and takes as long as it is told to.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from models.gallery import Avatar
from streamer.errors import EngineError, ProtocolError, StepCancelled, UnknownAvatarError
from streamer.media.playout import Playout
from streamer.session.control import Controller
from streamer.session.cutter import ChunkTimes
from streamer.session.metrics import Metrics
from streamer.session.parts import Role, SessionParts, SessionSpec
from streamer.session.session import Session
from streamer.uploads import Uploads

FRAME_SIZE = (16, 16)
DELAY = 2
FRAME_16K = 640
AVATARS = [
    Avatar("Ada", Path("ada.png"), "tiny", "the first", "friendly"),
    Avatar("Ben", Path("ben.png"), "tiny", "the second", "calm"),
]


class FakeClock:
    """Media time by hand. Whoever waits is woken in the order of the times."""

    def __init__(self, start_s: float = 0.0):
        self._now = start_s
        self._waiting: list[tuple[float, int, asyncio.Event]] = []
        self._count = itertools.count()
        self._wall_s = time.monotonic()

    def media_s(self) -> float:
        return self._now

    def wall_s(self, media_s: float) -> float:
        return self._wall_s + media_s

    async def wait_until(self, media_s: float) -> None:
        if media_s > self._now:
            event = asyncio.Event()
            heapq.heappush(self._waiting, (media_s, next(self._count), event))
            await event.wait()

    async def advance(self, seconds: float) -> None:
        """Lets time pass, and everything happen that is due in it."""
        await settle()
        end = self._now + seconds
        while self._waiting and self._waiting[0][0] <= end + 1e-9:
            media_s, _, event = heapq.heappop(self._waiting)
            self._now = max(self._now, media_s)
            event.set()
            await settle()
        self._now = end
        await settle()


async def settle() -> None:
    """Lets everything run that does not wait for time."""
    for _ in range(12):
        await asyncio.sleep(0)


class Rung(enum.IntEnum):
    FULL = 0
    HOLD = 4


@dataclass
class FakeChunk:
    frames: np.ndarray
    queued_s: float
    started_s: float
    finished_s: float
    is_late: bool
    rung: Rung = Rung.FULL
    stage_ms: dict[str, float] = field(default_factory=lambda: {"decode": 2.0, "lr_a2v": 5.0})
    releases: int = 0
    full_s: float = 0.2

    def release(self) -> None:
        self.releases += 1


class FakeStream:
    """An engine's stream: one step after the other, each `compute_s` long."""

    def __init__(self, clock: FakeClock, compute_s: float = 0.2):
        self.clock = clock
        self.compute_s = compute_s
        self.heard: list[np.ndarray] = []
        self.updates: list[dict] = []
        self.chunks: list[FakeChunk] = []
        self.rewinds = 0
        self.most_pending = 0
        self.is_closed = False
        self.on_lost: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self._free_s = -1e9
        self._tail = np.zeros(DELAY * FRAME_16K, np.float32)
        self._before: np.ndarray | None = None
        self.pending: list[asyncio.Future] = []

    async def step(self, samples: np.ndarray, deadline_s: float) -> FakeChunk:
        assert samples.dtype == np.float32 and samples.shape == (7680,)
        if self.error is not None:
            raise self.error
        self.heard.append(samples)
        self._before = self._tail
        joined = np.concatenate([self._tail, samples])
        shown, self._tail = joined[: len(samples)], joined[len(samples) :]
        rewound: asyncio.Future = asyncio.get_running_loop().create_future()
        self.pending.append(rewound)
        self.most_pending = max(self.most_pending, len(self.pending))
        queued_s = self.clock.media_s()
        start_s = max(queued_s, self._free_s)
        self._free_s = start_s + self.compute_s
        done = asyncio.ensure_future(self.clock.wait_until(self._free_s))
        try:
            await asyncio.wait({done, rewound}, return_when=asyncio.FIRST_COMPLETED)
            if rewound.done():
                self._free_s = self.clock.media_s()
                raise StepCancelled("the step was taken back")
        finally:
            done.cancel()
            self.pending.remove(rewound)
        if self.error is not None:
            raise self.error
        loudness = np.abs(shown.reshape(-1, FRAME_16K)).max(axis=1)
        height, width = FRAME_SIZE
        frames = np.broadcast_to((255 * loudness).astype(np.uint8)[:, None, None], (12, height * 3 // 2, width))
        wall = self.clock.wall_s
        made = FakeChunk(
            frames, wall(queued_s), wall(start_s), wall(self._free_s), wall(self.clock.media_s()) > deadline_s
        )
        self.chunks.append(made)
        return made

    async def rewind(self) -> bool:
        if self._before is None:
            return False
        self.rewinds += 1
        self._tail, self._before = self._before, None
        if self.pending:
            self.pending[-1].set_result(None)
        return True

    async def update(self, **changes) -> None:
        self.updates.append({name: value for name, value in changes.items() if value is not None})

    async def close(self) -> None:
        self.is_closed = True
        self.on_lost = lambda: None


@dataclass
class FakeBroadcastStats:
    encode_ms: float = 1.0
    bytes: int = 0
    encodes: dict[str, int] = field(default_factory=dict)
    fps_out: float = 25.0
    av_offset_ms: float = 0.0


class FakeBroadcast:
    """Plays a playout: keeps all that would have been seen and heard."""

    def __init__(self, clock: FakeClock, playout: Playout):
        self.clock, self.playout = clock, playout
        self.stats = FakeBroadcastStats()
        self.seen: list[int] = []  # brightness by frame; a held frame repeats
        self.is_held: list[bool] = []
        self.heard: list[np.ndarray] = []  # int16 [960] by block

    async def run(self) -> None:
        for block in itertools.count():
            await self.clock.wait_until(block * 0.02 + 1e-6)
            if block % 2 == 0:
                picture = self.playout.frame(block // 2)
                held = self.seen[-1] if self.seen else 0
                self.seen.append(held if picture is None else int(picture[0, 0]))
                self.is_held.append(picture is None)
            self.heard.append(self.playout.sound(block))

    @property
    def sound(self) -> np.ndarray:
        return np.concatenate(self.heard)


class FakePeer:
    """A browser's connection; it stands as soon as it is answered, unless the offer says `slow`."""

    def __init__(self, *, broadcast, microphone, leads, on_connected, on_open, on_message, on_gone):
        self.leads, self.on_connected = leads, on_connected
        self.microphone, self.on_message, self.on_gone = microphone, on_message, on_gone
        self.on_open = on_open
        self.sent: list[dict] = []
        self.candidates: list[str] = []
        self.restarts = 0
        self.is_closed = False
        self.rtt_ms: float | None = 20.0
        self.packets_lost = 0

    async def answer(self, offer_sdp: str) -> str:
        await asyncio.sleep(0)
        if not offer_sdp.startswith("v=0"):
            raise ProtocolError("the offer is no SDP", "bad_sdp")
        if "slow" not in offer_sdp:
            self.on_connected()
        return "v=0\r\nanswer\r\n"

    async def add_candidates(self, sdp_fragment: str) -> str | None:
        if "a=" not in sdp_fragment:
            raise ProtocolError("these are no candidates", "bad_sdp")
        self.candidates.append(sdp_fragment)
        if "a=ice-pwd" not in sdp_fragment:
            return None
        self.restarts += 1
        return "a=ice-ufrag:ours\r\n"

    def send(self, message: str) -> None:
        self.sent.append(json.loads(message))

    async def close(self) -> None:
        self.is_closed = True

    def stats(self) -> FakePeer:
        return self


class FakeMicrophone:
    """A microphone whose sound is a function of the sample's number; counts what was taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.sound: Callable[[np.ndarray], np.ndarray] = lambda at: np.zeros(len(at), np.int16)

    def take(self, samples_48k: int) -> np.ndarray:
        at = np.arange(self.taken, self.taken + samples_48k)
        self.taken += samples_48k
        return self.sound(at).astype(np.int16)


class FakeGate:
    """Loud is speech."""

    def process(self, samples: np.ndarray) -> np.ndarray:
        return np.abs(samples.reshape(-1, 320)).max(axis=1) > 3000


class FakeVoice:
    """Speaks a tone of a second a sentence; `failure` makes it fail at the second sentence."""

    def __init__(self) -> None:
        self.asked = 0
        self.dropped = 0
        self.failure: Exception | None = None
        self.missing: Exception | None = None

    def check(self) -> None:
        if self.missing is not None:
            raise self.missing

    async def speak(self, text: str, seed: int) -> AsyncIterator[np.ndarray]:
        try:
            for number, _ in enumerate(text.rstrip(".").split(".")):
                if number and self.failure is not None:
                    raise self.failure
                self.asked += 1
                yield tone(1.0)
        finally:
            self.dropped += 1


def tone(seconds: float, level: int = 16_000) -> np.ndarray:
    """int16 at 48 kHz, never quiet for a block."""
    t = np.arange(round(48_000 * seconds)) / 48_000
    return (level * np.sin(2 * np.pi * 400 * t)).astype(np.int16)


class Recorder:
    """A listener that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[dict] = []

    def send(self, message: str, is_optional: bool = False) -> None:
        self.messages.append(json.loads(message))

    def of(self, kind: str) -> list[dict]:
        return [message for message in self.messages if message["type"] == kind]

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.messages if message["type"] not in ("metrics", "session")]


class Stage:
    """A session of fakes, and its clock; the session does not know it."""

    def __init__(
        self, warm_rtf: float = 0.4, is_barge_in: bool = False, mode: str = "conversation", ident: str = "s"
    ) -> None:
        self.times = ChunkTimes.of_engine(3, DELAY, warm_rtf)
        self.clock = FakeClock(self.times.first_cut_s)
        self.playout = Playout(self.clock, FRAME_SIZE, self.times.max_frames_ahead)  # type: ignore[arg-type]
        self.broadcast = FakeBroadcast(self.clock, self.playout)
        self.stream = FakeStream(self.clock, warm_rtf * 0.48)
        self.voice = FakeVoice()
        self.microphones: list[FakeMicrophone] = []
        self.peers: list[FakePeer] = []
        self.engine = SimpleNamespace(is_ready=True)
        self.metrics = Metrics()
        self.events = Recorder()
        parts = SessionParts(
            clock=self.clock,
            playout=self.playout,
            broadcast=self.broadcast,
            stream=self.stream,
            is_engine_ready=partial(getattr, self.engine, "is_ready"),
            uploads=Uploads(),
            voice=self.voice,
            gate=FakeGate,
            microphone=partial(kept, self.microphones, FakeMicrophone),
            peer=partial(kept, self.peers, FakePeer),
            load_reference=lambda avatar: np.zeros((3, *FRAME_SIZE), np.float32),
            find_avatar=find,
            frame_size=FRAME_SIZE,
            prompt_bytes=64,
        )
        spec = SessionSpec(AVATARS[0], AVATARS[0].prompt, mode, 1, is_barge_in)  # type: ignore[arg-type]
        self.session = Session(ident, spec, parts, self.times, self.metrics)
        self._life: asyncio.Task | None = None

    async def __aenter__(self) -> Stage:
        self.session.hub.add(self.events)
        self._life = asyncio.create_task(self.session.run())
        await self.session.has_started.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.session.end("deleted")
        assert self._life is not None
        await self._life

    async def to(self, media_s: float) -> None:
        """Lets time pass up to a media time."""
        await self.clock.advance(media_s - self.clock.media_s())

    async def call(self) -> FakeMicrophone:
        """A caller joins; returns their microphone."""
        await self.connect("v=0", "caller")
        return self.microphones[-1]

    async def connect(self, offer_sdp: str, role: Role) -> tuple[str, str]:
        """A browser joins, whose messages are carried out."""
        return await self.session.audience.connect(
            offer_sdp, role, lambda send: Controller(self.session, send, can_control=role == "caller")
        )


def kept(made: list, kind: type, **wiring: Any) -> Any:
    """A new one, which the list remembers."""
    made.append(kind(**wiring))
    return made[-1]


def find(name: str | None) -> Avatar:
    for avatar in AVATARS:
        if name in (None, avatar.name):
            return avatar
    raise UnknownAvatarError(f"there is no avatar {name!r}")


LOST = EngineError("the engine died")


async def stream_of(stage: Stage, sound: np.ndarray, name: str = "tone") -> None:
    """Queues sound as a committed stream of 48 kHz."""
    stream = stage.session.speech.open_stream(48_000, name)
    for first in range(0, len(sound), 48_000):
        await stream.append(sound[first : first + 48_000].astype("<i2").tobytes(), time.monotonic())
    stream.commit()


def loud_frames(broadcast: FakeBroadcast) -> list[int]:
    """Frames in which the mouth is open."""
    return [index for index, brightness in enumerate(broadcast.seen) if brightness > 20]


def moving_frames(broadcast: FakeBroadcast) -> list[int]:
    """Frames in which it is, and which are not only a held one."""
    return [index for index in loud_frames(broadcast) if not broadcast.is_held[index]]


def loud_samples(broadcast: FakeBroadcast) -> tuple[int, int]:
    """First and last sample that is heard."""
    heard = np.flatnonzero(np.abs(broadcast.sound) > 300)
    return int(heard[0]), int(heard[-1])


def run(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Plays a scene on an event loop of its own."""
    asyncio.run(scene())
