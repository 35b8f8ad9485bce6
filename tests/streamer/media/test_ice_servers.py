from __future__ import annotations

import asyncio
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aioice import Connection

from streamer.media.ice_servers import CREDENTIAL_LIFETIME_S, IceServer


def test_credentials_are_those_that_a_turn_server_makes_of_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.7)
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0badcafe")
    issued = IceServer.parse("turn:t.example:99", secret="north star").issued()
    assert (issued.url, issued.username) == ("turn:t.example:99", f"{1_700_000_000 + CREDENTIAL_LIFETIME_S}:0badcafe")
    # printf 1700003600:0badcafe | openssl dgst -sha1 -hmac 'north star' -binary | base64
    assert issued.credential == "x0w7Gbtd0dBFE2/B4TEgwMNEKUg="


def test_who_has_a_user_or_needs_none_keeps_it() -> None:
    for text in ("stun:s.example", "turn:t.example,ann,pw"):
        server = IceServer.parse(text, secret="north star")
        assert server.issued() is server


@pytest.fixture
def turn_port(tmp_path: Path) -> Iterator[int]:
    """A coturn that shares the secret `north star`."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.skip("coturn is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = f"{program} -n --no-cli --no-tls --no-dtls -L 127.0.0.1 -E 127.0.0.1 -p {port} --realm test"
    line += f" --log-file stdout --use-auth-secret --pidfile {tmp_path}/pid --db {tmp_path}/db"
    with subprocess.Popen([*line.split(), "--static-auth-secret=north star"], stdout=subprocess.DEVNULL) as server:
        yield port
        server.terminate()


@pytest.mark.parametrize(("secret", "is_let_in"), [("north star", True), ("south star", False)])
def test_coturn_lets_in_who_knows_the_secret(turn_port: int, secret: str, is_let_in: bool) -> None:
    issued = IceServer(f"turn:127.0.0.1:{turn_port}", secret=secret).issued()

    async def relayed() -> int:
        connection = Connection(
            ice_controlling=False,
            turn_server=issued.address,
            turn_username=issued.username,
            turn_password=issued.credential,
        )
        await connection.gather_candidates()
        found = [candidate.type for candidate in connection.local_candidates]
        await connection.close()
        return found.count("relay")

    assert asyncio.run(relayed()) == is_let_in
