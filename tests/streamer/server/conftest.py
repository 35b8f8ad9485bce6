"""A server of fakes on a real port, and a client for it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse
from aiohttp.test_utils import TestClient, TestServer

from streamer.media.ice_servers import IceServer
from streamer.server.access import Access
from streamer.server.app import create_app
from streamer.server.limits import Limits
from streamer.server.routes import Site
from streamer.session.metrics import Metrics
from streamer.session.registry import Registry
from streamer.session.session import Session
from tests.streamer.session.fakes import AVATARS, Stage, find

PAGE = "<!doctype html><title>avatar</title><script>let inline = 1;</script><script src='js/a.js'></script>"


class House:
    """A server whose sessions are stages, and a client of it."""

    def __init__(self, client: TestClient, registry: Registry, stages: dict[str, Stage], metrics: Metrics):
        self.client, self.registry, self.stages, self.metrics = client, registry, stages, metrics
        self.engine_state = "ready"

    async def create(self, **fields: Any) -> dict[str, Any]:
        """A new session, as described by the server."""
        async with self.client.post("/v1/sessions", json=fields) as response:
            assert response.status == 201, await response.text()
            return await response.json()

    def stage(self, session: dict[str, Any]) -> Stage:
        return self.stages[session["id"]]

    async def events(self, session: dict[str, Any]) -> ClientWebSocketResponse:
        """A WebSocket that has been told its session."""
        socket = await self.client.ws_connect(session["links"]["events"])
        assert (await socket.receive_json(timeout=5))["type"] == "session"
        return socket

    async def error_of(self, method: str, path: str, **request: Any) -> tuple[int, str, str]:
        """Status, code and message of a request that has to fail."""
        async with self.client.request(method, path, **request) as response:
            assert 400 <= response.status < 600, (response.status, await response.text())
            error = (await response.json())["error"]
            assert error.keys() == {"code", "message"} and len(error["message"]) > 10
            assert "Traceback" not in error["message"] and error["message"].endswith((".", "!", "?"))
            return response.status, error["code"], error["message"]


@pytest.fixture
def visit(tmp_path: Path) -> Callable[..., None]:
    """Runs a scene in a house: `visit(scene, max_sessions=2, token=…)`."""
    folder = tmp_path / "pages"
    (folder / "js").mkdir(parents=True)
    (folder / "index.html").write_text(PAGE)
    (folder / "js" / "a.js").write_text("export {};")
    (tmp_path / "secret.txt").write_text("secret")

    def run(scene: Callable[[House], Coroutine[Any, Any, None]], **options: Any) -> None:
        asyncio.run(_whole(scene, folder, **options))

    return run


async def _whole(
    scene: Callable[[House], Coroutine[Any, Any, None]],
    folder: Path,
    max_sessions: int = 4,
    token: str | None = None,
    origins: tuple[str, ...] = (),
    ice_servers: tuple[IceServer, ...] = (),
    limits: dict[str, int] | None = None,
    build_error: Exception | None = None,
    **access: Any,
) -> None:
    stages: dict[str, Stage] = {}

    async def build(ident: str, spec: Any, phase: float | None) -> Session:
        if build_error is not None:
            raise build_error
        stage = stages[ident] = Stage(ident=ident, is_barge_in=spec.is_barge_in, mode=spec.mode)
        stage.session.hub.add(stage.events)
        return stage.session

    metrics = Metrics()
    registry = Registry(build, find, metrics, max_sessions, 0.48, Limits(limits).numbers["unseen"])
    metrics.watch(lambda: [session.figures for session in registry], lambda: 0)
    house: House
    site = Site(registry, metrics, AVATARS, list(ice_servers), Limits(limits), lambda: house.engine_state)
    async with TestClient(TestServer(create_app(site, Access(token, origins, **access), folder))) as client:
        house = House(client, registry, stages, metrics)
        await asyncio.wait_for(scene(house), 60)
        await registry.close()
    await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, left


def bad_messages() -> list[Any]:
    """More than 500 messages that cannot be used, text and bytes."""
    types = ["say", "interrupt", "set_prompt", "set_avatar", "microphone", "ping"]
    types += [f"input_audio.{verb}" for verb in ("start", "append", "commit", "clear")]
    cases: list[Any] = []
    # not JSON, or not an object
    cases += ["", " ", "{", "}", "[]", "null", "true", "12", '"say"', "{'type': 'say'}", '{"type": "ping",}', "hello"]
    cases += ['{"type":"ping"}{"type":"ping"}', "\x00", "\ufeff{}", "<xml/>", "[" * 50_000, '{"a":' * 20_000, "NaN"]
    cases += ['{"type": NaN}', "-", *('{"type":"ping","id":' + odd + "}" for odd in ("NaN", "Infinity", "1e999"))]
    cases += ['{"type":"ping","id":' + "9" * 5000 + "}", '{"type":"ping","id":"\\ud800"}']
    # no type, or one that does not exist
    cases += [json.dumps({"type": odd}) for odd in (None, 1, 1.5, True, [], {}, ["say"], {"say": 1}, "", "SAY", "say ")]
    cases += [json.dumps({"type": kind}) for kind in ("session", "closed", "error", "__class__", "x" * 999)]
    cases += ["{}", json.dumps({"text": "hello"}), json.dumps({"Type": "ping"}), json.dumps({"type\u0000": "ping"})]
    # every type with fields it does not have, or of the wrong type
    odd_values: list[Any] = [None, True, 0, -1, 2.5, 1e300, "", "x", [], [1], {}, {"a": 1}, "\u0000", "🤖", 10**30]
    fields = {
        "say": ["text", "id"],
        "set_prompt": ["prompt", "emotion", "gestures"],
        "set_avatar": ["avatar"],
        "microphone": ["enabled"],
        "input_audio.start": ["sample_rate", "id"],
        "input_audio.append": ["audio"],
        "ping": ["id"],
    }
    for kind, name in itertools.product(types, ("extra", "text2", "audio_", "__proto__", "type_")):
        right = {"text": "hi", "audio": "AAAA", "avatar": "Ada", "enabled": True}
        cases.append(json.dumps({"type": kind, **right, name: 1}))
    for kind in types:
        for name in fields.get(kind, []):
            for odd in odd_values:
                if not _means_something(kind, name, odd):
                    cases.append(json.dumps({"type": kind, name: odd}))
    # numbers out of range, words that are none, texts that cannot be spoken
    for rate in (0, 1, 7_999, 48_001, -16_000, 10**12, 16_000.0, "16000"):
        cases.append(json.dumps({"type": "input_audio.start", "sample_rate": rate}))
    for gestures in (-0.01, 2.01, -1e308, 1e308, "1", None, [1]):
        cases.append(json.dumps({"type": "set_prompt", "gestures": gestures}))
    for emotion in ("", "HAPPY", "happy ", "joy", "happy, sad", "\u0000", 1, ["happy"]):
        cases.append(json.dumps({"type": "set_prompt", "emotion": emotion}))
    for text in ("", "   ", "\n", "…", "。。。", "💬", "x" * 5001, "a " * 3000, "\ud800 half"):
        cases.append(json.dumps({"type": "say", "text": text}))
    for ident in ("", " ", "a b", "x" * 65, "a/b", "é", "\n", "<b>", "a\u0000b"):
        cases.append(json.dumps({"type": "say", "text": "hello", "id": ident}))
    for avatar in ("Zoe", "ada.png", "../Ada", "x" * 101, "%41da"):
        cases.append(json.dumps({"type": "set_avatar", "avatar": avatar}))
    cases.append(json.dumps({"type": "set_prompt", "prompt": "x" * 501}))
    # sound that is none
    odd_sound = ["", "A", "AA", "AAA", "AAAA", "****", "AA==AA==", "QUJD", "é", " AAA", "A" * 5, "====", "-_-_"]
    odd_sound.append("\u0000" * 4)
    cases += [json.dumps({"type": "input_audio.append", "audio": audio}) for audio in odd_sound]
    cases += [b"", b"\x00", b"\x00" * 3, b"\xff" * 4097, b"x" * 65_537]
    # out of order
    cases += [json.dumps({"type": "input_audio.commit"})] * 3
    # oversized
    cases += ["x" * (300 * 1024), json.dumps({"type": "ping", "id": "x" * 270_000})]
    cases.append('{"type":"say","text":"' + "é" * 200_000)
    # cut off and garbled, always the same
    good = json.dumps({"type": "say", "text": "hello there", "id": "abc"})
    cases += [good[:end] for end in range(1, len(good))]
    cases += [good.replace('"', "'", count) for count in range(1, 8)]
    for number in range(120):
        place = (number * 37) % len(good)
        control = chr((number * 97) % 31)
        if not control.isspace():
            cases.append(good[:place] + control + good[place:])
    for whole in (
        {"type": "input_audio.append", "audio": "AAAAAAAA"},
        {"type": "set_prompt", "emotion": "happy", "gestures": 1.5, "prompt": "by the sea"},
        {"type": "input_audio.start", "sample_rate": 24000, "id": "turn-1"},
    ):
        text = json.dumps(whole)
        cases += [text[:end] for end in range(1, len(text))]
        cases += [text[place:] for place in range(1, len(text), 3)]
    return cases


def _means_something(kind: str, name: str, odd: Any) -> bool:
    """Of the odd values, those that a field takes."""
    if kind == "ping":
        return odd is None or isinstance(odd, (str, int, float)) and not isinstance(odd, bool)
    if (kind, name) == ("set_prompt", "prompt"):
        return isinstance(odd, str)
    if (kind, name) == ("input_audio.start", "id"):
        return odd in (None, "x")
    return (kind, name, odd) in (("say", "text", "x"), ("microphone", "enabled", True), ("set_prompt", "gestures", 0))
