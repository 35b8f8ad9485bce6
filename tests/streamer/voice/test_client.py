from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from streamer.errors import MissingExtraError
from streamer.voice.client import Speaker, Voice, VoiceError
from tests.streamer.voice import voices


async def said(voice: Voice | Speaker, text: str) -> str:
    """What a counting voice says, as the letters it was asked for."""
    speaker = voice.speaker() if isinstance(voice, Voice) else voice
    return "".join([chr(len(sentence)) async for sentence in speaker.speak(text, 0)])


def with_voice(target, scene) -> None:
    async def whole() -> None:
        voice = Voice(target, is_installed=True)
        try:
            await asyncio.wait_for(scene(voice), 60)
        finally:
            await voice.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    threads = threading.active_count()
    asyncio.run(whole())
    assert threading.active_count() <= threads + 6  # those of asyncio's own executor


def test_sentences_of_several_texts_take_turns_and_come_whole() -> None:
    async def scene(voice: Voice) -> None:
        assert await asyncio.gather(*(said(voice, text) for text in ("abc", "x z", "q"))) == ["abc", "xz", "q"]
        assert voice.restarts == 0

    with_voice(voices.counting, scene)


def test_session_with_much_to_say_delays_another_by_one_sentence() -> None:
    async def scene(voice: Voice) -> None:
        order: list[str] = []

        async def speak(speaker: Speaker, name: str, text: str) -> None:
            async for _ in speaker.speak(text, 0):
                order.append(name)

        busy, other = voice.speaker(), voice.speaker()
        await said(busy, "a")
        texts = [asyncio.ensure_future(speak(busy, f"busy {number}", "~~")) for number in range(16)]
        await asyncio.sleep(0)
        await asyncio.wait_for(speak(other, "other", "xyz"), 30)
        assert order[:5] == ["busy 0", "other", "busy 0", "other", "other"]  # to ask for a third is a turn, too
        for text in texts:
            text.cancel()
        await asyncio.gather(*texts, return_exceptions=True)

    with_voice(voices.counting, scene)


def test_time_is_counted_from_the_start_of_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.voice.client.SENTENCE_TIMEOUT_S", 2.0)

    async def scene(voice: Voice) -> None:
        await asyncio.gather(*(said(voice, "~~") for _ in range(8)))  # 3.2 s in all
        assert voice.restarts == 0

    with_voice(voices.counting, scene)


def test_text_that_is_not_wanted_any_more_is_not_spoken_further() -> None:
    async def scene(voice: Voice) -> None:
        speaker = voice.speaker()
        async with aclosing(speaker.speak("~" * 1000, 0)) as sentences:
            async for _ in sentences:
                break
        assert await said(speaker, "k") == "k"  # at once, not behind 200 s of sleep

    with_voice(voices.counting, scene)


def test_text_that_is_cancelled_leaves_the_voice_to_the_others() -> None:
    async def scene(voice: Voice) -> None:
        await voice.warm_up()
        speaking = asyncio.ensure_future(said(voice, "~~"))
        await asyncio.sleep(0.05)
        speaking.cancel()
        assert await said(voice, "k") == "k" and voice.restarts == 0

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
        pid = voice.pid
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
            speaker = voice.speaker()
            sentences = [sentence async for sentence in speaker.speak("Good morning. How are you today?", 3)]
            assert len(sentences) == 2 and all(sentence.dtype == np.int16 for sentence in sentences)
            assert np.abs(sentences[0][: 48_000 // 10]).max() > 150  # it does not keep anybody waiting
            assert all(0.3 < len(sentence) / 48_000 < 4 and np.abs(sentence).max() > 1000 for sentence in sentences)
        finally:
            await voice.close()

    asyncio.run(scene())


@pytest.mark.parametrize("text", ["w.w." * 1250, "9" * 240, "." * 4999 + "a"])
def test_text_that_is_slow_to_speak_delays_another_session_by_less_than_2_s(text: str) -> None:
    pytest.importorskip("hibari")

    async def scene() -> None:
        voice = Voice()
        await voice.warm_up()

        async def slow() -> None:
            async for _ in voice.speaker().speak(text, 0):
                pass

        speaking = asyncio.ensure_future(slow())
        try:
            await asyncio.sleep(0.3)
            for _ in range(3):
                began_s = asyncio.get_running_loop().time()
                async with aclosing(voice.speaker().speak("Hello.", 0)) as sentences:
                    assert len(await anext(sentences)) > 4800
                assert asyncio.get_running_loop().time() - began_s < 2
            assert voice.restarts == 0
            assert not speaking.done() or speaking.exception() is None
        finally:
            speaking.cancel()
            await voice.close()

    asyncio.run(scene())
