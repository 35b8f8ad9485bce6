"""Reading requests within their limits, and answering errors in the protocol's form."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import IO

from aiohttp import web

from streamer.errors import ProtocolError
from streamer.faults import STATUS, sentence
from streamer.media.ice_servers import IceServer
from streamer.protocol import error_body

SDP = "application/sdp"
SDP_FRAGMENT = "application/trickle-ice-sdpfrag"
JSON = "application/json"
BODY_TIMEOUT_S = 10.0
UPLOAD_TIMEOUT_S = 120.0


def failure(code: str, message: str, retry_after_s: int | None = None) -> web.Response:
    """A failed request's answer."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.json_response(error_body(code, sentence(message)), status=STATUS.get(code, 500), headers=headers)


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        ProtocolError: if it is larger than `limit` bytes, or does not come within 10 s.
    """
    async with _deadline(BODY_TIMEOUT_S):
        return b"".join([part async for part in _parts(request, limit)])


async def save_body(request: web.Request, limit: int, content: str = "sound", code: str = "bad_audio") -> IO[bytes]:
    """The whole body as a file without a name: whatever happens to this process, nothing of it stays on the disk.

    Args:
        content, code: what is missing where there is nothing, and the protocol's word for that.

    Raises:
        ProtocolError: if it is empty, larger than `limit` bytes, or does not come within two minutes.
    """
    file = tempfile.TemporaryFile()
    try:
        # writes go to the page cache; the largest takes well under a millisecond
        async with _deadline(UPLOAD_TIMEOUT_S):
            async for part in _parts(request, limit):
                file.write(part)
        if not file.tell():
            raise ProtocolError(f"There is no {content} in the body.", code)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


@asynccontextmanager
async def _deadline(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise ProtocolError(f"The body did not come within {timeout_s:g} s.", "timeout") from error


async def _parts(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    check_length(request, limit)
    size = 0
    async for part in request.content.iter_chunked(64 * 1024):
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        yield part


def check_length(request: web.Request, limit: int) -> None:
    """Refuses a body that announces itself as too large before any of it is read."""
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> ProtocolError:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
    return ProtocolError(f"The body may have at most {size}.", "too_large")


def check_encoding(request: web.Request) -> None:
    """
    Raises:
        ProtocolError: if the body is packed: a few bytes could become any number.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ProtocolError("The body has to come as it is, without Content-Encoding.", "unsupported_media")


def check_type(request: web.Request, wanted: str, is_optional: bool = False) -> None:
    """
    Raises:
        ProtocolError: if the body is of another type.
    """
    if is_optional and not request.can_read_body:
        return
    if request.content_type.lower() != wanted:
        raise ProtocolError(f"The body has to be {wanted}.", "unsupported_media")


def check_accepts(request: web.Request, offered: str) -> None:
    """
    Raises:
        ProtocolError: if the client does not want what is offered.
    """
    accept = request.headers.get("Accept", "*/*")
    family = offered.split("/")[0]
    for entry in accept.split(","):
        kind, *parameters = [part.strip().lower() for part in entry.split(";")]
        if any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters):
            continue
        if kind in ("*/*", f"{family}/*", offered, ""):
            return
    raise ProtocolError(f"The answer is {offered}, which is not accepted.", "not_acceptable")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def ice_links(servers: Iterable[IceServer]) -> list[str]:
    """`Link` header values of RFC 9725 for ICE servers, with credentials made now where a secret is shared."""
    links = []
    for server in (server.issued() for server in servers):
        link = f'<{server.url}>; rel="ice-server"'
        if server.username is not None:
            link += f'; username="{_quoted(server.username)}"; credential="{_quoted(server.credential or "")}"'
            link += '; credential-type="password"'
        links.append(link)
    return links
