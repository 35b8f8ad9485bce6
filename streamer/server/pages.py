"""The page, its parts and the headers that keep them to themselves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from pathlib import Path

from aiohttp import web

from streamer.server.access import ACCESS

PAGES = {"/": "index.html", "/index.html": "index.html", "/embed.html": "embed.html", "/viewer.html": "viewer.html"}
NO_PAGE = "The server runs, but its page is not installed here; docs/protocol.md says how to talk to it.\n"
_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\bsrc\s*=)[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)

FOLDER = web.AppKey("page_folder", Path)


def page_folder() -> Path:
    """`client_demo`, which lies beside the package, in a checkout and when installed."""
    return Path(__file__).resolve().parents[2] / "client_demo"


def add_pages(app: web.Application, folder: Path) -> None:
    """Serves the folder at `/`; nothing outside it, however the path is written.

    Every part gets a route of its own: one for everything would answer for addresses that are not its business.
    """
    app[FOLDER] = folder.resolve()
    for path in PAGES:
        app.router.add_get(path, show_page)
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.is_dir():
            app.router.add_get(f"/{{path:{re.escape(entry.name)}/.+}}", show_part)
        elif entry.suffix != ".html":
            app.router.add_get(f"/{{path:{re.escape(entry.name)}}}", show_part)


async def show_part(request: web.Request) -> web.StreamResponse:
    """A file of the folder."""
    folder = request.app[FOLDER]
    try:
        path = (folder / request.match_info["path"]).resolve()
        is_there = path.is_relative_to(folder) and path.is_file()
    except (OSError, ValueError):
        is_there = False
    if not is_there:
        raise web.HTTPNotFound
    return web.FileResponse(path)


async def show_page(request: web.Request) -> web.Response:
    """One of the pages, with the headers that fit it."""
    path = request.app[FOLDER] / PAGES[request.path]
    try:
        text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    except OSError:
        if request.path == "/":
            return web.Response(text=NO_PAGE)
        raise web.HTTPNotFound from None
    response = web.Response(text=text, content_type="text/html")
    response.headers["Content-Security-Policy"] = content_policy(text, request.app[ACCESS].origins)
    request.app[ACCESS].remember(request, response)
    return response


def content_policy(page: str, embedders: list[str]) -> str:
    """What a page may load: its own parts, and the inline scripts that are in it now.

    Args:
        embedders: origins that may show it in a frame.
    """
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(page)
    ]
    return "; ".join(
        [
            "default-src 'self'",
            " ".join(["script-src 'self'", *hashes]),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' blob: mediastream:",
            "connect-src 'self' ws: wss:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            " ".join(["frame-ancestors 'self'", *embedders]),
        ]
    )
