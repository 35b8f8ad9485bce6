"""Broken sound files: real WAV, FLAC, MP3, OGG, MP4 and MKV with other numbers in their structures."""

from __future__ import annotations

import functools
import io
import random
import re
import struct

import av
import numpy as np

CODECS = {
    "wav": "pcm_s16le",
    "flac": "flac",
    "mp3": "libmp3lame",
    "ogg": "libopus",
    "mp4": "aac",
    "matroska": "libopus",
}
RATES = (0, 1, 20, 7_999, 8_000, 44_100, 192_000, 655_350, 2**31 - 1, 2**32 - 1)
SIZES = (0, 1, 7, 2**16 - 1, 2**24 - 1, 2**31 - 1, 2**32 - 1)
MARKS = {  # where structures begin
    "wav": rb"RIFF|fmt |data",
    "flac": rb"fLaC|\xff\xf8",
    "mp3": rb"\xff[\xf2-\xfb]|ID3|Xing|Info",
    "ogg": rb"OggS|OpusHead|OpusTags",
    "mp4": rb"ftyp|moov|mvhd|trak|tkhd|mdia|mdhd|minf|stbl|stsd|mp4a|esds|stts|stsc|stsz|stco|mdat|free",
    "matroska": rb"\x1a\x45\xdf\xa3|\x18\x53\x80\x67|\x16\x54\xae\x6b|\x1f\x43\xb6\x75|\xae|\xe1|\xb5|\x9f|\xa3",
}


def sound(chance: random.Random) -> bytes:
    """A file of a known kind with one to five things wrong in it."""
    kind = chance.choice(list(CODECS))
    if kind == "wav" and chance.random() < 0.5:
        return _wav(chance)
    broken = bytearray(_whole(kind))
    for _ in range(chance.randint(1, 5)):
        if broken:
            chance.choice((_number, _number, _number, _bits, _cut, _twice))(broken, kind, chance)
    if kind == "ogg" and chance.random() < 0.7:
        _sign(broken)  # or pages are dropped before anything in them is read
    return bytes(broken)


@functools.cache
def _whole(kind: str) -> bytes:
    """Half a second of a tone."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(CODECS[kind], rate=48_000, layout="mono")
        tone = (8000 * np.sin(2 * np.pi * 300 * np.arange(24_000) / 48_000)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        resampler = av.AudioResampler(stream.codec_context.format, "mono", 48_000, frame_size=stream.frame_size or 960)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            part.pts = None
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return file.getvalue()


def _wav(chance: random.Random) -> bytes:
    """A header of odd numbers, and sound behind it."""
    channels = chance.choice((0, 1, 2, 8, 9, 17, 255, 65_535))
    rate, bits = chance.choice(RATES), chance.choice((0, 1, 8, 12, 16, 24, 32, 64, 65_535))
    tag = chance.choice((0, 1, 2, 3, 6, 7, 0x11, 0x55, 0xFFFE))
    align = chance.choice((0, channels * bits // 8, 1, 65_535)) & 0xFFFF
    header = struct.pack("<HHIIHH", tag, channels, rate, chance.choice(SIZES), align, bits)
    pcm = chance.randbytes(chance.choice((0, 1, 999, 48_000)))
    parts = [(b"fmt ", header + bytes(chance.choice((0, 2, 22)))), (b"data", pcm)]
    if chance.random() < 0.3:
        parts.insert(chance.randrange(3), (chance.choice((b"LIST", b"fact", b"data", b"fmt ", b"cue ")), bytes(40)))
    chunks = b""
    for name, content in parts:
        size = len(content) if chance.random() < 0.8 else chance.choice(SIZES)
        chunks += name + struct.pack("<I", size) + content
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


def _place(broken: bytearray, kind: str, chance: random.Random) -> int:
    """Somewhere in or just before a structure."""
    found = [match.start() for match in re.finditer(MARKS[kind], bytes(broken))] or [0]
    return max(0, min(len(broken) - 1, chance.choice(found[:40]) + chance.randint(-8, 40)))


def _number(broken: bytearray, kind: str, chance: random.Random) -> None:
    place = _place(broken, kind, chance)
    width, order = chance.choice((1, 2, 3, 4, 8)), chance.choice(("little", "big"))
    number = chance.choice((*RATES, *SIZES)) % 256**width
    broken[place : place + width] = number.to_bytes(width, order)


def _bits(broken: bytearray, kind: str, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 8, 200))):
        broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)


def _cut(broken: bytearray, kind: str, chance: random.Random) -> None:
    first = _place(broken, kind, chance)
    del broken[first : first + chance.choice((1, 4, 100, len(broken)))]


def _twice(broken: bytearray, kind: str, chance: random.Random) -> None:
    first = _place(broken, kind, chance)
    broken[first:first] = broken[first : first + chance.choice((4, 60, 5000))] * chance.choice((1, 20))


def _sign(broken: bytearray) -> None:
    """Right checksums of OGG's pages."""
    starts = [match.start() for match in re.finditer(rb"OggS", bytes(broken))]
    for start, end in zip(starts, [*starts[1:], len(broken)], strict=True):
        if end - start > 27:
            broken[start + 22 : start + 26] = bytes(4)
            broken[start + 22 : start + 26] = struct.pack("<I", _ogg_crc(bytes(broken[start:end])))


@functools.cache
def _ogg_table() -> list[int]:
    def entry(byte: int) -> int:
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        return value & 0xFFFFFFFF

    return [entry(byte) for byte in range(256)]


def _ogg_crc(page: bytes) -> int:
    table, value = _ogg_table(), 0
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ table[(value >> 24) ^ byte]
    return value
