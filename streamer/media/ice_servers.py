"""STUN and TURN servers as they are named on the command line."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import time

CREDENTIAL_LIFETIME_S = 3600


class IceServer:
    """A STUN or TURN server.

    Args:
        url: `stun:host[:port]`, `turn:host[:port][?transport=udp|tcp]` or `turns:…`.
        secret: shared with a TURN server that has no users of its own (coturn's `use-auth-secret`); see `issued`.

    Raises:
        ValueError: for another kind of URL, or a TURN server without user and credential, or a secret.
    """

    def __init__(self, url: str, username: str | None = None, credential: str | None = None, secret: str | None = None):
        if not re.fullmatch(r"(stun|stuns|turn|turns):[A-Za-z0-9.\[\]:-]+(\?transport=(udp|tcp))?", url):
            raise ValueError(f"{url!r} is not an ICE server; try stun:HOST:PORT or turn:HOST:PORT,USER,CREDENTIAL")
        if url.startswith("turn") and (username is None or credential is None) and not secret:
            raise ValueError(f"{url} needs a user and a credential: {url},USER,CREDENTIAL, or a secret")
        if any(character in (username or "") + (credential or "") for character in "\r\n"):
            raise ValueError("a user or credential has no line ends")
        self.url = url
        self.username = username
        self.credential = credential
        self._secret = secret if url.startswith("turn") and username is None else None

    @classmethod
    def parse(cls, text: str, secret: str | None = None) -> IceServer:
        """From `URL[,user,credential]`.

        Raises:
            ValueError: with one sentence.
        """
        url, *rest = text.strip().split(",", 2)
        if len(rest) == 1:
            raise ValueError(f"{url} has a user but no credential: {url},USER,CREDENTIAL")
        username, credential = rest or (None, None)
        return cls(url, username, credential, secret)

    def issued(self) -> IceServer:
        """The server with a user and credential of its own for one connection, if it shares a secret.

        They are good for an hour, and what is relayed by then goes on: username is the time of their end, credential
        the HMAC-SHA1 of it (draft-uberti-behave-turn-rest).
        """
        if self._secret is None:
            return self
        username = f"{int(time.time()) + CREDENTIAL_LIFETIME_S}:{secrets.token_hex(4)}"
        digest = hmac.digest(self._secret.encode(), username.encode(), "sha1")
        return IceServer(self.url, username, base64.b64encode(digest).decode())

    @property
    def address(self) -> tuple[str, int]:
        """Host and UDP or TCP port."""
        scheme, rest = self.url.split(":", 1)
        place = rest.split("?")[0]
        host, _, port = place.rpartition(":") if re.search(r":\d+$", place) else (place, "", "")
        return host.strip("[]"), int(port) if port else (5349 if scheme.endswith("s") else 3478)
