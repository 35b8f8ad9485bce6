from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import CapacityError, ProtocolError
from streamer.session.sources import (
    AHEAD_SAMPLES,
    MAX_STREAM_SAMPLES,
    STREAM_PATIENCE_S,
    Queue,
    StreamUtterance,
    Utterance,
    check_text,
    spoken,
)
from streamer.uploads import Uploads
from tests.streamer.conftest import write_wav
from tests.streamer.session.fakes import FakeVoice, settle, tone


async def filled(utterance: Utterance, blocks) -> None:
    await asyncio.wait_for(utterance.fill(blocks), 20)


def test_taking_gives_what_was_pushed_whatever_the_pieces() -> None:
    async def scene() -> None:
        utterance = Utterance("u", "text")
        sound = np.arange(1000, dtype=np.int16)
        for first in range(0, 1000, 37):
            utterance.push(sound[first : first + 37])
        parts = [utterance.take(count) for count in (0, 1, 400, 99, 1000)]
        assert np.array_equal(np.concatenate(parts), sound)
        assert not utterance.is_exhausted
        utterance.finish()
        assert utterance.is_exhausted

    asyncio.run(scene())


def test_filling_stops_ten_seconds_ahead_and_goes_on_when_there_is_room() -> None:
    async def scene() -> None:
        made = 0

        async def blocks():
            nonlocal made
            while True:
                made += 1
                yield tone(1.0)

        utterance = Utterance("u", "file")
        filling = asyncio.ensure_future(utterance.fill(blocks()))
        await settle()
        assert made == 10 and utterance.buffered_samples == AHEAD_SAMPLES
        utterance.take(48_000)
        await settle()
        assert made == 11
        utterance.close()
        await asyncio.wait_for(filling, 5)
        assert utterance.is_exhausted and not utterance.buffered_samples

    asyncio.run(scene())


def test_closing_lets_go_of_a_voice_that_is_still_being_waited_for() -> None:
    async def scene() -> None:
        is_let_go = False

        async def blocks():
            nonlocal is_let_go
            try:
                await asyncio.Event().wait()
                yield tone(1.0)
            finally:
                is_let_go = True

        utterance = Utterance("u", "text")
        filling = asyncio.ensure_future(utterance.fill(blocks()))
        await settle()
        utterance.close()
        await asyncio.wait_for(filling, 5)
        assert is_let_go and utterance.failure is None

    asyncio.run(scene())


def test_failure_that_nobody_thought_of_ends_the_utterance_and_nothing_else(caplog) -> None:
    async def scene() -> None:
        async def blocks():
            yield tone(1.0)
            raise ZeroDivisionError

        utterance = Utterance("u", "file")
        await filled(utterance, blocks())
        assert utterance.is_complete and utterance.buffered_samples == 48_000
        assert utterance.failure is not None and utterance.failure.code == "internal"
        assert "ZeroDivisionError" in caplog.text

    asyncio.run(scene())


def test_file_is_read_and_closed(tmp_path: Path) -> None:
    async def scene() -> None:
        for seconds in (3, 30):  # the second is given up while it waits for room
            utterance = Utterance("u", "file")
            file = write_wav(tmp_path / "a.wav", np.sin(np.arange(seconds * 22_050) / 20) * 0.5, 22_050).open("rb")
            filling = asyncio.ensure_future(utterance.fill(Uploads().sound(file).blocks()))
            await asyncio.wait_for(utterance.has_sound.wait(), 30)
            assert utterance.failure is None
            if seconds == 3:
                await asyncio.wait_for(filling, 30)
                assert abs(utterance.buffered_samples - 3 * 48_000) < 100
            else:
                filling.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await filling
            assert file.closed

    asyncio.run(scene())


def test_stream_waits_for_a_cushion_unless_it_is_committed() -> None:
    async def scene() -> None:
        stream = StreamUtterance("s", 16_000, 0.0, Queue())
        await stream.append(bytes(2 * 4800), 0.0)  # 300 ms
        assert not stream.is_ready
        stream.commit()
        assert stream.is_ready and not stream.is_exhausted
        other = StreamUtterance("t", 16_000, 0.0, Queue())
        await other.append(bytes(2 * 16_000), 0.0)
        assert other.is_ready and not other.is_complete

    asyncio.run(scene())


def test_streams_that_are_together_too_far_ahead_are_told_to_wait_and_keep_what_they_have() -> None:
    async def scene() -> None:
        queue = Queue()
        stream, other = StreamUtterance("s", 8_000, 0.0, queue), StreamUtterance("o", 8_000, 0.0, queue)
        queue.add(stream)
        queue.add(other)
        second = bytes(2 * 8_000)
        for number in range(MAX_STREAM_SAMPLES // 48_000):
            await (stream, other)[number % 2].append(second, 0.0)
        before = stream.buffered_samples, other.buffered_samples
        for full in (stream, other):
            with pytest.raises(ProtocolError) as failure:
                await full.append(second * 2, 0.0)
            assert failure.value.code == "busy"
        assert (stream.buffered_samples, other.buffered_samples) == before

    asyncio.run(scene())


def test_stream_that_is_forgotten_is_complete_after_a_while() -> None:
    async def scene() -> None:
        stream = StreamUtterance("s", 16_000, 100.0, Queue())
        stream.close_if_forgotten(100.0 + STREAM_PATIENCE_S - 0.1)
        assert not stream.is_complete
        stream.close_if_forgotten(100.0 + STREAM_PATIENCE_S + 0.1)
        assert stream.is_complete

    asyncio.run(scene())


@pytest.mark.parametrize("text", ["", "   ", "…!?", "你好", "x" * 5001, "\n\t"])
def test_texts_that_cannot_be_spoken(text: str) -> None:
    with pytest.raises(ProtocolError) as failure:
        check_text(text)
    assert failure.value.code == "bad_text"


def test_spoken_text_ends_with_a_moment_of_silence() -> None:
    async def scene() -> None:
        blocks = [block async for block in spoken(FakeVoice(), "one. two", 0)]
        assert [len(block) for block in blocks] == [48_000, 48_000, 14_400]
        assert not blocks[-1].any()

    asyncio.run(scene())


def test_queue_errors_leave_it_as_it_was() -> None:
    from streamer.session.sources import MAX_QUEUED

    async def scene() -> None:
        queue = Queue()
        for number in range(MAX_QUEUED):
            queue.add(Utterance(f"u{number}", "text"))
        with pytest.raises(CapacityError), queue.place():
            pass
        kept = [utterance.name for utterance in queue if utterance.name != "u3"]
        cleared = queue.clear(is_kept=lambda utterance: utterance.name != "u3")
        assert [utterance.name for utterance in cleared] == ["u3"] and cleared[0].is_complete
        assert [utterance.name for utterance in queue] == kept
        with pytest.raises(ProtocolError):
            queue.add(Utterance("u0", "text"))

    asyncio.run(scene())


def test_long_pieces_are_resampled_away_from_the_loop() -> None:
    async def scene() -> None:
        stream = StreamUtterance("s", 16_000, 0.0, Queue())
        await stream.append(bytes(64 * 1024), time.monotonic())
        assert stream.buffered_samples == pytest.approx(3 * 32 * 1024, abs=200)

    asyncio.run(scene())
