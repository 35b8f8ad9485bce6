from __future__ import annotations

import asyncio

import pytest

from streamer.media.ice_servers import IceServer
from streamer.server.access import Access
from streamer.server.pages import content_policy
from streamer.session.metrics import STAGES, Metrics


@pytest.mark.parametrize(
    ("text", "url", "username", "address"),
    [
        ("stun:stun.example.org", "stun:stun.example.org", None, ("stun.example.org", 3478)),
        ("stun:192.0.2.1:19302", "stun:192.0.2.1:19302", None, ("192.0.2.1", 19302)),
        ("turn:t.ex:99?transport=tcp,ann,pw,with,commas", "turn:t.ex:99?transport=tcp", "ann", ("t.ex", 99)),
        ("turns:t.example,ann,pw", "turns:t.example", "ann", ("t.example", 5349)),
        ("stun:[2001:db8::1]:5000", "stun:[2001:db8::1]:5000", None, ("2001:db8::1", 5000)),
    ],
)
def test_ice_servers_of_the_command_line(text: str, url: str, username: str | None, address: tuple[str, int]) -> None:
    server = IceServer.parse(text)
    assert (server.url, server.username, server.address) == (url, username, address)
    assert server.credential in (None, "pw", "pw,with,commas")


@pytest.mark.parametrize(
    "text", ["", "stun.example.org", "http://x", "turn:x", "turn:x,ann", "stun:x y", "stun:x>", "turn:x,a\n,b"]
)
def test_ice_servers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        IceServer.parse(text)


@pytest.mark.parametrize("origin", ["example.com", "ftp://x", "https://", "https://x/path", ""])
def test_origins_that_are_none(origin: str) -> None:
    with pytest.raises(ValueError):
        Access(origins=[origin])


def test_policy_allows_the_inline_scripts_of_the_page_and_no_others() -> None:
    page = "<script>one</script><script type=module>two</script><script src=a.js></script>"
    assert content_policy(page, []).count("sha256-") == 2
    assert content_policy("<p>", []).count("sha256-") == 0
    assert "unsafe-inline" not in content_policy(page, []).split("style-src")[0]


def text_of(metrics: Metrics) -> str:
    async def read() -> str:
        return metrics.text().decode()

    return asyncio.run(read())


def test_latency_of_a_chunk_is_the_sum_of_its_stages() -> None:
    metrics = Metrics()
    metrics.chunk_played(dict.fromkeys(STAGES, 10.0), "full", is_late=True)
    text = text_of(metrics)
    assert f"avatar_latency_milliseconds_sum {10.0 * len(STAGES)}" in text
    assert "avatar_deadline_misses_total 1.0" in text and 'avatar_chunks_total{rung="full"} 1.0' in text
