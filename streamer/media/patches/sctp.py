"""SCTP, which carries the data channel: data is a sign of life, and a transport that has gone no exception."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aiortc.rtcsctptransport import RTCSctpTransport

logger = logging.getLogger(__name__)


def harden_sctp(transport: RTCSctpTransport, on_activity: Callable[[], None] = lambda: None) -> None:
    """Counts data as activity, and lets chunks for a transport that has gone fall."""
    send_chunk, handle_data = transport._send_chunk, transport._handle_data

    async def send_if_connected(chunk: Any) -> None:
        try:
            await send_chunk(chunk)
        except ConnectionError:
            logger.debug("a data channel's transport has gone")

    async def noticed_data(data: bytes) -> None:
        on_activity()
        await handle_data(data)

    transport._send_chunk = send_if_connected  # type: ignore[method-assign]
    transport._handle_data = noticed_data  # type: ignore[method-assign]
