"""Files that were made to break what reads them, and pictures that are only odd."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from PIL import Image


def wav(rate: int, channels: int = 1, frames: int = 4000) -> bytes:
    """A WAV of a quiet noise."""
    samples = np.random.default_rng(rate).integers(-3000, 3000, frames * channels).astype("<i2").tobytes()
    fields = (1, channels, rate, min(rate * channels * 2, 2**32 - 1), channels * 2 % 65536, 16)
    head = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, *fields) + b"data" + struct.pack("<I", len(samples))
    return b"RIFF" + struct.pack("<I", len(head) + len(samples)) + head + samples


def slow_flac(rate: int = 20, blocks: int = 8) -> bytes:
    """A few kilobytes of FLAC: blocks of 65,535 samples of silence at a rate that makes hours of them."""
    info = struct.pack(">HH", 65_535, 65_535) + bytes(6)
    info += ((rate << 44) | (0 << 41) | (15 << 36) | (65_535 * blocks)).to_bytes(8, "big") + bytes(16)
    file = b"fLaC" + bytes([0x80]) + len(info).to_bytes(3, "big") + info
    for number in range(blocks):
        # fixed block size, 16 bits of size and the rate of the head, one channel of 16 bits, the frame's number
        head = bytes([0xFF, 0xF8, 0x70, 0x08, number]) + struct.pack(">H", 65_534)
        head += bytes([_crc8(head)])
        body = head + bytes([0x00, 0x00, 0x00])  # a constant
        file += body + struct.pack(">H", _crc16(body))
    return file


def _crc8(message: bytes) -> int:
    crc = 0
    for byte in message:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def _crc16(message: bytes) -> int:
    crc = 0
    for byte in message:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def sound_with_cover(side: int) -> bytes:
    """A MOV with a second of sound and a square picture track of one large PNG."""
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        sound = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = side
        cover.pix_fmt = "rgb24"
        picture = av.VideoFrame(side, side, "rgb24")
        picture.planes[0].update(bytes(picture.planes[0].buffer_size))
        picture.pts, picture.time_base = 0, Fraction(1, 1)
        container.mux(cover.encode(picture))
        frame = av.AudioFrame.from_ndarray(np.full((1, 48_000), 1000, np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return file.getvalue()


def encoded(image: Image.Image, format: str, **options) -> bytes:  # noqa: A002
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_bomb(columns: int, rows: int, kind: int = 2, depth: int = 8) -> bytes:
    """A PNG of any size whose zeros take a few kilobytes a megapixel."""
    bits = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind] * depth
    line = bytes(1 + (columns * bits + 7) // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(line) for _ in range(min(rows, 4000))) + packer.flush()
    palette = _chunk(b"PLTE", bytes(3)) if kind == 3 else b""
    head = struct.pack(">IIBBBBB", columns, rows, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + palette + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def photo(seed: int, columns: int = 160, rows: int = 120) -> Image.Image:
    """Soft colours, brighter on top."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 120, (6, 8, 3), np.uint8)).resize((columns, rows), Image.Resampling.BICUBIC)
    light = np.linspace(120, 0, rows)[:, None, None]
    return Image.fromarray((np.asarray(small) + light).clip(0, 255).astype(np.uint8))


def bad_pictures(seed: int = 1) -> Iterator[tuple[str, bytes]]:
    """More than 100 files that are no picture that can be used, with a word about each."""
    rng = np.random.default_rng(seed)
    good = {
        "jpeg": encoded(photo(1), "JPEG"),
        "progressive": encoded(photo(2), "JPEG", progressive=True),
        "png": encoded(photo(3), "PNG"),
        "webp": encoded(photo(4), "WEBP"),
    }
    for name, content in good.items():
        for _ in range(8):  # a JPEG may miss its last bytes and be shown, as browsers do: cut in the first half
            yield f"{name}, cut", content[: int(rng.integers(1, len(content) // 2))]
        for _ in range(6):
            broken = bytearray(content)
            broken[: int(rng.integers(4, 24))] = rng.bytes(24)[: len(broken)][:4]
            yield f"{name}, another head", bytes(broken)
    for size in (0, 1, 2, 100, 10_000):
        yield "noise", rng.bytes(size)
    for name in ("GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000", "DDS"):
        yield f"a {name}", encoded(photo(5), name)
    yield "text", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n"
    yield "PDF", b"%PDF-1.4\n"
    for columns, rows in ((1, 1), (1, 20_000), (20_000, 1), (63, 500), (2, 2)):
        yield "too small", encoded(Image.new("RGB", (columns, rows)), "PNG")
    for columns, rows in ((20_000, 20_000), (100_000, 1000), (2**31 - 1, 64), (2**31 - 1, 2**31 - 1), (8000, 8000)):
        for kind in (0, 2, 6):
            yield (
                "too large",
                png_bomb(columns, min(rows, 2**31 - 1), kind) if columns * 4 < 2**20 else _claim(columns, rows, kind),
            )
    for columns, rows in ((65_535, 65_535), (30_000, 2000)):
        head = bytearray(good["jpeg"])
        place = head.index(b"\xff\xc0") + 5
        head[place : place + 4] = struct.pack(">HH", rows, columns)
        yield "a JPEG that claims to be large", bytes(head)
    for extra in range(12):
        text = bytearray(good["png"])
        bomb = _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes((8 + extra) << 20)))
        text[33:33] = bomb
        yield "a PNG with a bomb for a text", bytes(text)


def _claim(columns: int, rows: int, kind: int) -> bytes:
    head = struct.pack(">IIBBBBB", columns, rows, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(b"")) + _chunk(b"IEND", b"")
