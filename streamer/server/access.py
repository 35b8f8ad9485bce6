"""Who may use the server: a token, and the origins of other sites."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

from aiohttp import web

COOKIE = "avatar_token"
# Without a token: the page (which cannot do anything without one) and the health check.
_OPEN = ("/v1/", "/metrics")
_METHODS = "GET, POST, PATCH, DELETE, OPTIONS"


class Access:
    """Checks requests.

    Args:
        token: what every request has to bring; None lets everybody in.
        origins: of sites that may embed the avatar, as `https://host[:port]`; `*` for all of them.

    Raises:
        ValueError: for an origin that is none.
    """

    def __init__(self, token: str | None = None, origins: Sequence[str] = ()):
        for origin in origins:
            parts = urlsplit(origin)
            is_origin = parts.scheme in ("http", "https") and parts.netloc and parts.path in ("", "/")
            if origin != "*" and not is_origin:
                raise ValueError(f"{origin!r} is not an origin; try https://www.example.com or *")
        self._token = token
        self.origins = [origin.rstrip("/") for origin in origins]

    def is_allowed(self, request: web.Request) -> bool:
        """Whether it brings the token: as `Authorization: Bearer`, `?access_token=` or the page's cookie."""
        if self._token is None or not request.path.startswith(_OPEN) or request.method == "OPTIONS":
            return True
        return any(hmac.compare_digest(found.encode(), self._token.encode()) for found in self._brought(request))

    def remember(self, request: web.Request, response: web.Response) -> None:
        """A page that is opened with the token gives it to the page's own requests."""
        found = request.query.get("access_token")
        if self._token is not None and found is not None and hmac.compare_digest(found.encode(), self._token.encode()):
            is_secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
            response.set_cookie(COOKIE, found, httponly=True, samesite="Strict", secure=is_secure)

    def is_origin_allowed(self, request: web.Request) -> bool:
        """Whether a browser's request comes from this server's own page or from a site that may embed it."""
        origin = request.headers.get("Origin")
        if origin is None or "*" in self.origins or origin in self.origins:
            return True
        host = request.headers.get("X-Forwarded-Host", request.host)
        return urlsplit(origin).netloc.lower() == host.lower()

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

    @staticmethod
    def _brought(request: web.Request) -> list[str]:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        found = [bearer.strip()] if scheme.lower() == "bearer" else []
        return found + [
            token for token in (request.query.get("access_token"), request.cookies.get(COOKIE)) if token is not None
        ]
