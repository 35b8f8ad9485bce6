from __future__ import annotations

import asyncio
import copy
import logging
import random
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import google_crc32c as crc32c
import pytest
from aiortc import RTCConfiguration
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    DataChunk,
    InitChunk,
)

from streamer.media.patches.connection import PatchedConnection
from streamer.media.patches.sctp import MAX_FRAGMENTS, MAX_STREAMS, TSNS, WINDOW


def test_data_is_a_sign_of_life_and_a_dead_transport_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)

    async def main() -> None:
        signs: list[int] = []
        connection = PatchedConnection(RTCConfiguration(iceServers=[]), lambda: signs.append(1))
        connection.createDataChannel("events")
        assert connection.sctp is not None
        await connection.sctp._handle_data(b"anything")
        assert signs == [1]
        connection.sctp._remote_port = 5000
        await connection.sctp._init()  # not connected: plain aiortc raises ConnectionError here
        connection.sctp._t1_cancel()
        await connection.close()

    asyncio.run(main())
    assert caplog.records == []


def fragment(tsn: int, flags: int = 0, sequence: int = 0, data: bytes = b"x", stream: int = 1) -> DataChunk:
    chunk = DataChunk(flags=flags)
    chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol, chunk.user_data = tsn, stream, sequence, 51, data
    return chunk


class Receiving:
    """A hardened transport, and the messages that come out of it."""

    def __init__(self) -> None:
        self.connection = PatchedConnection(RTCConfiguration(iceServers=[]))
        self.connection.createDataChannel("events")
        self.sctp: Any = self.connection.sctp
        self.sctp._last_received_tsn = TSNS - 5  # TSNs wrap soon
        self.sctp._remote_port = 5000
        self.sctp._set_state(self.sctp.State.ESTABLISHED)
        self.messages: list[bytes] = []
        self.sctp._receive = self._receive

    async def _receive(self, stream_id: int, protocol: int, message: bytes) -> None:
        self.messages.append(message)

    async def take(self, *chunks: DataChunk) -> None:
        for chunk in chunks:
            chunk.tsn %= TSNS
            await self.sctp._receive_data_chunk(chunk)


def run(scenario: Callable[[Receiving], Awaitable[None]]) -> None:
    async def main() -> None:
        receiving = Receiving()
        await scenario(receiving)
        await receiving.connection.close()

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(20))
def test_messages_come_together_in_any_order_and_over_the_wrap(seed: int) -> None:
    chance = random.Random(seed)
    chunks, whole, tsn = [], [], TSNS - 4
    for sequence in range(12):
        parts = [bytes([sequence, part]) for part in range(chance.choice((1, 1, 2, 5)))]
        whole.append(b"".join(parts))
        for number, part in enumerate(parts):
            flags = SCTP_DATA_FIRST_FRAG * (number == 0) | SCTP_DATA_LAST_FRAG * (number == len(parts) - 1)
            chunks.append(fragment(tsn, flags, sequence, part))
            tsn += 1
    arriving = sorted(chunks, key=lambda chunk: chunk.tsn + chance.uniform(0, chance.choice((0, 3, 40))))
    again = [copy.copy(chance.choice(arriving)) for _ in range(5)]

    async def scenario(receiving: Receiving) -> None:
        await receiving.take(*arriving[:10], *again, *arriving[10:])
        assert receiving.messages == whole
        assert receiving.sctp._last_received_tsn == (tsn - 1) % TSNS
        assert not receiving.sctp._sack_misordered and receiving.sctp._advertised_rwnd == 1024 * 1024

    run(scenario)


def test_a_message_that_never_ends_closes_the_channel_and_is_looked_at_once() -> None:
    looks = 0

    class Counted(DataChunk):
        @property
        def tsn(self) -> int:
            nonlocal looks
            looks += 1
            return self._tsn

        @tsn.setter
        def tsn(self, tsn: int) -> None:
            self._tsn = tsn

    async def scenario(receiving: Receiving) -> None:
        sent = 0
        while receiving.sctp.state != "closed":
            assert sent <= MAX_FRAGMENTS, "fragments are taken without end"
            chunk = Counted(flags=SCTP_DATA_FIRST_FRAG * (sent == 0))
            chunk.tsn, chunk.stream_id, chunk.stream_seq, chunk.protocol = TSNS - 4 + sent, 1, 0, 51
            chunk.user_data = b"x"
            await receiving.take(chunk)
            sent += 1
        assert sent == MAX_FRAGMENTS + 1 and receiving.messages == []
        assert looks < 60 * sent  # aiortc: more than a thousand a fragment

    run(scenario)


def test_large_fragments_are_bounded_by_their_bytes() -> None:
    async def scenario(receiving: Receiving) -> None:
        for sent in range(70):
            await receiving.take(fragment(TSNS - 4 + sent, SCTP_DATA_FIRST_FRAG * (sent == 0), 0, bytes(16_384)))
        assert receiving.sctp.state == "closed"

    run(scenario)


def test_what_waits_for_a_missing_fragment_is_bounded() -> None:
    async def scenario(receiving: Receiving) -> None:
        whole = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
        await receiving.take(*(fragment(TSNS - 3 + number, whole, 1 + number) for number in range(3000)))
        assert len(receiving.sctp._sack_misordered) == WINDOW - 1
        await receiving.take(fragment(TSNS - 4, whole, 0, b"first"))
        assert receiving.messages == [b"first", *[b"x"] * (WINDOW - 1)]

    run(scenario)


def test_streams_are_few_and_unordered_messages_whole() -> None:
    async def scenario(receiving: Receiving) -> None:
        whole = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG
        await receiving.take(*(fragment(TSNS - 4 + number, whole, 0, stream=number) for number in range(500)))
        assert len(receiving.messages) == len(receiving.sctp._inbound_streams) == MAX_STREAMS
        tsn = receiving.sctp._last_received_tsn + 1
        unordered = whole | SCTP_DATA_UNORDERED
        await receiving.take(fragment(tsn, unordered, 0, b"u"), fragment(tsn, unordered, 0, b"again"))
        await receiving.take(*(fragment(tsn + 1 + number, SCTP_DATA_UNORDERED) for number in range(5000)))
        assert receiving.messages[MAX_STREAMS:] == [b"u"]
        assert sum(len(stream.reassembly) for stream in receiving.sctp._inbound_streams.values()) == 0

    run(scenario)


def test_a_packet_that_breaks_assertions_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)

    async def scenario(receiving: Receiving) -> None:
        first = InitChunk()
        first.initiate_tag = first.advertised_rwnd = first.outbound_streams = first.inbound_streams = 1
        header = struct.pack("!HHL", 5000, 5000, 0)
        body = bytes(first) * 2  # an INIT comes alone
        checksum = struct.pack("<L", crc32c.value(header + bytes(4) + body))
        await receiving.sctp._handle_data(header + checksum + body)

    run(scenario)
    assert caplog.records == []
