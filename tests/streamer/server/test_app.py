from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from aiohttp import WSMsgType

from streamer.errors import EngineError
from streamer.media.ice_servers import IceServer
from streamer.protocol import MAX_SDP_BYTES
from streamer.server.events import MAX_OPTIONAL_WAITING, MAX_WAITING, SocketListener
from streamer.session.metrics import Metrics
from tests.streamer.conftest import write_wav
from tests.streamer.server.conftest import House, bad_messages
from tests.streamer.session.fakes import settle

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
JSON = {"Content-Type": "application/json"}


def test_session_is_made_shown_and_ended(visit) -> None:
    async def scene(house: House) -> None:
        async with house.client.post("/v1/sessions", json={"avatar": "Ben", "mode": "broadcast", "seed": 3}) as made:
            assert made.status == 201
            session = await made.json()
            assert made.headers["Location"] == f"/v1/sessions/{session['id']}"
        assert session["state"] == "idle" and session["fps"] == 25 and session["viewers"] == 0
        assert session["prompt_bytes"] == 64
        assert session["links"]["whep"] == f"/v1/sessions/{session['id']}/whep"
        async with house.client.get(f"/v1/sessions/{session['id']}") as shown:
            assert await shown.json() == session
        async with house.client.delete(f"/v1/sessions/{session['id']}") as ended:
            assert ended.status == 204
        assert house.stage(session).stream.is_closed
        assert (await house.error_of("GET", f"/v1/sessions/{session['id']}"))[:2] == (404, "unknown_session")
        assert (await house.error_of("DELETE", f"/v1/sessions/{session['id']}"))[:2] == (404, "unknown_session")

    visit(scene)


def test_gallery_has_pictures_and_nothing_else(visit) -> None:
    async def scene(house: House) -> None:
        async with house.client.get("/v1/avatars") as response:
            avatars = await response.json()
        assert [avatar["name"] for avatar in avatars] == ["Ada", "Ben"]
        assert avatars[0].keys() == {"name", "description", "picture", "preset", "prompt"}
        for name in ("Zoe", "..%2f..%2fsecret", "%2e%2e", "Ada%00"):
            assert (await house.error_of("GET", f"/v1/avatars/{name}/picture"))[0] in (400, 404)

    visit(scene)


def test_connection_is_answered_in_the_manner_of_whip(visit) -> None:
    servers = (IceServer("stun:stun.example.org:3478"), IceServer("turn:t.example.org", "ann", 'a"b,c'))

    async def scene(house: House) -> None:
        session = await house.create()
        async with house.client.post(session["links"]["webrtc"], data="v=0\r\n", headers=SDP) as answer:
            assert answer.status == 201 and answer.content_type == "application/sdp"
            place = answer.headers["Location"]
            assert answer.headers.getall("Link") == [
                '<stun:stun.example.org:3478>; rel="ice-server"',
                '<turn:t.example.org>; rel="ice-server"; username="ann"; credential="a\\"b,c"; '
                'credential-type="password"',
            ]
        async with house.client.patch(place, data="a=candidate:1", headers=FRAGMENT) as patched:
            assert patched.status == 204
        assert house.stage(session).peers[0].candidates == ["a=candidate:1"]
        async with house.client.delete(place) as ended:
            assert ended.status == 204
        assert house.stage(session).peers[0].is_closed
        for method in ("PATCH", "DELETE"):
            found = await house.error_of(method, place, data="a=1", headers=FRAGMENT)
            assert found[:2] == (404, "unknown_connection")

    visit(scene, ice_servers=servers)


def test_every_connection_gets_credentials_of_its_own_where_a_secret_is_shared(visit) -> None:
    async def scene(house: House) -> None:
        session, links = await house.create(), set()
        for _ in range(2):
            async with house.client.post(session["links"]["whep"], data="v=0\r\n", headers=SDP) as answer:
                links.add(answer.headers["Link"])
        assert len(links) == 2 and all(re.search(r'username="\d+:[0-9a-f]{8}"; credential="', link) for link in links)

    visit(scene, ice_servers=(IceServer("turn:t.example.org", secret="north star"),))


def test_new_credentials_restart_ice_and_those_before_are_stale(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        async with house.client.post(session["links"]["webrtc"], data="v=0", headers=SDP) as answer:
            place, first = answer.headers["Location"], answer.headers["ETag"]
        restart = {**FRAGMENT, "If-Match": '"*"'}
        async with house.client.patch(place, data="a=ice-ufrag:new\r\na=ice-pwd:new", headers=restart) as restarted:
            assert restarted.status == 200 and restarted.content_type == FRAGMENT["Content-Type"]
            assert await restarted.text() == "a=ice-ufrag:ours\r\n"
            second = restarted.headers["ETag"]
        found = await house.error_of("PATCH", place, data="a=candidate:1", headers={**FRAGMENT, "If-Match": first})
        assert found[:2] == (412, "stale")
        async with house.client.patch(place, data="a=candidate:1", headers={**FRAGMENT, "If-Match": second}) as patched:
            assert patched.status == 204

    visit(scene)


def test_one_address_makes_the_session_and_takes_the_offer(visit) -> None:
    async def scene(house: House) -> None:
        async with house.client.post("/v1/whip?avatar=Ben&access_token=t", data="v=0", headers=SDP) as answer:
            assert answer.status == 201 and answer.content_type == "application/sdp"
            place = answer.headers["Location"]
        (session,) = house.registry
        assert place.startswith(f"/v1/sessions/{session.ident}/connections/") and len(session.ident) == 16
        async with house.client.post(f"/v1/whep/{session.ident}", data="v=0", headers=SDP) as answer:
            assert answer.status == 201
        async with house.client.delete(place) as ended:
            assert ended.status == 204

    visit(scene)


def test_a_named_session_is_joined_again_at_the_same_address(visit) -> None:
    async def scene(house: House) -> None:
        for _ in range(2):
            async with house.client.post("/v1/whip?session=studio-7", data="v=0", headers=SDP) as answer:
                assert answer.headers["Location"].startswith("/v1/sessions/studio-7/connections/")
        assert [session.ident for session in house.registry] == ["studio-7"]
        await settle()
        assert [peer.is_closed for peer in house.stages["studio-7"].peers] == [True, False]

    visit(scene)


@pytest.mark.parametrize(
    ("query", "headers", "expected"),
    [
        ("?avatar=Zoe", SDP, (404, "unknown_avatar")),
        ("?session=a/b", SDP, (400, "bad_message")),
        ("?sesion=a", SDP, (400, "bad_message")),
        ("?mode=loud", SDP, (400, "bad_message")),
        ("", {"Content-Type": "text/plain"}, (415, "unsupported_media")),
        ("", SDP, (400, "bad_sdp")),
    ],
)
def test_what_cannot_be_used_at_that_address_leaves_no_session(visit, query: str, headers: dict, expected) -> None:
    async def scene(house: House) -> None:
        found = await house.error_of("POST", f"/v1/whip{query}", data="nonsense", headers=headers)
        assert found[:2] == expected
        await settle()
        assert len(house.registry) == 0

    visit(scene)


def test_options_say_which_bodies_are_taken(visit) -> None:
    async def scene(house: House) -> None:
        for path, name in (
            ("/v1/whip", "Accept-Post"),
            ("/v1/whep/any", "Accept-Post"),
            ("/v1/sessions/any/webrtc", "Accept-Post"),
            ("/v1/sessions/any/whep", "Accept-Post"),
            ("/v1/sessions/any/connections/other", "Accept-Patch"),
        ):
            async with house.client.options(path) as answer:
                kind = "application/sdp" if name == "Accept-Post" else "application/trickle-ice-sdpfrag"
                assert (answer.status, answer.headers.get(name)) == (204, kind)

    visit(scene, token="t")


def test_viewers_share_a_session(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        for _ in range(5):
            async with house.client.post(session["links"]["whep"], data="v=0", headers=SDP) as answer:
                assert answer.status == 201
        async with house.client.get(f"/v1/sessions/{session['id']}") as shown:
            assert (await shown.json())["viewers"] == 5
        stage = house.stage(session)
        assert len({id(peer.microphone) for peer in stage.peers}) == 1 and stage.peers[0].microphone is None
        stage.peers[0].on_message('{"type":"say","text":"hello"}')
        stage.peers[0].on_message('{"type":"ping","id":"p"}')
        await settle()
        assert [message["type"] for message in stage.peers[0].sent if message["type"] != "session"] == ["error", "pong"]
        assert not len(stage.session.cutter.queue)

    visit(scene)


@pytest.mark.parametrize(
    ("headers", "data", "expected"),
    [
        ({"Content-Type": "text/plain"}, "v=0", (415, "unsupported_media")),
        ({"Content-Type": "application/json"}, "v=0", (415, "unsupported_media")),
        (SDP | {"Accept": "text/html"}, "v=0", (406, "not_acceptable")),
        (SDP | {"Accept": "application/sdp;q=0"}, "v=0", (406, "not_acceptable")),
        (SDP, "", (400, "bad_sdp")),
        (SDP, "hello", (400, "bad_sdp")),
        (SDP, b"\xff\xfe", (400, "bad_sdp")),
        (SDP, "v=0" + "x" * MAX_SDP_BYTES, (413, "too_large")),
    ],
)
def test_offers_that_cannot_be_used(visit, headers: dict, data: str | bytes, expected: tuple[int, str]) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        for door in ("webrtc", "whep"):
            found = await house.error_of("POST", session["links"][door], data=data, headers=headers)
            assert found[:2] == expected
        assert not house.stage(session).session.audience.connections
        assert all(peer.is_closed for peer in house.stage(session).peers)

    visit(scene)


def test_wrong_methods_say_which_are_right(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        for method, path, allowed in (
            ("PUT", "/v1/sessions", {"POST"}),
            ("GET", session["links"]["webrtc"], {"POST"}),
            ("PATCH", session["links"]["whep"], {"POST"}),
            ("POST", f"/v1/sessions/{session['id']}", {"GET", "DELETE"}),
            ("GET", session["links"]["say"], {"POST"}),
        ):
            async with house.client.request(method, path) as response:
                assert response.status == 405
                assert allowed <= set(response.headers["Allow"].replace(" ", "").split(","))
                assert (await response.json())["error"]["code"] == "method_not_allowed"

    visit(scene)


def test_server_that_is_full_says_when_to_come_back(visit) -> None:
    async def scene(house: House) -> None:
        first = await house.create()
        async with house.client.post("/v1/sessions") as refused:
            assert refused.status == 503 and int(refused.headers["Retry-After"]) > 0
            assert (await refused.json())["error"]["code"] == "busy"
        async with house.client.delete(f"/v1/sessions/{first['id']}") as ended:
            assert ended.status == 204
        await house.create()
        assert b"avatar_sessions_refused_total 1.0" in house.metrics.text()

    visit(scene, max_sessions=1)


def test_two_requests_at_once_do_not_share_the_last_place(visit) -> None:
    async def scene(house: House) -> None:
        async def attempt() -> int:
            async with house.client.post("/v1/sessions") as response:
                return response.status

        assert sorted(await asyncio.gather(*(attempt() for _ in range(6)))) == [201, 201, 503, 503, 503, 503]

    visit(scene, max_sessions=2)


def test_session_that_cannot_be_made_takes_no_place(visit) -> None:
    async def scene(house: House) -> None:
        for _ in range(3):
            assert (await house.error_of("POST", "/v1/sessions"))[:2] == (503, "engine_lost")
        assert len(house.registry) == 0

    visit(scene, max_sessions=1, build_error=EngineError("the engine is gone"))


def test_bodies_that_are_too_large_or_of_the_wrong_kind(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        say = session["links"]["say"]
        large = json.dumps({"text": "x" * 70_000})
        assert (await house.error_of("POST", say, data=large, headers=JSON))[:2] == (413, "too_large")

        async def endless():
            while True:
                yield b" " * 10_000

        assert (await house.error_of("POST", say, data=endless(), headers=JSON))[:2] == (413, "too_large")
        assert (await house.error_of("POST", say, data=b"{}"))[:2] == (415, "unsupported_media")
        assert (await house.error_of("POST", "/v1/sessions", data=b"{}", headers=SDP))[:2] == (415, "unsupported_media")
        audio = session["links"]["audio"]
        huge = {"Content-Length": str(65 << 20)}
        assert (await house.error_of("POST", audio, headers=huge, data=b"RIFF"))[:2] == (413, "too_large")

    visit(scene)


def test_text_and_files_are_queued(visit, tmp_path) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        async with house.client.post(session["links"]["say"], json={"text": "hello", "id": "a"}) as said:
            assert said.status == 202 and await said.json() == {"utterance": "a"}
        sound = write_wav(tmp_path / "s.wav", np.sin(np.arange(16_000)) * 0.5).read_bytes()
        for content_type in ("audio/wav", "application/octet-stream"):
            async with house.client.post(
                session["links"]["audio"], data=sound, headers={"Content-Type": content_type}
            ) as played:
                assert played.status == 202
                assert (await played.json())["duration_ms"] == 1000
        assert len(house.stage(session).session.cutter.queue) == 3
        async with house.client.post(session["links"]["interrupt"]) as interrupted:
            assert await interrupted.json() == {"utterance": "a", "played_ms": 0}
        async with house.client.post(session["links"]["interrupt"]) as interrupted:
            assert await interrupted.json() == {"utterance": None, "played_ms": None}
        await settle()
        assert unnamed_files() == before

    before = unnamed_files()
    visit(scene)


def unnamed_files() -> list[str]:
    """Open files of this process that are on a disk but in no folder: uploads, and what pytest captures."""
    links = [os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return [link for link in links if link.startswith(tempfile.gettempdir()) and link.endswith("(deleted)")]


def test_files_that_hold_no_sound(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        for content in (b"", b"hello", b"RIFF\x00\x00\x00\x00WAVE", bytes(10_000), b"#EXTM3U\nhttp://localhost/x.ts\n"):
            found = await house.error_of("POST", session["links"]["audio"], data=content)
            assert found[:2] == (400, "bad_audio") and "/" not in found[2].replace("audio/", "")
        assert unnamed_files() == before and not len(house.stage(session).session.cutter.queue)

    before = unnamed_files()
    visit(scene)


# -- the WebSocket -----------------------------------------------------------------------------------------


def test_bad_messages_are_answered_and_change_nothing(visit) -> None:
    cases = bad_messages()
    assert len(cases) > 500

    async def scene(house: House) -> None:
        session, other = await house.create(), await house.create()
        stage = house.stage(session)
        socket = await house.events(session)
        before = stage.session.audience.info
        for number, case in enumerate(cases):
            await (socket.send_bytes(case) if isinstance(case, bytes) else socket.send_str(case))
            ping = f"after-{number}"
            await socket.send_json({"type": "ping", "id": ping})
            answer = await socket.receive_json(timeout=5)
            assert answer["type"] == "error", (case[:100], answer)
            assert answer["code"] in KNOWN_CODES and len(answer["message"]) < 300, (case[:100], answer)
            assert await socket.receive_json(timeout=5) == {"type": "pong", "id": ping, "media_ms": 0}, case[:100]
        assert stage.session.audience.info == before and not len(stage.session.cutter.queue)
        assert stage.events.types == [] and house.stage(other).events.types == []
        assert not stage.stream.updates
        await socket.close()

    visit(scene)


KNOWN_CODES = {
    "bad_json",
    "bad_message",
    "bad_audio",
    "bad_text",
    "unknown_type",
    "too_large",
    "out_of_order",
    "unknown_avatar",
}


def test_agent_speaks_by_pcm(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        stage = house.stage(session)
        socket = await house.events(session)
        await socket.send_json({"type": "input_audio.start", "sample_rate": 24_000, "id": "turn"})
        assert await socket.receive_json(timeout=5) == {"type": "utterance.queued", "utterance": "turn"}
        await socket.send_json({"type": "input_audio.start"})
        assert (await socket.receive_json(timeout=5))["code"] == "out_of_order"
        await socket.send_bytes(b"\x00\x40" * 24_000)
        await socket.send_json({"type": "input_audio.append", "audio": "AEAAQABA"})
        await socket.send_json({"type": "input_audio.commit"})
        await socket.send_json({"type": "ping"})
        assert (await socket.receive_json(timeout=5))["type"] == "pong"
        await stage.to(3.0)
        told = [await socket.receive_json(timeout=5) for _ in range(7)]
        kinds = [message["type"] for message in told if message["type"] != "metrics"]
        assert kinds == ["speaking.started", "state", "speaking.stopped", "state"]
        stopped = next(message for message in told if message["type"] == "speaking.stopped")
        assert stopped["utterance"] == "turn" and stopped["played_ms"] == pytest.approx(1000, abs=2)
        await socket.close()

    visit(scene)


def test_agent_that_leaves_in_the_middle_is_heard_to_the_end_of_what_it_sent(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        stage = house.stage(session)
        socket = await house.events(session)
        await socket.send_bytes(b"\x00\x40" * 1600)
        await socket.send_json({"type": "ping"})
        while (await socket.receive_json(timeout=5))["type"] != "pong":
            pass
        await socket.close()
        while len(stage.session.hub) > 1:
            await asyncio.sleep(0.01)
        await stage.to(3.0)
        assert stage.events.of("speaking.stopped")[0]["reason"] == "finished"

    visit(scene)


def test_everybody_is_told_when_a_session_ends(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        sockets = [await house.events(session) for _ in range(3)]
        async with house.client.delete(f"/v1/sessions/{session['id']}"):
            pass
        for socket in sockets:
            last = None
            while (message := await socket.receive(timeout=5)).type is WSMsgType.TEXT:
                last = json.loads(message.data)
            assert last == {"type": "closed", "reason": "deleted"} and message.type in (
                WSMsgType.CLOSE,
                WSMsgType.CLOSING,
                WSMsgType.CLOSED,
            )

    visit(scene)


def test_stopping_says_good_bye_and_refuses_newcomers(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        socket = await house.events(session)
        await house.registry.close()
        told = await socket.receive_json(timeout=5)
        while told["type"] != "closed":
            told = await socket.receive_json(timeout=5)
        assert told["reason"] == "server_stopping"
        assert (await house.error_of("POST", "/v1/sessions"))[:2] == (503, "busy")
        await socket.close()

    visit(scene)


def test_failure_of_one_session_does_not_touch_another(visit) -> None:
    async def scene(house: House) -> None:
        first, second = await house.create(), await house.create()
        house.stage(first).stream.error = RuntimeError("fell over")
        await house.stage(first).clock.advance(1.0)
        for _ in range(100):
            if len(house.registry) == 1:
                break
            await asyncio.sleep(0.01)
        assert (await house.error_of("GET", f"/v1/sessions/{first['id']}"))[0] == 404
        await house.stage(second).clock.advance(2.0)
        async with house.client.get(f"/v1/sessions/{second['id']}") as shown:
            assert shown.status == 200
        assert house.stage(second).playout.stats.frames_held == 0

    visit(scene)


def test_slow_listener_goes_without_metrics_first_and_is_then_cut_off() -> None:
    class Socket:
        closed = False

    listener = SocketListener(Socket())  # type: ignore[arg-type]
    for _ in range(MAX_OPTIONAL_WAITING + 10):
        listener.send("metrics", is_optional=True)
    assert listener._waiting.qsize() == MAX_OPTIONAL_WAITING and not listener.too_slow.is_set()
    for _ in range(MAX_WAITING):
        listener.send("event")
    assert listener._waiting.qsize() == MAX_WAITING and listener.too_slow.is_set()


def test_data_channel_that_is_flooded_is_told_and_bounded(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        async with house.client.post(session["links"]["webrtc"], data="v=0", headers=SDP):
            pass
        peer = house.stage(session).peers[0]
        for number in range(200):
            peer.on_message(json.dumps({"type": "ping", "id": number}))
        await settle()
        kinds = [message["type"] for message in peer.sent if message["type"] in ("pong", "error")]
        assert kinds.count("pong") == 64 and kinds.count("error") == 136

    visit(scene)


# -- pages, health, access ---------------------------------------------------------------------------------


def test_pages_are_served_and_nothing_beside_them(visit) -> None:
    async def scene(house: House) -> None:
        async with house.client.get("/") as page:
            assert page.status == 200 and "avatar" in await page.text()
            policy = page.headers["Content-Security-Policy"]
            assert "'sha256-" in policy and "script-src 'self' 'sha256-" in policy and "object-src 'none'" in policy
            assert page.headers["X-Content-Type-Options"] == "nosniff"
        async with house.client.get("/js/a.js") as part:
            assert part.status == 200 and "javascript" in part.content_type
        for path in (
            "/../secret.txt",
            "/js/../../secret.txt",
            "/%2e%2e/secret.txt",
            "/js/..%2f..%2fsecret.txt",
            "/js%00",
            "/viewer.html",
            "/nothing",
        ):
            async with house.client.get(path) as response:
                assert response.status in (403, 404) and b"secret" not in await response.read(), path

    visit(scene)


def test_health_follows_the_engine(visit) -> None:
    async def scene(house: House) -> None:
        async with house.client.get("/healthz") as response:
            assert (response.status, await response.json()) == (200, {"status": "ok", "engine": "ready"})
        house.engine_state = "starting"
        async with house.client.get("/healthz") as response:
            assert response.status == 503

    visit(scene)


def test_metrics_have_every_stage_and_what_happened(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        await house.stage(session).clock.advance(5.0)
        async with house.client.get("/metrics") as response:
            assert response.content_type == "text/plain"
            text = await response.text()
        for stage in ("audio_wait", "lr_a2v", "pose", "refiner", "decode", "convert", "encode", "queue"):
            assert f'avatar_stage_milliseconds_count{{stage="{stage}"}}' in text
        for name in (
            "avatar_sessions 1.0",
            "avatar_fps_out 25.0",
            "avatar_rung 0.0",
            "avatar_deadline_misses_total",
            "avatar_engine_restarts",
            "avatar_av_offset_milliseconds",
            "avatar_bitrate_bps",
            "avatar_packets_lost_total",
            "avatar_held_frames_total",
            "avatar_viewers 0.0",
        ):
            assert name in text, name

    visit(scene)


def metric(metrics: Metrics, name: str) -> float:
    found = [line for line in metrics.text().decode().splitlines() if line.startswith(name + " ")]
    return float(found[0].rsplit(" ", 1)[1])


def test_frames_encoded_are_counted_by_codec(visit) -> None:
    async def scene(house: House) -> None:
        stage = house.stage(await house.create())
        stage.broadcast.stats.encodes = {"H264": 25, "VP8": 3}
        await stage.clock.advance(1.0)
        stage.broadcast.stats.encodes = {"H264": 50, "VP8": 3}
        await stage.clock.advance(1.0)
        assert metric(stage.metrics, 'avatar_frames_encoded_total{codec="H264"}') == 50
        assert metric(stage.metrics, 'avatar_frames_encoded_total{codec="VP8"}') == 3

    visit(scene)


def test_tasks_are_as_many_after_a_session_as_before_it(visit) -> None:
    async def scene(house: House) -> None:
        async with house.client.get("/healthz"):  # from here on the connection has its task
            before = metric(house.metrics, "avatar_tasks")
        session = await house.create()
        assert metric(house.metrics, "avatar_tasks") > before >= 1
        await house.registry.delete(session["id"])
        await settle()
        assert metric(house.metrics, "avatar_tasks") == before

    visit(scene)
