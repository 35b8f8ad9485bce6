"""SCTP, which carries the data channel: what is put together of fragments is bounded, and each is looked at once."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable, Iterator
from typing import Any

from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    SCTP_DATA_UNORDERED,
    DataChunk,
    ForwardTsnChunk,
    InboundStream,
    RTCSctpTransport,
    tsn_plus_one,
)
from aiortc.utils import uint16_add, uint16_gt

logger = logging.getLogger(__name__)

TSNS = 2**32
WINDOW = 1024  # fragments that may arrive before one that is missing
MAX_FRAGMENTS = 2048  # of messages that are not complete; their bytes are bounded by the window told to the peer, 1 MiB
MAX_STREAMS = 16
WHOLE = SCTP_DATA_FIRST_FRAG | SCTP_DATA_LAST_FRAG


class OrderedMessages(InboundStream):
    """Puts the messages of an ordered stream together. aiortc looks at all fragments again with each that comes."""

    def __init__(self) -> None:
        super().__init__()
        self._scanned = 0  # fragments from the first on that are known to follow each other within one message

    def add_chunk(self, chunk: DataChunk) -> None:
        """Takes a fragment that has not come before."""
        first = self.reassembly[0].tsn if self.reassembly else chunk.tsn
        offset = (chunk.tsn - first + TSNS // 2) % TSNS  # order of TSNs, which wrap
        place = bisect.bisect_left(self.reassembly, offset, key=lambda other: (other.tsn - first + TSNS // 2) % TSNS)
        self.reassembly.insert(place, chunk)
        if place < self._scanned:
            self._scanned = 0

    def pop_messages(self) -> Iterator[tuple[int, int, bytes]]:
        """The messages that are complete: stream, protocol, bytes."""
        while self._scanned < len(self.reassembly):
            chunk = self.reassembly[self._scanned]
            if self._scanned == 0:
                if not chunk.flags & SCTP_DATA_FIRST_FRAG or uint16_gt(chunk.stream_seq, self.sequence_number):
                    return
            elif chunk.tsn != tsn_plus_one(self.reassembly[self._scanned - 1].tsn):
                return
            self._scanned += 1
            if chunk.flags & SCTP_DATA_LAST_FRAG:
                message = b"".join(fragment.user_data for fragment in self.reassembly[: self._scanned])
                del self.reassembly[: self._scanned]
                self._scanned = 0
                if chunk.stream_seq == self.sequence_number:
                    self.sequence_number = uint16_add(self.sequence_number, 1)
                yield chunk.stream_id, chunk.protocol, message

    def prune_chunks(self, tsn: int) -> int:
        self._scanned = 0
        return super().prune_chunks(tsn)


def harden_sctp(transport: RTCSctpTransport, on_activity: Callable[[], None] = lambda: None) -> None:
    """Changes one transport, see 8 and 9 of the package."""
    send_chunk, handle_data = transport._send_chunk, transport._handle_data
    receive_data_chunk, forward_tsn = transport._receive_data_chunk, transport._receive_forward_tsn_chunk
    streams = transport._inbound_streams

    async def send_if_connected(chunk: Any) -> None:
        try:
            await send_chunk(chunk)
        except ConnectionError:
            logger.debug("a data channel's transport has gone")

    async def noticed_data(data: bytes) -> None:
        on_activity()
        try:
            await handle_data(data)
        except Exception as error:  # aiortc asserts what a peer must not do
            logger.info("a packet of a data channel was left out: %.80r", error)

    def mark_received(tsn: int) -> bool:
        """Whether it has come before. aiortc sorts all that wait for a missing one."""
        early, last = transport._sack_misordered, transport._last_received_tsn
        assert last is not None  # the association stands
        if not 0 < (tsn - last) % TSNS < TSNS // 2 or tsn in early:
            if len(transport._sack_duplicates) < WINDOW:
                transport._sack_duplicates.append(tsn)
            return True
        early.add(tsn)
        while (last := tsn_plus_one(last)) in early:
            early.discard(last)
            transport._last_received_tsn = last
        return False

    async def receive_bounded(chunk: DataChunk) -> None:
        last = transport._last_received_tsn
        if last is None or WINDOW < (chunk.tsn - last) % TSNS < TSNS // 2:
            return  # not acknowledged: it comes again
        is_whole = chunk.flags & WHOLE == WHOLE
        if chunk.flags & SCTP_DATA_UNORDERED or chunk.stream_id not in streams and len(streams) >= MAX_STREAMS:
            transport._sack_needed = True
            if not mark_received(chunk.tsn) and is_whole and chunk.flags & SCTP_DATA_UNORDERED:
                await transport._receive(chunk.stream_id, chunk.protocol, chunk.user_data)
            return
        await receive_data_chunk(chunk)
        fragments = sum(len(stream.reassembly) for stream in streams.values())
        if fragments > MAX_FRAGMENTS or transport._advertised_rwnd < 0:
            logger.info("a data channel was closed: a message of it does not end")
            await transport.stop()

    async def forward_known(chunk: ForwardTsnChunk) -> None:
        chunk.streams = [stream for stream in chunk.streams if stream[0] in streams]
        await forward_tsn(chunk)

    def inbound_stream(stream_id: int) -> InboundStream:
        return streams.setdefault(stream_id, OrderedMessages())

    transport._send_chunk = send_if_connected  # type: ignore[method-assign]
    transport._handle_data = noticed_data  # type: ignore[method-assign]
    transport._mark_received = mark_received  # type: ignore[method-assign]
    transport._receive_data_chunk = receive_bounded  # type: ignore[method-assign]
    transport._receive_forward_tsn_chunk = forward_known  # type: ignore[method-assign]
    transport._get_inbound_stream = inbound_stream  # type: ignore[method-assign]
