"""What the commands of the server have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamer.media.ice_servers import IceServer


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens and what it computes with: the command line of `doctor`, and a part of that of `serve`.

    Attributes:
        port: 0 takes a free one.
        weights: None for those that come with the package.
        threads: of torch; None leaves its choice.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    preset: str = "portrait-512"
    weights: Path | None = None
    device: str = "cpu"
    threads: int | None = None
    ice_servers: tuple[IceServer, ...] = ()
