"""Programs of other people against the real server with its test pattern, which flashes white where sound is loud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.browser.live_server import LiveServer


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(["--threads", "1", "--max-sessions", "3"]) as live:
        yield live
        assert "Traceback" not in live.complaints()
