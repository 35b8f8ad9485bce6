from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from streamer.errors import SessionError, UnknownAvatarError
from streamer.protocol import SessionRequest
from streamer.session.metrics import Metrics
from streamer.session.registry import Registry, default_max_sessions, widest_gap
from tests.streamer.session.fakes import Stage, find


def house(specs: list, max_sessions: int = 3) -> tuple[Registry, dict[str, Stage]]:
    stages: dict[str, Stage] = {}

    async def build(ident, spec, phase):
        stage = stages[ident] = Stage(ident=ident)
        specs.append(spec)
        return stage.session

    return Registry(build, find, Metrics(), max_sessions, 0.48), stages


@pytest.mark.parametrize(("rtf", "most"), [(0.41, 2), (0.9, 1), (0.91, 1), (3.0, 1), (0.1, 9), (0.001, 64), (0.0, 64)])
def test_as_many_sessions_as_fit_into_real_time_and_at_least_one(rtf: float, most: int) -> None:
    assert default_max_sessions(rtf) == most


def test_ticks_of_sessions_are_as_far_apart_as_can_be() -> None:
    assert widest_gap([], 0.48) is None
    assert widest_gap([0.1], 0.48) == pytest.approx(0.34)
    assert widest_gap([0.0, 0.24], 0.48) in (pytest.approx(0.12), pytest.approx(0.36))
    assert widest_gap([10.0, 10.1, 10.2], 0.48) == pytest.approx((10.2 + 0.14) % 0.48)


def test_unknown_avatars_take_no_place() -> None:
    async def scene() -> None:
        registry, _ = house([])
        with pytest.raises(UnknownAvatarError):
            await registry.create(SessionRequest(avatar="Zoe"))
        assert len(registry) == 0

    asyncio.run(scene())


def test_ids_cannot_be_guessed() -> None:
    """They are the key to a session, for viewers too."""

    async def scene() -> None:
        registry, stages = house([])
        for _ in range(3):
            await registry.create(SessionRequest())
        assert len(set(stages)) == 3 and all(len(ident) >= 16 for ident in stages)  # 6 bits a letter
        await registry.close()

    asyncio.run(scene())


@pytest.fixture
def no_garbage_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


def test_hundred_sessions_come_and_go_and_leave_nothing(no_garbage_collector) -> None:
    async def scene() -> None:
        registry, stages = house([])
        for _ in range(100):
            session = await registry.create(SessionRequest())
            ident = session.ident
            await registry.delete(ident)
        assert len(registry) == 0 and not list(registry)
        assert all(stage.stream.is_closed for stage in stages.values())
        assert len(asyncio.all_tasks()) == 1
        streams = [weakref.ref(stage.stream) for stage in stages.values()]
        stages.clear()
        del session
        assert not [stream for stream in streams if stream() is not None]  # without the garbage collector
        with pytest.raises(SessionError):
            registry.get(ident)
        await registry.close()

    asyncio.run(scene())


def test_sessions_are_random_unless_a_seed_is_given_and_keep_their_avatars_prompt() -> None:
    async def scene() -> None:
        specs: list = []
        registry, _ = house(specs)
        for request in (
            SessionRequest(),
            SessionRequest(),
            SessionRequest(seed=7, prompt="sad", barge_in=True, avatar="Ben"),
        ):
            await registry.create(request)
        assert len({spec.seed for spec in specs}) == 3 and specs[2].seed == 7
        assert [spec.prompt for spec in specs] == ["friendly", "friendly", "sad"]
        assert [spec.is_barge_in for spec in specs] == [False, False, True]
        await registry.close()
        assert len(registry) == 0

    asyncio.run(scene())
