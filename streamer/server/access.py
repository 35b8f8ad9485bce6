"""Who may use the server: by which name it is called, from which sites, and with which token."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from aiohttp import web

from streamer.errors import ProtocolError
from streamer.server.limits import Limits

COOKIE = "avatar_token"
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
# Without a token: the page (which cannot do anything without one) and the health check.
_OPEN = ("/v1/", "/metrics")
_METHODS = "GET, POST, PATCH, DELETE, OPTIONS"


class Access:
    """Checks requests.

    Args:
        token: what every request has to bring; None lets everybody in.
        origins: of sites that may embed the avatar, as `https://host[:port]`; `*` for all of them.
        hosts: names that the server answers to, besides localhost and the address that a request came to.
        is_behind_proxy: whether a proxy is in front, whose `X-Forwarded-*` say who asks for what.

    Raises:
        ValueError: for an origin or a host that is none.
    """

    def __init__(
        self,
        token: str | None = None,
        origins: Sequence[str] = (),
        hosts: Iterable[str] = (),
        is_behind_proxy: bool = False,
    ):
        for origin in origins:
            if origin != "*" and not _is_origin(origin):
                raise ValueError(f"{origin!r} is not an origin; try https://www.example.com or *")
        for host in hosts:
            if _host_name(host) is None:
                raise ValueError(f"{host!r} is not the name of a host; try avatar.example.com")
        self.origins = [origin.rstrip("/") for origin in origins]
        self._token = token
        self._hosts = {*LOCAL_NAMES, *(_host_name(host) for host in hosts)}
        self._is_behind_proxy = is_behind_proxy

    def check(self, request: web.Request, limits: Limits) -> None:
        """
        Raises:
            ProtocolError: code `forbidden` or `unauthorized`, for a request that may not be answered.
            RateError: if its client has tried too many wrong tokens.
        """
        if request.path == "/healthz":
            return
        if not self._is_own_host(request):
            raise ProtocolError(
                "The server is not called by this name; it can be told its name with --public-host.", "forbidden"
            )
        if request.method == "OPTIONS":
            return
        if not self._is_origin_allowed(request) and (request.method != "GET" or request.path.endswith("/events")):
            raise ProtocolError(
                "This site may not use the avatar; the server can allow it with --cors-origin.", "forbidden"
            )
        if self._token is not None and request.path.startswith(_OPEN) and not self._has_cookie(request):
            self._check_token(request, self._token, limits)

    def client(self, request: web.Request) -> str:
        """The address of whoever asks; of IPv6 the network, of which one client has all."""
        address = request.remote or ""
        if self._is_behind_proxy:
            address = request.headers.get("X-Forwarded-For", address).rpartition(",")[2].strip()
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return "unknown"
        if found.version == 6 and found.ipv4_mapped is None:
            return str(ipaddress.ip_network((found, 64), strict=False))
        return address

    def remember(self, request: web.Request, response: web.Response) -> None:
        """A page that is opened with the token gets a cookie for its own requests, which does not say the token."""
        if self._token is not None and _is_same(request.query.get("access_token"), self._token):
            is_secure = request.secure or self._forwarded(request, "X-Forwarded-Proto") == "https"
            response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="Strict", secure=is_secure)

    def cors_headers(self, request: web.Request) -> dict[str, str]:
        """Headers that let a site of the list read the answer; none for others."""
        origin = request.headers.get("Origin")
        if origin is None or not ("*" in self.origins or origin in self.origins):
            return {}
        headers = {
            "Access-Control-Allow-Origin": "*" if "*" in self.origins else origin,
            "Access-Control-Expose-Headers": "Location, Link, Retry-After, ETag, Accept-Post, Accept-Patch",
            "Vary": "Origin",
        }
        if request.method == "OPTIONS":
            headers |= {
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": "Content-Type, Authorization, If-Match",
                "Access-Control-Max-Age": "600",
            }
        return headers

    @property
    def _cookie(self) -> str:
        """The same after a restart, and of no use for finding the token."""
        return hmac.new((self._token or "").encode(), b"cookie of the page", hashlib.sha256).hexdigest()

    def _forwarded(self, request: web.Request, name: str) -> str | None:
        return request.headers.get(name) if self._is_behind_proxy else None

    def _host(self, request: web.Request) -> str:
        return self._forwarded(request, "X-Forwarded-Host") or request.host

    def _is_own_host(self, request: web.Request) -> bool:
        """Whether it was sent to a name of ours: a page elsewhere can make its own name lead here."""
        name = _host_name(self._host(request))
        return name in self._hosts or name is not None and name == _address_of(request)

    def _is_origin_allowed(self, request: web.Request) -> bool:
        """Whether a browser's request comes from this server's own page or from a site that may embed it."""
        origin = request.headers.get("Origin")
        if origin is None or "*" in self.origins or origin in self.origins:
            return True
        return _is_origin(origin) and urlsplit(origin).netloc.lower() == self._host(request).lower()

    def _has_cookie(self, request: web.Request) -> bool:
        return _is_same(request.cookies.get(COOKIE), self._cookie)

    def _check_token(self, request: web.Request, token: str, limits: Limits) -> None:
        """It has to be brought as `Authorization: Bearer` or `?access_token=`."""
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        brought = [bearer.strip()] if scheme.lower() == "bearer" else []
        brought += request.query.getall("access_token", [])
        if brought:
            limits.check("tokens", self.client(request))
            if any(_is_same(found, token) for found in brought):
                return
            limits.take("tokens", self.client(request))
        raise ProtocolError("This server wants a token: Authorization: Bearer TOKEN.", "unauthorized")


def _is_same(found: str | None, wanted: str) -> bool:
    return found is not None and hmac.compare_digest(found.encode(errors="backslashreplace"), wanted.encode())


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and _host_name(parts.netloc) is not None and parts.path in ("", "/")


def _host_name(host: str) -> str | None:
    """The host of `host[:port]`, in small letters, an address in its one form; None where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        name = parts.hostname
        if not name or parts.netloc != host or parts.username is not None or parts.port == 0:
            return None
    except ValueError:
        return None
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name if all(letter.isalnum() or letter in "-._" for letter in name) else None


def _address_of(request: web.Request) -> str | None:
    """This machine's address that the request came to."""
    name = None if request.transport is None else request.transport.get_extra_info("sockname")
    return str(ipaddress.ip_address(name[0])) if isinstance(name, tuple) else None


ACCESS = web.AppKey("access", Access)
