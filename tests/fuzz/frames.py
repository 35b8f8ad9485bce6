"""Broken frames: of a WebSocket as bytes on the wire, of a data channel as SCTP packets within its encryption."""

from __future__ import annotations

import random
import struct
from typing import Any

import google_crc32c as crc32c

from tests.fuzz.bodies import message

LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 2**31, 2**63, 2**64 - 1)
CHUNK_TYPES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 64, 128, 130, 132, 192, 193, 255)
DCEP, TEXT, BINARY = 50, 51, 53


def websocket_bytes(chance: random.Random) -> bytes:
    """One to five frames, right ones among them."""
    return b"".join(_frame(chance) for _ in range(chance.randint(1, 5)))


def _frame(chance: random.Random) -> bytes:
    raw = message(chance)
    payload = raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw
    if chance.random() < 0.3:
        payload = chance.choice((b"", b"\xff\xfe", struct.pack("!H", chance.randrange(65_536)), bytes(126)))
    opcode = chance.choice((0, 1, 1, 1, 2, 2, 3, 8, 9, 10, 15))
    first = opcode | (0x80 if chance.random() < 0.8 else 0) | (chance.choice((0, 0, 0, 0x40, 0x70)))
    length = len(payload) if chance.random() < 0.85 else chance.choice(LENGTHS)
    is_masked = chance.random() < 0.9
    second = 0x80 if is_masked else 0
    if length < 126:
        head = struct.pack("!BB", first, second | length)
    elif length < 2**16:
        head = struct.pack("!BBH", first, second | 126, length)
    else:
        head = struct.pack("!BBQ", first, second | 127, length)
    mask = chance.randbytes(4) if is_masked else b""
    return head + mask + (bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if is_masked else payload)


def sctp_packet(chance: random.Random, tag: int, tsn: int) -> bytes:
    """A packet of one to four chunks with a right checksum.

    Args:
        tag: that the association wants.
        tsn: of the next fragment.
    """
    body = b"".join(_chunk(chance, tsn) for _ in range(chance.randint(1, 4)))
    head = struct.pack("!HHI", 5000, 5000, tag if chance.random() < 0.9 else chance.randrange(2**32))
    return head + struct.pack("<I", crc32c.value(head + bytes(4) + body)) + body


def _chunk(chance: random.Random, tsn: int) -> bytes:
    kind = chance.choice((0, 0, 0, *CHUNK_TYPES))
    if kind == 0:
        content = _data(chance, tsn)
    elif kind == 3:
        content = struct.pack("!IIHH", chance.choice((tsn, 0, 2**32 - 1)), 0, *chance.choices((0, 1, 9, 65_535), k=2))
    elif kind == 192:
        content = struct.pack("!IHH", (tsn + chance.choice((0, 1, 5000, 2**31))) % 2**32, 1, 1)
    else:
        content = chance.randbytes(chance.choice((0, 4, 16, 40)))
    length = 4 + len(content) if chance.random() < 0.9 else chance.choice((0, 1, 3, 5, 65_535))
    return struct.pack("!BBH", kind, chance.randrange(256), length) + content + bytes(-len(content) % 4)


def _data(chance: random.Random, tsn: int) -> bytes:
    protocol: Any = chance.choice((DCEP, TEXT, TEXT, BINARY, 0, 2**32 - 1))
    payload = chance.randbytes(chance.choice((0, 1, 20)))
    if protocol == DCEP:
        label = chance.choice((b"events", b"\xff\xfe", b"x" * 300))
        lengths = chance.choice(((len(label), 0), (65_535, 65_535)))
        payload = (
            struct.pack("!BBHIHH", chance.choice((3, 2, 9)), chance.randrange(256), 0, 2**32 - 1, *lengths) + label
        )
    elif protocol == TEXT:
        raw = message(chance)
        payload = raw.encode("utf-8", "surrogatepass")[:1000] if isinstance(raw, str) else raw[:1000]
    number = (tsn + chance.choice((0, 0, 0, 1, 1500, 2**31, -1))) % 2**32
    return struct.pack("!IHHI", number, chance.choice((0, 1, 2, 65_535)), chance.randrange(4), protocol) + payload
