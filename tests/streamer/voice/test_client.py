from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import MissingExtraError
from streamer.voice.client import Voice, VoiceError
from streamer.voice.worker import MAX_RUN_CHARACTERS, part_runs, without_lead_in
from tests.streamer.voice import voices


async def said(voice: Voice, text: str) -> str:
    """What a counting voice says, as the letters it was asked for."""
    return "".join([chr(len(sentence)) async for sentence in voice.speak(text, 0)])


def with_voice(target, scene) -> None:
    async def whole() -> None:
        voice = Voice(target, is_installed=True)
        try:
            await asyncio.wait_for(scene(voice), 60)
        finally:
            await voice.close()

    threads = threading.active_count()
    asyncio.run(whole())
    assert threading.active_count() <= threads + 6  # those of asyncio's own executor


def test_sentences_of_several_texts_take_turns_and_come_whole() -> None:
    async def scene(voice: Voice) -> None:
        assert await asyncio.gather(*(said(voice, text) for text in ("abc", "xyz", "q"))) == ["abc", "xyz", "q"]
        assert voice.restarts == 0

    with_voice(voices.counting, scene)


def test_text_that_is_not_wanted_any_more_is_not_spoken_further() -> None:
    async def scene(voice: Voice) -> None:
        async with aclosing(voice.speak("~" * 1000, 0)) as sentences:
            async for _ in sentences:
                break
        assert await said(voice, "k") == "k"  # at once, not behind 200 s of sleep

    with_voice(voices.counting, scene)


def test_voice_that_dies_is_started_again_and_goes_on_where_it_was(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("VOICE_MARK", str(tmp_path / "mark"))

    async def scene(voice: Voice) -> None:
        assert await asyncio.gather(said(voice, "hello"), said(voice, "other")) == ["hello", "other"]
        assert voice.restarts == 1

    with_voice(voices.dying_once, scene)


def test_text_that_kills_the_voice_fails_and_the_next_is_spoken() -> None:
    async def scene(voice: Voice) -> None:
        with pytest.raises(VoiceError, match="died at this text"):
            await said(voice, "and")
        assert await said(voice, "next") == "next"

    with_voice(voices.dying, scene)


def test_text_that_the_voice_refuses() -> None:
    async def scene(voice: Voice) -> None:
        with pytest.raises(VoiceError, match="does not shout"):
            await said(voice, "a!")
        assert await said(voice, "b") == "b"

    with_voice(voices.counting, scene)


def test_voice_that_cannot_be_loaded_says_why_and_is_not_tried_again() -> None:
    async def scene(voice: Voice) -> None:
        await voice.warm_up()
        for _ in range(2):
            with pytest.raises(VoiceError, match="hoarse"):
                await said(voice, "a")
        assert voice.restarts == 0

    with_voice(voices.unusable, scene)


def test_voice_that_is_not_installed_says_how_to_get_it() -> None:
    async def scene() -> None:
        voice = Voice(voices.counting, is_installed=False)
        await voice.warm_up()
        assert voice.pid is None
        with pytest.raises(MissingExtraError, match="pip install"):
            await said(voice, "a")
        await voice.close()

    asyncio.run(scene())


def test_closing_ends_the_process_and_what_is_being_spoken() -> None:
    async def scene(voice: Voice) -> None:
        speaking = asyncio.ensure_future(said(voice, "~" * 100))
        await asyncio.sleep(0)
        await voice.warm_up()
        process = voice._process
        assert process is not None
        pid = process.pid
        await voice.close()
        with pytest.raises(VoiceError):
            await speaking
        assert not Path(f"/proc/{pid}").exists()

    with_voice(voices.counting, scene)


def test_real_voice_speaks_sentences_at_48_khz() -> None:
    pytest.importorskip("hibari")

    async def scene() -> None:
        voice = Voice()
        try:
            sentences = [sentence async for sentence in voice.speak("Good morning. How are you today?", 3)]
            assert len(sentences) == 2 and all(sentence.dtype == np.int16 for sentence in sentences)
            assert np.abs(sentences[0][: 48_000 // 10]).max() > 150  # it does not keep anybody waiting
            assert all(0.3 < len(sentence) / 48_000 < 4 and np.abs(sentence).max() > 1000 for sentence in sentences)
        finally:
            await voice.close()

    asyncio.run(scene())


def test_silence_before_the_first_word_is_cut_and_nothing_else() -> None:
    sound = np.concatenate([np.zeros(10_000), 0.1 * np.ones(5_000), np.zeros(10_000)]).astype(np.float32)
    assert np.array_equal(without_lead_in(sound, 24_000), sound[10_000 - 960 :])
    assert np.array_equal(without_lead_in(sound[10_000:], 24_000), sound[10_000:])
    assert np.array_equal(without_lead_in(np.zeros(100), 24_000), np.zeros(100))


@pytest.mark.parametrize("text", ["word " * 1000, "x" * 5000, "short.", "a, b. " * 300, "one\n" + "two " * 100])
def test_long_runs_are_parted_and_no_word_is_lost(text: str) -> None:
    parted = part_runs(text)
    assert "".join(parted.split()) == "".join(text.split())
    for run in parted.replace("\n", "\0").replace(".", "\0").replace(",", "\0").split("\0"):
        assert len(run) <= MAX_RUN_CHARACTERS + 1
