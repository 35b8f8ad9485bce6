"""Uploads read by real processes."""

from __future__ import annotations

import asyncio
import gc
import io
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamer.audio_in import AudioFile
from streamer.child import ChildProcess
from streamer.errors import AudioError, PictureError
from streamer.media.sound import to_int16
from streamer.uploads import Uploads
from streamer.uploads import client as module
from streamer.uploads.client import AHEAD_SAMPLES
from streamer.uploads.worker import MESSAGES, ReadPicture, UploadedFile
from tests.streamer.uploads import attacks, children


def file_of(content: bytes):
    file = tempfile.TemporaryFile()
    file.write(content)
    file.flush()
    return file


async def sound_of(content: bytes, uploads: Uploads | None = None) -> np.ndarray:
    sound = (uploads or Uploads()).sound(file_of(content))
    blocks = [block async for block in sound.blocks()]
    assert all(block.dtype == np.int16 for block in blocks)
    return np.concatenate(blocks)


def refusal(content: bytes) -> str:
    """The sentence that a file is refused with."""
    with pytest.raises(AudioError) as failure:
        asyncio.run(sound_of(content))
    assert "/" not in str(failure.value) and "Error" not in str(failure.value)
    return str(failure.value)


@pytest.fixture
def children_peak_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Largest memory of each child that was asked something, filled while they answer."""
    peaks: list[int] = []
    ask = module.ChildProcess.ask

    async def watched(self, *args):
        try:
            return await ask(self, *args)
        finally:
            status = Path(f"/proc/{self.pid}/status")
            if status.exists():
                lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
                peaks.extend(int(line.split()[1]) * 1024 for line in lines)

    monkeypatch.setattr(module.ChildProcess, "ask", watched)
    return peaks


def test_sound_comes_whole_across_the_two_readings() -> None:
    async def main() -> None:
        frames = 13 * 16_000
        sound = Uploads().sound(file_of(attacks.wav(16_000, frames=frames)))
        assert sound.duration_s is None
        blocks = [block async for block in sound.blocks()]
        assert sound.duration_s == 13 and sum(map(len, blocks)) == pytest.approx(13 * 48_000, abs=2)
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            file.write(attacks.wav(16_000, frames=frames))
            file.flush()
            whole = np.concatenate([to_int16(block) for block in UploadedFile(Path(file.name)).blocks(48_000)])
        assert np.array_equal(np.concatenate(blocks), whole)

    asyncio.run(main())


def test_sound_that_waits_to_be_played_has_no_process() -> None:
    async def main() -> None:
        blocks = Uploads().sound(file_of(attacks.wav(8_000, frames=60 * 8_000))).blocks()
        heard = 0
        while heard < AHEAD_SAMPLES:
            heard += len(await anext(blocks))
        assert not _children()
        await anext(blocks)
        assert len(_children()) == 1
        await blocks.aclose()
        assert not _children()

    asyncio.run(main())


def _children() -> list[str]:
    ours = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in ours if Path(f"/proc/{pid}/cmdline").exists()]
    return [str(line) for line in lines if b"spawn_main" in line]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (attacks.slow_flac(20), "20 samples a second; 8 to 192 kHz"),
        (attacks.wav(2**31 - 1), "2147483647 samples a second"),
        (attacks.wav(7_999), "7999 samples a second"),
        (attacks.wav(48_000, channels=17), "17 channels of sound; at most 8"),
        (b"", "empty"),
        (b"hello", "not a sound file"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "not a sound file"),
        (b"ffconcat version 1.0\nfile a.wav\n", "not a sound file"),
    ],
)
def test_odd_files_are_refused_in_words(content: bytes, words: str, children_peak_bytes: list[int]) -> None:
    assert words in refusal(content)
    assert max(children_peak_bytes, default=0) < 300 << 20


def test_playlists_do_not_lead_to_other_files(tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(attacks.wav(16_000))
    (tmp_path / "list").write_text("ffconcat version 1.0\nfile secret.wav\n")
    (tmp_path / "live").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n")
    AudioFile(tmp_path / "list")  # FFmpeg itself would follow it
    for name in ("list", "live"):
        with pytest.raises(AudioError):
            UploadedFile(tmp_path / name)


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_honest_rates_and_channels_are_read(rate: int) -> None:
    for channels in (1, 8):
        sound = asyncio.run(sound_of(attacks.wav(rate, channels, frames=rate // 2)))
        assert len(sound) == pytest.approx(24_000, abs=50)


def test_flac_of_long_blocks_at_an_honest_rate_is_read(children_peak_bytes: list[int]) -> None:
    sound = asyncio.run(sound_of(attacks.slow_flac(8_000, blocks=4)))
    assert len(sound) == pytest.approx(4 * 65_535 * 6, abs=50)
    assert max(children_peak_bytes) < 300 << 20


def test_cover_picture_costs_less_than_300_mb(children_peak_bytes: list[int]) -> None:
    try:
        sound = asyncio.run(sound_of(attacks.sound_with_cover(8000)))
    except AudioError as error:
        assert "memory" in str(error)
    else:
        assert len(sound) == 48_000
    assert 0 < max(children_peak_bytes) < 300 << 20


def test_reader_that_hangs_dies_or_lies_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT_S", 0.3)
    for target in (children.hanging, children.dying, children.greedy):
        with pytest.raises(AudioError, match="too long or too much memory|breaks|too much memory"):
            asyncio.run(sound_of(b"x", Uploads(target)))


def test_endless_sound_is_cut_off() -> None:
    with pytest.raises(AudioError, match="more than"):
        asyncio.run(sound_of(attacks.wav(8_000, frames=80_000), Uploads(children.short_of_output)))


def test_nothing_is_left_of_files_that_fail_or_are_given_up() -> None:
    async def main() -> None:
        uploads = Uploads()
        for content in (attacks.wav(48_000, channels=17), attacks.slow_flac(20)):
            with pytest.raises(AudioError):
                await sound_of(content, uploads)
        reading = asyncio.ensure_future(sound_of(attacks.wav(8_000, frames=60 * 8_000), uploads))
        await asyncio.sleep(0.2)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert asyncio.all_tasks() == {asyncio.current_task()} and not _children()

    asyncio.run(main())
    gc.collect()
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    asyncio.run(main())
    gc.collect()
    assert threading.active_count() <= threads and len(os.listdir("/proc/self/fd")) <= descriptors


# -- pictures ----------------------------------------------------------------------------------------------


def picture_of(content: bytes, longest_side: int = 2048) -> np.ndarray:
    async def main() -> np.ndarray:
        with file_of(content) as file:
            return await Uploads().decode_picture(file, longest_side)

    return asyncio.run(main())


def heic(image: Image.Image) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=90)
    return file.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "HEIC"])
def test_pictures_of_the_four_kinds_are_read(format: str) -> None:  # noqa: A002
    image = attacks.photo(7)
    content = heic(image) if format == "HEIC" else attacks.encoded(image, format)
    pixels = picture_of(content)
    assert pixels.dtype == np.uint8 and pixels.shape == (120, 160, 3)
    assert np.abs(pixels.astype(int) - np.asarray(image)).mean() < 6


def test_picture_is_upright_small_enough_and_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a secret"
    pixels = picture_of(attacks.encoded(attacks.photo(8, 1200, 800), "JPEG", exif=exif), 600)
    assert pixels.shape == (600, 400, 3)
    assert pixels[:, -50:].mean() > pixels[:, :50].mean() + 40  # what was on top is on the right


@pytest.mark.parametrize(
    "image",
    [
        attacks.photo(9).convert("CMYK"),
        attacks.photo(9).convert("L"),
        Image.fromarray(np.asarray(attacks.photo(9).convert("L")).astype(np.uint16) * 257),
        attacks.photo(9).convert("RGBA"),
        attacks.photo(9).quantize(200),
        attacks.photo(9).convert("LA"),
    ],
    ids=["CMYK", "grey", "16 bit", "alpha", "palette", "grey with alpha"],
)
def test_other_pixels_become_rgb(image: Image.Image) -> None:
    pixels = picture_of(attacks.encoded(image, "JPEG" if image.mode == "CMYK" else "PNG"))
    grey = np.asarray(attacks.photo(9).convert("L")).astype(int)
    assert pixels.shape == (120, 160, 3) and np.abs(pixels.mean(axis=2) - grey).mean() < 16


@pytest.mark.parametrize("format", ["WEBP", "PNG"])
def test_of_an_animation_the_first_picture_is_taken(format: str) -> None:  # noqa: A002
    frames = [Image.new("RGB", (80, 80), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    pixels = picture_of(attacks.encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True))
    assert pixels[40, 40, 0] > 150 and pixels[40, 40, 1] < 50


def test_wide_picture_is_made_narrow_and_a_large_one_fits_its_memory(children_peak_bytes: list[int]) -> None:
    assert picture_of(attacks.png_bomb(20_000, 2_000)).shape == (205, 2048, 3)
    assert max(children_peak_bytes) < 600 << 20


def test_bad_pictures_are_refused_in_words() -> None:
    """One process reads them all, held to the limits that each has for itself otherwise."""
    pictures = list(attacks.bad_pictures())
    assert len(pictures) > 100

    async def main() -> None:
        kinds = (*MESSAGES, children.Refused)
        child = ChildProcess("a reader", children.reading_many, (), kinds, limits=module.PICTURE_LIMITS)
        await child.start(60)
        for name, content in pictures:
            with file_of(content) as file:
                answer, _ = await child.ask(ReadPicture(2048), module.ANSWER_TIMEOUT_S, [os.dup(file.fileno())])
            assert isinstance(answer, children.Refused), f"{name} was read: {answer}"
            assert "/" not in answer.message and "Error" not in answer.message, name
        await child.end()

    asyncio.run(main())


def test_file_of_more_than_10_mib_is_no_picture() -> None:
    with pytest.raises(PictureError, match="10 MiB"):
        picture_of(bytes((10 << 20) + 1))
