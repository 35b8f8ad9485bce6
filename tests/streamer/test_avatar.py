"""The avatar in process, with the test pattern: frames bear their number and flash where their sound is loud."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from streamer import Avatar, Picture, Sound, UtteranceEnd
from streamer.engine import Engine, EngineConfig
from streamer.engine.pattern import read_counter
from streamer.errors import EngineLost, PictureError, UnknownAvatarError

SIZE = (128, 96)
RATE = 24_000
FRAME = RATE // 25


CONFIG = EngineConfig(pipeline="test-pattern", pattern_size=SIZE, max_streams=2, mark=None)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engine(runner: asyncio.Runner) -> Iterator[Engine]:
    engine = runner.run(Engine.launch(CONFIG))
    yield engine
    runner.run(engine.close())


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "grey.png"
    Image.new("RGB", SIZE[::-1], (64, 64, 64)).save(path)
    return str(path)


def tone(frames: int, loud: range) -> np.ndarray:
    """int16 [frames·960], loud in the frames of `loud`."""
    sound = np.zeros(frames * FRAME, np.int16)
    span = slice(loud.start * FRAME, loud.stop * FRAME)
    sound[span] = (16_000 * np.sin(np.arange(sound[span].size) * 0.3)).astype(np.int16)
    return sound


def is_white(picture: Picture) -> bool:
    return bool(picture.pixels[8:40, 8:80].mean() > 160)


def number(picture: Picture) -> int:
    """The engine's number of a frame."""
    return read_counter(picture.pixels.mean(axis=2).astype(np.uint8))


async def until_end(avatar: Avatar) -> list:
    items = []
    async for item in avatar:
        items.append(item)
        if isinstance(item, UtteranceEnd):
            return items
    raise AssertionError("it never ended")


def test_pictures_and_sound_are_aligned_to_the_frame(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, engine=engine, is_realtime=False) as avatar:
            sound = tone(60, range(20, 30))
            for piece in np.array_split(sound, 37):
                await avatar.push(piece, RATE)
            await avatar.end()
            items = await until_end(avatar)
        pictures = [item for item in items if isinstance(item, Picture)]
        sounds = [item for item in items if isinstance(item, Sound)]
        assert [item.media_ms for item in pictures] == [item.media_ms for item in sounds] == list(range(0, 2400, 40))
        loud = [bool(np.abs(item.samples[480:1440].astype(int)).mean() > 3000) for item in sounds]
        assert loud == [20 <= frame < 30 for frame in range(60)]
        assert [is_white(picture) for picture in pictures] == loud
        assert [number(picture) for picture in pictures] == list(range(60))
        assert items[-1] == UtteranceEnd(1, 2400, is_interrupted=False)

    runner.run(run())


def test_a_part_of_a_frame_at_the_end_counts_as_it_is(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, engine=engine, is_realtime=False) as avatar:
            await avatar.push(bytes(2 * 48 * 130), 48_000)  # 130 ms
            await avatar.end()
            first = await until_end(avatar)
            await avatar.push(np.zeros(48 * 20, np.float32), 48_000)
            await avatar.end()
            second = await until_end(avatar)
        assert first[-1] == UtteranceEnd(1, 130, is_interrupted=False)
        assert second[-1] == UtteranceEnd(2, 20, is_interrupted=False)

    runner.run(run())


def test_while_nothing_is_said_there_is_no_sound(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> list:
        async with Avatar(reference=portrait, engine=engine) as avatar:
            return [await anext(avatar) for _ in range(12)]

    items = runner.run(run())
    assert all(isinstance(item, Picture) for item in items)
    assert [number(item) for item in items] == list(range(12))


def test_sound_that_no_longer_grows_is_said_before_its_end(
    runner: asyncio.Runner, engine: Engine, portrait: str
) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, engine=engine) as avatar:
            await avatar.push(tone(3, range(3)), RATE)
            async for item in avatar:
                if isinstance(item, Sound):
                    break
            await avatar.end()
            assert (await until_end(avatar))[-1] == UtteranceEnd(1, 120, is_interrupted=False)

    runner.run(run())


def test_interrupting_stops_the_sound_and_repeats_or_skips_no_frame(
    runner: asyncio.Runner, engine: Engine, portrait: str
) -> None:
    async def run(given: int) -> None:
        async with Avatar(reference=portrait, engine=engine) as avatar:
            await avatar.push(tone(80, range(80)), RATE)
            items = []
            while sum(isinstance(item, Sound) for item in items) < given:
                items.append(await anext(avatar))
            played = sum(len(item.samples) for item in items if isinstance(item, Sound))
            assert await avatar.interrupt() == round(played / 48)
            assert await anext(avatar) == UtteranceEnd(1, round(played / 48), is_interrupted=True)
            after = [await anext(avatar) for _ in range(24)]
            assert all(isinstance(item, Picture) for item in after)
            pictures = [item for item in items + after if isinstance(item, Picture)]
            assert [number(picture) for picture in pictures] == list(range(len(pictures)))
            assert not any(is_white(picture) for picture in pictures[-12:])
            assert await avatar.interrupt() is None

    for given in (1, 5, 8, 13):
        runner.run(run(given))


def test_interrupting_again_and_again_leaves_nothing_stuck(
    runner: asyncio.Runner, engine: Engine, portrait: str
) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, engine=engine, is_realtime=False) as avatar:
            rng = np.random.default_rng(0)
            for _ in range(60):
                await avatar.push(tone(30, range(30)), RATE)
                for _ in range(int(rng.integers(0, 9))):
                    await anext(avatar)
                await avatar.interrupt()
                while avatar._items:
                    await anext(avatar)
            await avatar.push(tone(10, range(10)), RATE)
            await avatar.end()
            items = await until_end(avatar)
            assert items[-1] == UtteranceEnd(61, 400, is_interrupted=False)

    runner.run(run())


def test_who_reads_slowly_loses_nothing_and_nothing_piles_up(
    runner: asyncio.Runner, engine: Engine, portrait: str
) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, engine=engine, is_realtime=False) as avatar:
            pushing = asyncio.create_task(avatar.push(tone(100, range(0)), RATE))
            await pushing
            blocked = asyncio.create_task(avatar.push(tone(31 * 25, range(0)), RATE))
            await asyncio.sleep(0)
            for _ in range(50):  # the engine could make much more in this time
                await asyncio.sleep(0.01)
            assert len(avatar._made) <= 1 and not avatar._items
            third = asyncio.create_task(avatar.push(tone(1, range(0)), RATE))
            await asyncio.sleep(0.01)
            assert blocked.done() and not third.done()  # more than it takes ahead
            numbers = []
            while len(numbers) < 200:
                item = await anext(avatar)
                if isinstance(item, Picture):
                    numbers.append(number(item))
            assert numbers == list(range(200))
            await third

    runner.run(run())


def test_cancelling_and_leaving_at_any_point_leaves_nothing_behind(
    runner: asyncio.Runner, engine: Engine, portrait: str
) -> None:
    async def run() -> None:
        before = asyncio.all_tasks()
        for turns in range(0, 60, 3):
            async with Avatar(reference=portrait, engine=engine) as avatar:
                await avatar.push(tone(30, range(30)), RATE)
                reading = asyncio.create_task(until_end(avatar))
                for _ in range(turns):
                    await asyncio.sleep(0)
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await reading
        assert asyncio.all_tasks() == before and engine.streams == 0

    runner.run(run())


def test_a_cancelled_read_loses_no_frame(runner: asyncio.Runner, engine: Engine, portrait: str) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, engine=engine) as avatar:
            numbers = []
            while len(numbers) < 10:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.015):
                        numbers.append(number(await anext(avatar)))
            assert numbers == list(range(10))

    runner.run(run())


def test_a_killed_engine_is_said_once_and_the_avatar_goes_on(runner: asyncio.Runner, portrait: str) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, config=CONFIG) as avatar:
            assert isinstance(await anext(avatar), Picture)
            avatar._engine._process.kill()
            with pytest.raises(EngineLost):
                while True:
                    await anext(avatar)
            seen = []
            while len(seen) < 20:
                with contextlib.suppress(EngineLost):
                    seen.append(number(await anext(avatar)))
            assert seen == list(range(seen[0], seen[0] + 20))

    runner.run(run())


@pytest.mark.parametrize(
    ("pcm", "rate", "words"),
    [
        (b"abc", 24_000, "16 bits a sample"),
        (np.zeros((2, 10), np.int16), 24_000, r"int16 \[S\]"),
        (np.zeros(10, np.int32), 24_000, "int32"),
        (bytes(20), 100, "8,000"),
        (bytes(20), 48_000, "began with 24000 Hz"),
    ],
)
def test_sound_in_another_form_is_refused_in_words(
    runner: asyncio.Runner, engine: Engine, portrait: str, pcm: bytes, rate: int, words: str
) -> None:
    async def run() -> None:
        async with Avatar(reference=portrait, engine=engine) as avatar:
            await avatar.push(bytes(20), 24_000)
            with pytest.raises(ValueError, match=words):
                await avatar.push(pcm, rate)

    runner.run(run())


def test_an_unknown_presenter_is_refused_and_leaves_nothing(runner: asyncio.Runner, engine: Engine) -> None:
    async def run() -> None:
        with pytest.raises(UnknownAvatarError, match="there is no avatar"):
            async with Avatar("nobody", engine=engine):
                pass
        with pytest.raises(PictureError, match="there is no picture"):
            async with Avatar(reference="missing.png", engine=engine):
                pass
        assert engine.streams == 0

    runner.run(run())
