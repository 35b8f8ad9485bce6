from __future__ import annotations

import resource
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from streamer.audio_in import AudioFile, SampleReader
from streamer.errors import AudioError
from tests.streamer.conftest import write_wav


def read(path: Path, sample_rate: int = 16_000) -> np.ndarray:
    return np.concatenate(list(AudioFile(path).blocks(sample_rate)))


def test_wav_comes_back_as_it_was(wav: Path) -> None:
    samples = read(wav)
    assert samples.dtype == np.float32 and len(samples) == 20_800
    expected = 0.5 * np.sin(2 * np.pi * 400 * np.arange(20_800) / 16_000)
    assert np.abs(samples - expected).max() < 1e-3


def test_stereo_at_another_rate_is_mixed_and_resampled_without_delay(tmp_path: Path) -> None:
    rate = 44_100
    click = np.zeros((2 * rate, 2))
    click[rate : rate + 441] = 0.5
    path = write_wav(tmp_path / "click.wav", click.ravel(), rate, channels=2)
    for target in (16_000, 48_000):
        samples = read(path, target)
        assert len(samples) == pytest.approx(2 * target, abs=2)
        onset = np.argmax(np.abs(samples) > 0.25)
        assert onset == pytest.approx(target, abs=target * 0.001)


def test_same_source_can_be_read_twice_at_once(wav: Path) -> None:
    source = AudioFile(wav)
    slow, fast = SampleReader(source.blocks(16_000)), SampleReader(source.blocks(48_000))
    for _ in range(5):
        assert len(slow.take(640)) * 3 == len(fast.take(1920))
    slow.close()
    fast.close()


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp3", "libmp3lame"), ("ogg", "libopus"), ("flac", "flac"), ("m4a", "aac")]
)
def test_compressed_formats_are_read(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"sound.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        tone = (0.5 * np.sin(np.arange(48_000) / 10) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(stream.format, "mono", 48_000, stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    assert len(read(path)) == pytest.approx(16_000, abs=1500)


def test_long_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Three hours, on disk as a file with a hole."""
    path, seconds, rate = tmp_path / "long.wav", 3 * 3600, 8_000
    size = seconds * rate
    header = b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 1, 1, rate, rate, 1, 8) + b"data" + struct.pack("<I", size)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + size)
    source = AudioFile(path)
    assert source.duration_s == pytest.approx(seconds)
    for _ in zip(range(200), source.blocks(8_000), strict=False):
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(len(block) for block in source.blocks(8_000)) == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kilobytes


def test_missing_file() -> None:
    with pytest.raises(AudioError, match="there is no file nowhere.wav"):
        AudioFile("nowhere.wav")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is not a file"):
        AudioFile(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.touch()
    with pytest.raises(AudioError, match="is empty"):
        AudioFile(path)


def test_text_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.wav"
    path.write_text("these are not the sounds you look for\n" * 100)
    with pytest.raises(AudioError, match="is not a sound file that can be read"):
        AudioFile(path)


def test_picture_has_no_sound_track(picture: Path) -> None:
    with pytest.raises(AudioError, match="has no sound track"):
        AudioFile(picture)


def test_zero_seconds(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "zero.wav", np.zeros(0))
    with pytest.raises(AudioError, match="0 seconds|not a sound file"):
        read(path)


def test_file_cut_off_in_the_middle_gives_what_is_there(wav: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.wav"
    path.write_bytes(wav.read_bytes()[:20_000])
    assert 9_000 < len(read(path)) < 10_000


def test_header_without_sound_behind_it(tmp_path: Path) -> None:
    """An MP3 whose frames are noise."""
    path = tmp_path / "noise.mp3"
    path.write_bytes(b"ID3\x03\x00\x00\x00\x00\x00\x0a" + np.random.default_rng(0).bytes(20_000))
    with pytest.raises(AudioError):
        read(path)


def test_float_file_with_impossible_values_is_kept_in_range(tmp_path: Path) -> None:
    samples = np.array([np.nan, np.inf, -np.inf, 7.0, 0.25] * 200, np.float32)
    path = tmp_path / "float.wav"
    header = b"RIFF" + struct.pack("<I", 36 + samples.nbytes) + b"WAVEfmt "
    header += struct.pack("<IHHIIHH", 16, 3, 1, 16_000, 64_000, 4, 32) + b"data" + struct.pack("<I", samples.nbytes)
    path.write_bytes(header + samples.tobytes())
    read_back = read(path)
    assert np.isfinite(read_back).all() and np.abs(read_back).max() <= 1.0


def test_reader_takes_exact_counts_and_then_silence() -> None:
    reader = SampleReader(iter([np.ones(3, np.float32), np.zeros(0, np.float32), np.ones(4, np.float32)]))
    assert reader.take(5).tolist() == [1] * 5 and not reader.is_exhausted
    assert reader.take(4).tolist() == [1, 1, 0, 0] and reader.is_exhausted
    assert reader.samples_read == 7
    assert reader.take(2).tolist() == [0, 0]
