"""The web application: routes, pages, and what holds for every request."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from streamer.errors import AvatarError, CapacityError
from streamer.faults import INTERNAL, code_of
from streamer.protocol import prepare
from streamer.server.access import ACCESS, Access
from streamer.server.pages import add_pages, page_folder
from streamer.server.requests import check_encoding, failure
from streamer.server.routes import SITE, Site, accepted_types, add_routes

SECURITY_HEADERS = {
    "Server": "infinity-avatar",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=(self)",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_STATUS_CODES = {
    400: ("bad_message", "The request cannot be understood."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This cannot be done at this address."),
    413: ("too_large", "The body is too large."),
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger(__name__)


def create_app(site: Site, access: Access, folder: Path | None = None) -> web.Application:
    """The application; it starts and stops nothing.

    Args:
        folder: of the pages; by default the one that comes with the package.
    """
    prepare()
    app = web.Application(middlewares=[guard])
    app[SITE] = site
    app[ACCESS] = access
    add_routes(app)
    add_pages(app, page_folder() if folder is None else folder)
    app.on_response_prepare.append(_add_headers)
    return app


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Lets in who may come in, and turns every error into the protocol's form."""
    try:
        request.app[ACCESS].check(request, request.app[SITE].limits)
        if request.method == "OPTIONS" and request.path.startswith("/v1/"):
            return web.Response(status=204, headers=accepted_types(request.path))
        check_encoding(request)
        return await handler(request)
    except AvatarError as error:
        code = code_of(error)
        _log_refusal(request, code)
        response = failure(code, str(error), error.retry_after_s if isinstance(error, CapacityError) else None)
        if response.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
        return response
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code, message = _STATUS_CODES.get(error.status, ("bad_message", error.reason))
        _log_refusal(request, code)
        response = failure(code, message)
        response.set_status(error.status)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:
        log.exception("%s failed", _asked(request))
        return failure("internal", INTERNAL)


def _asked(request: web.Request) -> str:
    """What was asked for, without a word of the client's."""
    resource = request.match_info.route.resource
    method = request.method if request.method in ("GET", "POST", "PATCH", "DELETE", "OPTIONS") else "a method"
    return f"{method} {'an unknown address' if resource is None else resource.canonical}"


def _log_refusal(request: web.Request, code: str) -> None:
    log.warning("refused %s from %s: %s", _asked(request), request.app[ACCESS].client(request), code)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, text in (SECURITY_HEADERS | request.app[ACCESS].cors_headers(request)).items():
        response.headers[name] = text
    response.headers.setdefault("Cache-Control", "no-store" if request.path.startswith("/v1/") else "no-cache")
