from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from streamer.audio_in import AudioFile
from streamer.errors import AudioError, CapacityError, ProtocolError
from streamer.session.sources import (
    AHEAD_SAMPLES,
    MAX_STREAM_SAMPLES,
    STREAM_PATIENCE_S,
    SoundFile,
    StreamUtterance,
    Utterance,
    check_text,
    decoded,
    spoken,
)
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


def test_file_is_decoded_and_deleted(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.sin(np.arange(3 * 22_050) / 20) * 0.5, 22_050)

    async def scene() -> None:
        utterance = Utterance("u", "file")
        await filled(utterance, decoded(SoundFile(path)))
        assert abs(utterance.buffered_samples - 3 * 48_000) < 100 and utterance.failure is None
        assert not path.exists()

    asyncio.run(scene())


def test_file_that_nobody_wants_any_more_is_deleted_too(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.zeros(60 * 16_000))

    async def scene() -> None:
        utterance = Utterance("u", "file")
        filling = asyncio.ensure_future(utterance.fill(decoded(SoundFile(path))))
        await utterance.has_sound.wait()
        filling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await filling
        assert not path.exists()

    asyncio.run(scene())


@pytest.mark.parametrize(
    "content",
    [b"", b"RIFF", b"\0" * 5000, b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", b"ffconcat version 1.0\nfile a.wav\n", b"hi"],
)
def test_what_is_no_sound_is_refused_without_a_word_about_where_it_lies(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "upload"
    path.write_bytes(content)
    with pytest.raises(AudioError) as failure:
        SoundFile(path)
    assert str(tmp_path) not in str(failure.value) and "file" in str(failure.value)


def test_playlists_do_not_lead_to_other_files(tmp_path: Path) -> None:
    write_wav(tmp_path / "secret.wav", np.ones(16_000) * 0.5)
    (tmp_path / "list").write_text("ffconcat version 1.0\nfile secret.wav\n")
    (tmp_path / "live").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n")
    AudioFile(tmp_path / "list")  # FFmpeg itself would follow it
    for name in ("list", "live"):
        with pytest.raises(AudioError):
            SoundFile(tmp_path / name)


def test_stream_waits_for_a_cushion_unless_it_is_committed() -> None:
    async def scene() -> None:
        stream = StreamUtterance("s", 16_000, 0.0)
        await stream.append(bytes(2 * 4800), 0.0)  # 300 ms
        assert not stream.is_ready
        stream.commit()
        assert stream.is_ready and not stream.is_exhausted
        other = StreamUtterance("t", 16_000, 0.0)
        await other.append(bytes(2 * 16_000), 0.0)
        assert other.is_ready and not other.is_complete

    asyncio.run(scene())


def test_stream_that_is_too_far_ahead_is_told_to_wait_and_keeps_what_it_has() -> None:
    async def scene() -> None:
        stream = StreamUtterance("s", 8_000, 0.0)
        second = bytes(2 * 8_000)
        for _ in range(MAX_STREAM_SAMPLES // 48_000):
            await stream.append(second, 0.0)
        before = stream.buffered_samples
        with pytest.raises(ProtocolError) as failure:
            await stream.append(second * 2, 0.0)
        assert failure.value.code == "busy" and stream.buffered_samples == before

    asyncio.run(scene())


def test_stream_that_is_forgotten_is_complete_after_a_while() -> None:
    async def scene() -> None:
        stream = StreamUtterance("s", 16_000, 100.0)
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
    from streamer.session.sources import MAX_QUEUED, Queue

    async def scene() -> None:
        queue = Queue()
        for number in range(MAX_QUEUED):
            queue.add(Utterance(f"u{number}", "text"))
        with pytest.raises(CapacityError):
            queue.add(Utterance("more", "text"))
        kept = [utterance.name for utterance in queue if utterance.name != "u3"]
        cleared = queue.clear(is_kept=lambda utterance: utterance.name != "u3")
        assert [utterance.name for utterance in cleared] == ["u3"] and cleared[0].is_complete
        assert [utterance.name for utterance in queue] == kept
        with pytest.raises(ProtocolError):
            queue.add(Utterance("u0", "text"))

    asyncio.run(scene())


def test_long_pieces_are_resampled_away_from_the_loop() -> None:
    async def scene() -> None:
        stream = StreamUtterance("s", 16_000, 0.0)
        await stream.append(bytes(64 * 1024), time.monotonic())
        assert stream.buffered_samples == pytest.approx(3 * 32 * 1024, abs=200)

    asyncio.run(scene())
