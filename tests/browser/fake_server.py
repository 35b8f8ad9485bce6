"""A small stand-in for the live server: the pages, the JSON of docs/protocol.md, and a picture with sound by aiortc.

    python -m tests.browser.fake_server

It prints one line of JSON with its address and serves until its standard input closes. What is said is a row of
beeps, one every 480 ms, and the picture is white while one sounds. A test reads what the page sent at `/_test/log`
and makes things go wrong with `POST /_test/plan` (`{"busy": 3}`, `{"send": {...}}`, `{"checks": [...]}` of a picture).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from aiohttp import web
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "client_demo"
GALLERY = ROOT / "models" / "weights" / "presenter-256" / "gallery"
FRAME_S, BLOCK_S, RATE = 0.04, 0.02, 48000
BEEP_EVERY_S, BEEP_S = 0.48, 0.16


@dataclass
class Utterance:
    name: str
    source: str
    start_s: float  # media time
    end_s: float


@dataclass
class FakeSession:
    id: str
    avatar: str
    picture: np.ndarray  # uint8 [H, W, 3]
    origin_s: float = field(default_factory=time.monotonic)
    utterances: list[Utterance] = field(default_factory=list)
    peers: list[RTCPeerConnection] = field(default_factory=list)
    channel: object = None
    tasks: set[asyncio.Task] = field(default_factory=set)

    def media_s(self) -> float:
        return time.monotonic() - self.origin_s

    def is_loud(self, media_s: float) -> bool:
        for utterance in self.utterances:
            if utterance.start_s <= media_s < utterance.end_s:
                return (media_s - utterance.start_s) % BEEP_EVERY_S < BEEP_S
        return False

    def as_json(self) -> dict:
        speaking = any(u.start_s <= self.media_s() < u.end_s for u in self.utterances)
        return {
            "id": self.id,
            "avatar": self.avatar,
            "prompt": "",
            "mode": "conversation",
            "state": "speaking" if speaking else "idle",
            "frame_size": list(self.picture.shape[:2]),
            "fps": 25,
            "viewers": len(self.peers),
            "created_ms": 0,
            "links": {},
        }

    def send(self, message: dict) -> None:
        if self.channel is not None and self.channel.readyState == "open":
            self.channel.send(json.dumps(message))

    def speak(self, source: str, duration_s: float, name: str | None = None) -> Utterance:
        """Queue an utterance on the frame grid; its start and end are told when they come."""
        start = max([self.media_s() + 0.2, *(u.end_s for u in self.utterances)])
        start = np.ceil(start / FRAME_S) * FRAME_S
        utterance = Utterance(name or f"u{len(self.utterances)}", source, start, start + duration_s)
        self.utterances.append(utterance)
        self.spawn(self._tell(utterance))
        return utterance

    async def _tell(self, utterance: Utterance) -> None:
        self.send({"type": "utterance.queued", "utterance": utterance.name})
        await asyncio.sleep(max(0, utterance.start_s - self.media_s()))
        if utterance.end_s <= utterance.start_s:
            return
        started = {"utterance": utterance.name, "source": utterance.source, "media_ms": utterance.start_s * 1000}
        self.send({"type": "state", "state": "speaking", "media_ms": round(1000 * self.media_s())})
        self.send({"type": "speaking.started", **started})
        while (left := utterance.end_s - self.media_s()) > 0:
            await asyncio.sleep(min(left, 0.05))
        self.send({"type": "state", "state": "idle", "media_ms": round(1000 * self.media_s())})
        played = round(1000 * (utterance.end_s - utterance.start_s))
        self.send({"type": "speaking.stopped", "utterance": utterance.name, "played_ms": played, "reason": "finished"})

    def interrupt(self) -> dict:
        now = self.media_s()
        told: dict = {"utterance": None, "played_ms": None}
        for utterance in self.utterances:
            if utterance.start_s <= now < utterance.end_s:
                told = {"utterance": utterance.name, "played_ms": round(1000 * (now - utterance.start_s))}
            if utterance.end_s > now:
                utterance.end_s = max(now, utterance.start_s)
        self.send({"type": "interrupted", **told})
        return told

    def spawn(self, coroutine) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def report(self) -> None:
        figures = {"fps": 25.0, "latency_ms": 540, "av_offset_ms": 1, "rung": 0, "rung_name": "full", "rtt_ms": 1}
        rest = {"bitrate_kbps": 480, "packets_lost": 0, "late_chunks": 0, "held_frames": 0, "dropped_frames": 0}
        while True:
            self.send({"type": "metrics", **figures, **rest, "stages": {"decode": 40.0}, "queue_ms": 80})
            await asyncio.sleep(1)

    async def close(self, reason: str = "deleted") -> None:
        self.send({"type": "closed", "reason": reason})
        for task in self.tasks:
            task.cancel()
        for peer in self.peers:
            await peer.close()


class Picture(MediaStreamTrack):
    kind = "video"

    def __init__(self, session: FakeSession):
        super().__init__()
        self._session = session
        self._white = np.full_like(session.picture, 255)
        self._frame = int(session.media_s() / FRAME_S)

    async def recv(self) -> av.VideoFrame:
        self._frame += 1
        at = self._frame * FRAME_S
        await asyncio.sleep(max(0, at - self._session.media_s()))
        pixels = self._white if self._session.is_loud(at) else self._session.picture
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = int(at * 90000), Fraction(1, 90000)
        return frame


class Sound(MediaStreamTrack):
    kind = "audio"

    def __init__(self, session: FakeSession):
        super().__init__()
        self._session = session
        self._block = int(session.media_s() / BLOCK_S)

    async def recv(self) -> av.AudioFrame:
        self._block += 1
        at = self._block * BLOCK_S
        await asyncio.sleep(max(0, at - self._session.media_s()))
        samples = np.zeros(960, dtype=np.int16)
        if self._session.is_loud(at):
            samples[:] = 9000 * np.sin(2 * np.pi * 880 * np.arange(960) / RATE)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = self._block * 960, RATE, Fraction(1, RATE)
        return frame


class FakeServer:
    def __init__(self) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.connections: dict[str, tuple[FakeSession, RTCPeerConnection]] = {}
        self.log: list[dict] = []
        self.plan: dict = {}
        self.avatars = json.loads((GALLERY / "gallery.json").read_text())
        self.pictures: dict[str, bytes] = {}  # that were brought

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._note])
        route = application.router
        route.add_get("/_test/log", lambda _: _answer(web.json_response(self.log)))
        route.add_post("/_test/plan", self._take_plan)
        route.add_get("/v1/avatars", self._list)
        route.add_post("/v1/avatars", self._add_picture)
        route.add_delete("/v1/avatars/{name}", self._remove_picture)
        route.add_get("/v1/avatars/{name}/picture", self._own_picture)
        route.add_get("/v1/pictures/{file}", lambda r: _answer(web.FileResponse(GALLERY / r.match_info["file"])))
        route.add_post("/v1/sessions", self._create)
        route.add_get("/v1/sessions/{id}", lambda r: _answer(web.json_response(self._session(r).as_json())))
        route.add_delete("/v1/sessions/{id}", self._end)
        route.add_post("/v1/sessions/{id}/{door:webrtc|whep}", self._connect)
        route.add_post("/v1/sessions/{id}/audio", self._play)
        route.add_patch("/v1/connections/{id}", self._trickle)
        route.add_delete("/v1/connections/{id}", self._disconnect)
        route.add_get("/", lambda _: _answer(web.FileResponse(PAGES / "index.html")))
        route.add_static("/", PAGES)
        return application

    @web.middleware
    async def _note(self, request: web.Request, handler) -> web.StreamResponse:
        if not request.path.startswith("/_test"):
            self.log.append({"method": request.method, "path": request.path})
        return await handler(request)

    async def _take_plan(self, request: web.Request) -> web.Response:
        plan = await request.json()
        if message := plan.pop("send", None):
            for session in self.sessions.values():
                session.send(message)
        if reason := plan.pop("close", None):
            for session in list(self.sessions.values()):
                await session.close(reason)
            self.sessions.clear()
        self.plan.update(plan)
        return web.json_response(self.plan)

    async def _list(self, request: web.Request) -> web.Response:
        avatars = [{**each, "picture": f"/v1/pictures/{each['picture']}", "preset": "x"} for each in self.avatars]
        return web.json_response(avatars)

    async def _add_picture(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.log.append({"picture": len(body), "consent": request.query.get("consent")})
        if self.plan.get("pictures") == "slow":
            await asyncio.sleep(1)
        checks = self.plan.get("checks", [{"name": "face", "verdict": "ok", "advice": "A face was found."}])
        refused = [check["advice"] for check in checks if check["verdict"] == "refused"]
        if refused:
            error = {"code": "bad_picture", "message": refused[0]}
            return web.json_response({"error": error, "checks": checks}, status=422)
        name = f"own-{len(self.log)}"
        self.pictures[name] = body
        expires = (datetime.now(UTC) + timedelta(days=1)).isoformat(timespec="seconds")
        own = {"id": name, "picture": f"/v1/avatars/{name}/picture", "checks": checks, "expires": expires}
        return web.json_response(own, status=201, headers={"Location": f"/v1/avatars/{name}"})

    async def _remove_picture(self, request: web.Request) -> web.Response:
        self._brought(request.match_info["name"])
        del self.pictures[request.match_info["name"]]
        return web.Response(status=204)

    async def _own_picture(self, request: web.Request) -> web.Response:
        return web.Response(body=self._brought(request.match_info["name"]), content_type="image/png")

    def _brought(self, name: str) -> bytes:
        if name not in self.pictures:
            raise _error(web.HTTPNotFound, "unknown_avatar", "There is no such picture; it may have expired.")
        return self.pictures[name]

    def _look(self, name: str) -> np.ndarray:
        """Half as bright as its picture, uint8 [256, 256, 3]."""
        file = io.BytesIO(self._brought(name)) if name.startswith("own-") else GALLERY / f"{name}.png"
        return np.asarray(Image.open(file).convert("RGB").resize((256, 256))) // 2

    def _session(self, request: web.Request) -> FakeSession:
        session = self.sessions.get(request.match_info["id"])
        if session is None:
            raise _error(web.HTTPNotFound, "unknown_session", "There is no such session; it may have ended.")
        return session

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.log.append({"session": asked})
        if self.plan.get("busy"):
            error = _error(web.HTTPServiceUnavailable, "busy", "All places are taken.")
            error.headers["Retry-After"] = str(self.plan["busy"])
            raise error
        name = asked.get("avatar") or self.avatars[0]["name"]
        session = FakeSession(id=f"s{len(self.log)}", avatar=name, picture=self._look(name))
        self.sessions[session.id] = session
        headers = {"Location": f"/v1/sessions/{session.id}"}
        return web.json_response(session.as_json(), status=201, headers=headers)

    async def _end(self, request: web.Request) -> web.Response:
        session = self._session(request)
        del self.sessions[session.id]
        await session.close()
        return web.Response(status=204)

    async def _connect(self, request: web.Request) -> web.Response:
        session = self._session(request)
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        session.peers.append(peer)
        peer.addTrack(Sound(session))
        peer.addTrack(Picture(session))

        @peer.on("datachannel")
        def take(channel) -> None:
            session.channel = channel
            session.send({"type": "session", **session.as_json()})
            session.spawn(session.report())
            channel.on("message", lambda text: self._message(session, json.loads(text)))

        @peer.on("track")
        def drain(track: MediaStreamTrack) -> None:
            session.spawn(_drain(track))

        offer = await request.text()
        self.log.append({"door": request.match_info["door"], "offer": offer})
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        name = f"c{len(self.connections)}"
        self.connections[name] = (session, peer)
        headers = {
            "Location": f"/v1/connections/{name}",
            "Link": '<turn:127.0.0.1:9?transport=udp>; rel="ice-server"; username="u,1"; credential="a;b"',
        }
        if not self.plan.get("link"):
            del headers["Link"]
        return web.Response(status=201, text=peer.localDescription.sdp, content_type="application/sdp", headers=headers)

    async def _trickle(self, request: web.Request) -> web.Response:
        _, peer = self.connections[request.match_info["id"]]
        fragment = await request.text()
        self.log.append({"fragment": fragment})
        mid = None
        for line in fragment.splitlines():
            if line.startswith("a=mid:"):
                mid = line[6:]
            if line.startswith("a=candidate:"):
                candidate = candidate_from_sdp(line[12:])
                candidate.sdpMid = mid
                await peer.addIceCandidate(candidate)
        return web.Response(status=204)

    async def _disconnect(self, request: web.Request) -> web.Response:
        _, peer = self.connections.pop(request.match_info["id"])
        await peer.close()
        return web.Response(status=204)

    async def _play(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not body.startswith(b"RIFF"):
            raise _error(
                web.HTTPUnsupportedMediaType, "unsupported_media", "This is not a sound file that can be read."
            )
        utterance = self._session(request).speak("file", 1.92)
        return web.json_response({"utterance": utterance.name, "duration_ms": 1920}, status=202)

    def _message(self, session: FakeSession, message: dict) -> None:
        self.log.append({"message": message})
        if message["type"] == "say":
            session.speak("text", max(0.96, len(message["text"]) * 0.06), message.get("id"))
        elif message["type"] == "interrupt":
            session.interrupt()
        elif message["type"] == "set_avatar":
            session.avatar, session.picture = message["avatar"], self._look(message["avatar"])
            session.send({"type": "session", **session.as_json()})


async def _answer(response: web.StreamResponse) -> web.StreamResponse:
    return response


async def _drain(track: MediaStreamTrack) -> None:
    with contextlib.suppress(Exception):  # the end of a track is an exception in aiortc
        while True:
            await track.recv()


def _error(kind: type[web.HTTPException], code: str, message: str) -> web.HTTPException:
    body = json.dumps({"error": {"code": code, "message": message}})
    return kind(text=body, content_type="application/json")


async def serve() -> None:
    server = FakeServer()
    runner = web.AppRunner(server.application(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(json.dumps({"url": f"http://localhost:{port}"}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for session in server.sessions.values():
        await session.close("server_stopping")
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve())
