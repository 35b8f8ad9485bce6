"""STUN and TURN servers as they are named on the command line."""

from __future__ import annotations

import re


class IceServer:
    """A STUN or TURN server.

    Args:
        url: `stun:host[:port]`, `turn:host[:port][?transport=udp|tcp]` or `turns:…`.

    Raises:
        ValueError: for another kind of URL, or a TURN server without user and credential.
    """

    def __init__(self, url: str, username: str | None = None, credential: str | None = None):
        if not re.fullmatch(r"(stun|stuns|turn|turns):[A-Za-z0-9.\[\]:-]+(\?transport=(udp|tcp))?", url):
            raise ValueError(f"{url!r} is not an ICE server; try stun:HOST:PORT or turn:HOST:PORT,USER,CREDENTIAL")
        if url.startswith("turn") and (username is None or credential is None):
            raise ValueError(f"{url} needs a user and a credential: {url},USER,CREDENTIAL")
        if any(character in (username or "") + (credential or "") for character in "\r\n"):
            raise ValueError("a user or credential has no line ends")
        self.url = url
        self.username = username
        self.credential = credential

    @classmethod
    def parse(cls, text: str) -> IceServer:
        """From `URL[,user,credential]`.

        Raises:
            ValueError: with one sentence.
        """
        url, *rest = text.strip().split(",", 2)
        if len(rest) == 1:
            raise ValueError(f"{url} has a user but no credential: {url},USER,CREDENTIAL")
        return cls(url, *rest)

    @property
    def address(self) -> tuple[str, int]:
        """Host and UDP or TCP port."""
        scheme, rest = self.url.split(":", 1)
        place = rest.split("?")[0]
        host, _, port = place.rpartition(":") if re.search(r":\d+$", place) else (place, "", "")
        return host.strip("[]"), int(port) if port else (5349 if scheme.endswith("s") else 3478)
