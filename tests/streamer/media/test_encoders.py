"""The real encoders, on a small moving picture."""

from __future__ import annotations

from functools import cache

import av
import numpy as np
import pytest

from streamer.media import video_encoder
from streamer.media.audio_encoder import OpusEncoder
from streamer.media.video_encoder import CODECS, H264Encoder, Vp8Encoder, open_video_encoder

SIZE = (192, 256)
DECODERS = {"H264": "h264", "VP8": "libvpx"}


@cache
def film(count: int = 100, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 [count, H*3/2, W]: soft blobs that wander, with a little grain; something like a talking head."""
    height, width = size
    chance = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    frames = np.empty((count, height * 3 // 2, width), np.uint8)
    for k in range(count):
        luma = np.full((height, width), 90.0, np.float32)
        for blob in range(6):
            x = width * (0.5 + 0.4 * np.sin(0.11 * k + blob))
            y = height * (0.5 + 0.4 * np.cos(0.07 * k + 2 * blob))
            luma += 20 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (200 + 300 * blob))
        frames[k, :height] = np.clip(luma + chance.normal(0, 4, luma.shape), 16, 235)
        frames[k, height : height * 5 // 4] = 110
        frames[k, height * 5 // 4 :] = 140
    return frames


def psnr(decoded: av.VideoFrame, original: np.ndarray) -> float:
    error = decoded.to_ndarray(format="yuv420p").astype(float) - original
    return float(10 * np.log10(255**2 / np.mean(error**2)))


@pytest.mark.parametrize("codec", CODECS)
def test_picture_survives_and_comes_back_frame_by_frame(codec: str) -> None:
    encoder = open_video_encoder(codec, SIZE, 500_000)
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    quality = []
    for index, picture in enumerate(film()[:40]):
        (decoded,) = decoder.decode(encoder.encode(picture, index))
        quality.append(psnr(decoded, picture))
    assert min(quality) > 30 and np.mean(quality) > 34


@pytest.mark.parametrize("codec", CODECS)
def test_pts_is_media_time_also_over_gaps(codec: str) -> None:
    encoder = open_video_encoder(codec, SIZE, 500_000)
    for index in (0, 1, 2, 7, 50, 51):
        packet = encoder.encode(film()[index], index)
        assert packet.pts * packet.time_base == pytest.approx(index * 0.04)
        assert packet.time_base.denominator == 90_000


@pytest.mark.parametrize("codec", CODECS)
def test_keyframes_come_first_and_when_asked_and_never_else(codec: str) -> None:
    encoder = open_video_encoder(codec, SIZE, 400_000)
    decoder = av.CodecContext.create(DECODERS[codec], "r")
    keyframes = []
    for index, picture in enumerate(film()):
        if index == 70:
            picture = 255 - picture  # a cut makes no keyframe either
        packet = encoder.encode(picture, index, keyframe=index == 30)
        if packet.is_keyframe:
            keyframes.append(index)
        if index >= 30:  # somebody who joins at the keyframe can decode from there
            (decoded,) = decoder.decode(packet)
            assert decoded.width == SIZE[1]
    assert keyframes == [0, 30]


def test_bitrate_follows_while_running_without_a_keyframe() -> None:
    encoder = H264Encoder("libx264", SIZE, 300_000)
    chance = np.random.default_rng(1)
    sizes, keyframes = [], 0
    for index in range(150):
        if index == 50:
            encoder.set_bitrate(900_000)
        if index == 100:
            encoder.set_bitrate(200_000)
        grain = chance.integers(0, 24, film()[0].shape, np.uint8)  # enough to use any bitrate
        packet = encoder.encode(film()[index % 100] // 2 + grain, index)
        sizes.append(packet.size)
        keyframes += packet.is_keyframe
    rates = [8 * 25 * np.mean(sizes[start + 20 : start + 50]) for start in (0, 50, 100)]
    assert rates == [pytest.approx(rate, rel=0.15) for rate in (300_000, 900_000, 200_000)]
    assert keyframes == 1


def test_vp8_follows_by_opening_anew_and_not_too_often() -> None:
    encoder = Vp8Encoder(SIZE, 500_000)
    keyframes = []
    for index in range(160):
        encoder.set_bitrate(200_000 if index >= 10 else 510_000)
        if index >= 100:
            encoder.set_bitrate(500_000)
        if encoder.encode(film()[index % 100], index).is_keyframe:
            keyframes.append(index)
    assert keyframes == [0, 75, 150]


@pytest.mark.parametrize("codec", CODECS)
def test_a_keyframe_is_bounded(codec: str) -> None:
    """Some packets in a row, not 40."""
    encoder = open_video_encoder(codec, SIZE, 500_000)
    grain = np.random.default_rng(2).integers(0, 40, film()[0].shape, np.uint8)
    assert encoder.encode(film()[0] // 2 + grain, 0).size < 26_000
    for index in range(1, 30):
        encoder.encode(film()[index], index)
    assert encoder.encode(film()[30], 30, keyframe=True).size < 16_000


def test_h264_is_what_was_negotiated() -> None:
    """Annex B with its parameter sets at every keyframe, Constrained Baseline 3.1, one slice."""
    encoder = H264Encoder("libx264", SIZE, 500_000)
    for index in (0, 1):
        stream = bytes(encoder.encode(film()[index], index, keyframe=True))
        units = [unit for unit in stream.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
        kinds = [unit[0] & 31 for unit in units]
        assert kinds[0:2] == [7, 8] and kinds.count(5) == 1 and set(kinds) <= {5, 6, 7, 8}
        profile, constraints, level = units[0][1:4]
        assert (profile, level) == (0x42, 31) and constraints & 0x40


@pytest.mark.parametrize(("lines", "standard"), [(256, 6), (576, 6), (720, 1)])
def test_colours_are_tagged(lines: int, standard: int) -> None:
    size = (lines, 128)
    encoder = H264Encoder("libx264", size, 500_000)
    decoder = av.CodecContext.create("h264", "r")
    (decoded,) = decoder.decode(encoder.encode(np.full((lines * 3 // 2, 128), 128, np.uint8), 0))
    assert decoded.colorspace == standard
    assert decoded.color_range == 1  # limited
    assert (decoder.color_primaries, decoder.color_trc) == (standard, standard)


def test_views_that_are_not_contiguous_encode_the_same() -> None:
    wide = np.repeat(film()[:1], 2, axis=2)
    plain = bytes(H264Encoder("libx264", SIZE, 500_000).encode(film()[0], 0))
    assert bytes(H264Encoder("libx264", SIZE, 500_000).encode(wide[0, :, ::2], 0)) == plain


def test_nvenc_is_taken_where_it_opens_and_left_where_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = video_encoder._open_h264

    def pretend(name: str, frame_size: tuple[int, int], max_bps: int) -> object:
        opened.append(name)
        return real("libx264", frame_size, max_bps)

    monkeypatch.setattr(video_encoder, "has_nvenc", lambda: True)
    monkeypatch.setattr(video_encoder, "_open_h264", pretend)
    assert open_video_encoder("H264", SIZE, 500_000).name == "h264_nvenc"

    def only_one(name: str, frame_size: tuple[int, int], max_bps: int) -> object:
        if name == "h264_nvenc":
            raise av.error.ExternalError(-542398533, "no session left")
        return pretend(name, frame_size, max_bps)

    monkeypatch.setattr(video_encoder, "_open_h264", only_one)
    assert open_video_encoder("H264", SIZE, 500_000).name == "libx264"


def test_unknown_codec_is_refused() -> None:
    with pytest.raises(ValueError, match="AV1"):
        open_video_encoder("AV1", SIZE, 500_000)


def test_opus_is_one_packet_a_block_with_media_time() -> None:
    encoder = OpusEncoder()
    decoder = av.CodecContext.create("libopus", "r")
    decoder.layout = "mono"
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(960 * 50) / 48_000)).astype(np.int16)
    heard, size = [], 0
    for block in range(50):
        packet = encoder.encode(tone[960 * block : 960 * (block + 1)], block + 1000)
        assert packet.pts == 960 * (block + 1000) and packet.time_base.denominator == 48_000
        size += packet.size
        heard += [frame.to_ndarray().reshape(-1) for frame in decoder.decode(packet)]
    sound = np.concatenate(heard).astype(float)
    assert len(sound) == 48_000
    assert 20_000 < 8 * size < 80_000
    spectrum = np.abs(np.fft.rfft(sound[9600:]))
    assert abs(np.argmax(spectrum) * 48_000 / len(sound[9600:]) - 440) < 3


def test_opus_packets_carry_the_sound_before_them() -> None:
    """In-band FEC: in the SILK and hybrid modes (configurations 0 to 15 of the first byte, RFC 6716, 3.1) the second
    bit after that byte says that a 20 ms mono packet repeats the one before (4.2.3)."""
    encoder = OpusEncoder()
    t = np.arange(960 * 60) / 48_000
    buzz = sum(np.sin(2 * np.pi * 150 * k * t) / k for k in range(1, 15))
    syllables = 4000 * buzz * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * t)) ** 2
    packets = [bytes(encoder.encode(syllables[960 * b : 960 * (b + 1)].astype(np.int16), b)) for b in range(60)]
    assert all(packet[0] >> 3 <= 15 for packet in packets[5:])
    assert sum(bool(packet[1] & 0x40) for packet in packets[5:]) >= 30
