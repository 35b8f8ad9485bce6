from __future__ import annotations

import asyncio
import logging

import pytest
from aiortc import RTCConfiguration

from streamer.media.patches.connection import PatchedConnection


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
