"""The HTTP of docs/protocol.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import web

from models.gallery import Avatar
from streamer.errors import ProtocolError
from streamer.faults import sentence
from streamer.media.ice_servers import IceServer
from streamer.media.peer import Peer
from streamer.presenters import find_avatar
from streamer.protocol import (
    MAX_JSON_BYTES,
    MAX_SDP_BYTES,
    MAX_SOUND_FILE_BYTES,
    Interrupted,
    SayRequest,
    SessionRequest,
    WhipRequest,
    check_fields,
    error_body,
    parse_request,
)
from streamer.server.access import ACCESS
from streamer.server.events import serve_events
from streamer.server.limits import Limits
from streamer.server.requests import (
    JSON,
    SDP,
    SDP_FRAGMENT,
    check_accepts,
    check_length,
    check_type,
    ice_links,
    read_body,
    save_body,
)
from streamer.session.control import Controller
from streamer.session.metrics import CONTENT_TYPE, Metrics
from streamer.session.parts import Role
from streamer.session.registry import Registry
from streamer.session.session import Session
from streamer.uploads import OwnPictures, PictureRefused
from streamer.uploads.client import MAX_PICTURE_BYTES
from streamer.uploads.own_pictures import PREFIX


@dataclass(frozen=True)
class Site:
    """What the routes work with.

    Attributes:
        avatars: the gallery as far as this server's preset can show it.
        pictures: of users; None where nobody can bring any.
        engine_state: for /healthz: "ready", "starting" or "hanging".
    """

    registry: Registry
    metrics: Metrics
    avatars: list[Avatar]
    ice_servers: list[IceServer]
    limits: Limits
    engine_state: Callable[[], str]
    pictures: OwnPictures | None = None


SITE = web.AppKey("site", Site)


def add_routes(app: web.Application) -> None:
    """Every address of docs/protocol.md but the pages."""
    session = "/v1/sessions/{session}"
    connection = session + "/connections/{connection}"
    app.router.add_routes(
        [
            web.get("/v1/avatars", list_avatars),
            web.post("/v1/avatars", add_own_picture),
            web.delete("/v1/avatars/{name}", remove_own_picture),
            web.get("/v1/avatars/{name}/picture", picture),
            web.post("/v1/sessions", create_session),
            web.get(session, show_session),
            web.delete(session, delete_session),
            web.post("/v1/whip", whip),
            web.post("/v1/whep/{session}", connect_viewer),
            web.post(session + "/webrtc", connect_caller),
            web.post(session + "/whep", connect_viewer),
            web.patch(connection, add_candidates),
            web.delete(connection, disconnect),
            web.post(session + "/say", say),
            web.post(session + "/audio", play_file),
            web.post(session + "/interrupt", interrupt),
            web.get(session + "/events", events),
            web.get("/healthz", health),
            web.get("/metrics", show_metrics),
        ]
    )


def accepted_types(path: str) -> dict[str, str]:
    """What OPTIONS says of the bodies that an address takes (RFC 9725)."""
    if path.endswith(("/whip", "/whep", "/webrtc")) or path.startswith("/v1/whep/"):
        return {"Accept-Post": SDP}
    return {"Accept-Patch": SDP_FRAGMENT} if "/connections/" in path else {}


def _session(request: web.Request) -> Session:
    return request.app[SITE].registry.get(request.match_info["session"])


def _count(request: web.Request, name: str, session: Session | None = None) -> None:
    """Counts a request against its client's limit, and the session's. Raises RateError."""
    client = request.app[ACCESS].client(request)
    request.app[SITE].limits.take(name, client, None if session is None else session.ident)


async def list_avatars(request: web.Request) -> web.Response:
    """`GET /v1/avatars`."""
    return web.json_response(
        [
            {
                "name": avatar.name,
                "description": avatar.description,
                "picture": f"/v1/avatars/{avatar.name}/picture",
                "preset": avatar.preset,
                "prompt": avatar.prompt,
            }
            for avatar in request.app[SITE].avatars
        ]
    )


async def picture(request: web.Request) -> web.StreamResponse:
    """`GET /v1/avatars/{name}/picture`; names without regard to case, as for sessions."""
    name = request.match_info["name"]
    if name.startswith(PREFIX):
        own = _own_pictures(request).get(name).picture
        return web.FileResponse(own, headers={"Cache-Control": "private, no-store"})
    avatar = find_avatar(name, request.app[SITE].avatars)
    return web.FileResponse(avatar.picture, headers={"Cache-Control": "max-age=3600"})


async def add_own_picture(request: web.Request) -> web.Response:
    """`POST /v1/avatars`: a picture to talk, for whoever brings it; its id is the only way to it."""
    pictures = _own_pictures(request)
    if request.query.get("consent") != "yes":
        words = "Say ?consent=yes if the person in the picture agrees to it, or if it shows nobody."
        raise ProtocolError(words, "forbidden")
    _count(request, "uploads")
    check_length(request, MAX_PICTURE_BYTES)
    with await save_body(request, MAX_PICTURE_BYTES, "picture", "bad_picture") as file:
        try:
            own = await pictures.add(file)
        except PictureRefused as error:
            body = error_body("bad_picture", sentence(str(error))) | {"checks": error.checks}
            return web.json_response(body, status=422)
    address = f"/v1/avatars/{own.avatar.name}"
    expires = datetime.now(UTC) + timedelta(seconds=pictures.life_s)
    described = {
        "id": own.avatar.name,
        "picture": f"{address}/picture",
        "checks": own.checks,
        "expires": expires.isoformat(timespec="seconds"),
    }
    return web.json_response(described, status=201, headers={"Location": address})


async def remove_own_picture(request: web.Request) -> web.Response:
    """`DELETE /v1/avatars/{name}` of a picture that somebody brought."""
    _own_pictures(request).remove(request.match_info["name"])
    return web.Response(status=204)


def _own_pictures(request: web.Request) -> OwnPictures:
    pictures = request.app[SITE].pictures
    if pictures is None:
        raise ProtocolError("This server takes no pictures.", "not_found")
    return pictures


async def create_session(request: web.Request) -> web.Response:
    """`POST /v1/sessions`."""
    check_type(request, JSON, is_optional=True)
    body = await read_body(request, MAX_JSON_BYTES)
    session = await _create(request, parse_request(SessionRequest, body, "A session"))
    described = session.audience.info.model_dump(mode="json")
    return web.json_response(described, status=201, headers={"Location": f"/v1/sessions/{session.ident}"})


async def _create(request: web.Request, wanted: SessionRequest, name: str | None = None) -> Session:
    _count(request, "sessions")
    return await request.app[SITE].registry.create(wanted, name, request.app[ACCESS].client(request))


async def show_session(request: web.Request) -> web.Response:
    """`GET /v1/sessions/{session}`."""
    return web.json_response(_session(request).audience.info.model_dump(mode="json"))


async def delete_session(request: web.Request) -> web.Response:
    """`DELETE /v1/sessions/{session}`."""
    await request.app[SITE].registry.delete(request.match_info["session"])
    return web.Response(status=204)


async def connect_caller(request: web.Request) -> web.Response:
    """`POST …/webrtc`: an offer of who speaks."""
    return await _connect(request, "caller")


async def connect_viewer(request: web.Request) -> web.Response:
    """`POST …/whep`: an offer of who watches."""
    return await _connect(request, "viewer")


async def whip(request: web.Request) -> web.Response:
    """The one address that programs like OBS and FFmpeg are given: makes the session, or joins the one of that name."""
    fields = {name: text for name, text in request.query.items() if text and name != "access_token"}
    wanted = check_fields(WhipRequest, fields, "The address")
    offer = await _read_offer(request)
    registry = request.app[SITE].registry
    if wanted.session is not None and wanted.session in registry:
        return await _join(request, registry.get(wanted.session), "caller", offer)
    described = SessionRequest(avatar=wanted.avatar, prompt=wanted.prompt, mode=wanted.mode)
    session = await _create(request, described, wanted.session)
    try:
        return await _join(request, session, "caller", offer)
    except BaseException:
        session.end("deleted")
        raise


async def _connect(request: web.Request, role: Role) -> web.Response:
    session = _session(request)
    return await _join(request, session, role, await _read_offer(request))


async def _read_offer(request: web.Request) -> str:
    check_type(request, SDP)
    check_accepts(request, SDP)
    return (await read_body(request, MAX_SDP_BYTES)).decode("utf-8", "replace")


async def _join(request: web.Request, session: Session, role: Role, offer: str) -> web.Response:
    _count(request, "offers", session)
    ident, answer = await session.audience.connect(
        offer, role, lambda send: Controller(session, send, can_control=role == "caller")
    )
    response = web.Response(text=answer, content_type=SDP, status=201)
    response.headers["Location"] = f"/v1/sessions/{session.ident}/connections/{ident}"
    response.headers["ETag"] = _ice_tag(session.audience.connection(ident).peer)
    for link in ice_links(request.app[SITE].ice_servers):
        response.headers.add("Link", link)
    return response


async def add_candidates(request: web.Request) -> web.Response:
    """`PATCH {connection}`."""
    session = _session(request)
    connection = session.audience.connection(request.match_info["connection"])
    check_type(request, SDP_FRAGMENT)
    _count(request, "candidates", session)
    fragment = (await read_body(request, MAX_SDP_BYTES)).decode("utf-8", "replace")
    if request.headers.get("If-Match", '"*"') not in ("*", '"*"', _ice_tag(connection.peer)):
        raise ProtocolError("This is of before an ICE restart.", "stale")
    answer = await connection.peer.add_candidates(fragment)
    if answer is None:
        return web.Response(status=204)
    return web.Response(text=answer, content_type=SDP_FRAGMENT, headers={"ETag": _ice_tag(connection.peer)})


def _ice_tag(peer: Peer) -> str:
    """What RFC 9725 calls the ICE session: new with every restart."""
    return f'"ice-{peer.restarts}"'


async def disconnect(request: web.Request) -> web.Response:
    """`DELETE {connection}`."""
    await _session(request).audience.disconnect(request.match_info["connection"])
    return web.Response(status=204)


async def say(request: web.Request) -> web.Response:
    """`POST …/say`."""
    session = _session(request)
    check_type(request, JSON)
    wanted = parse_request(SayRequest, await read_body(request, MAX_JSON_BYTES), "`say`")
    return web.json_response({"utterance": session.speech.say(wanted.text, wanted.id)}, status=202)


async def play_file(request: web.Request) -> web.Response:
    """`POST …/audio`."""
    session = _session(request)
    check_length(request, MAX_SOUND_FILE_BYTES)
    _count(request, "uploads", session)
    with session.speech.place():
        file = await save_body(request, MAX_SOUND_FILE_BYTES)
        name, duration_ms = await session.speech.play_file(file)
    return web.json_response({"utterance": name, "duration_ms": duration_ms}, status=202)


async def interrupt(request: web.Request) -> web.Response:
    """`POST …/interrupt`."""
    name, played_ms = _session(request).speech.interrupt()
    answer = Interrupted(utterance=name, played_ms=played_ms)
    return web.json_response(answer.model_dump(exclude={"type"}))


async def events(request: web.Request) -> web.StreamResponse:
    """`GET …/events`: the WebSocket."""
    session, limits, client = _session(request), request.app[SITE].limits, request.app[ACCESS].client(request)
    with limits.place("sockets", client), limits.place("sockets", session.ident):
        return await serve_events(request, session)


async def health(request: web.Request) -> web.Response:
    """`GET /healthz`."""
    state = request.app[SITE].engine_state()
    body = {"status": "ok" if state == "ready" else "unavailable", "engine": state}
    return web.json_response(body, status=200 if state == "ready" else 503)


async def show_metrics(request: web.Request) -> web.Response:
    """`GET /metrics`."""
    return web.Response(body=request.app[SITE].metrics.text(), headers={"Content-Type": CONTENT_TYPE})
