"""What strangers may not do: limits by client and session, deadlines, names, tokens, and what the log says of them."""

from __future__ import annotations

import asyncio
import logging
import zlib

import pytest

from streamer.errors import RateError
from streamer.log import FORMAT, MAX_LINES, WINDOW_S, Calm, OneLine
from streamer.protocol import ErrorMessage
from streamer.server import events, requests
from streamer.server.limits import DEFAULTS, MAX_BUCKETS, Limits
from streamer.session.sources import MAX_QUEUED
from tests.streamer.server.conftest import House

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


def hold(limits: Limits, name: str, count: int, client: str = "a", session: str | None = None) -> int:
    """How many of so many requests are let through."""
    passed = 0
    for _ in range(count):
        try:
            limits.take(name, client, session)
        except RateError as error:
            assert error.retry_after_s >= 1
        else:
            passed += 1
    return passed


def test_a_client_has_its_number_a_minute_and_no_one_elses() -> None:
    now = [0.0]
    limits = Limits({"offers": 6}, lambda: now[0])
    assert [hold(limits, "offers", 10, client) for client in ("a", "b")] == [6, 6]
    now[0] = 20.0
    assert hold(limits, "offers", 10) == 2
    assert hold(limits, "uploads", 100) == DEFAULTS["uploads"]
    now[0] = 1000.0
    assert hold(limits, "offers", 10) == 6


def test_clients_of_one_session_together_have_twice_as_much() -> None:
    limits = Limits({"offers": 5}, lambda: 0.0)
    assert sum(hold(limits, "offers", 5, f"client {number}", "session") for number in range(10)) == 10
    assert hold(limits, "offers", 5, "client 9", "other session") == 5


def test_buckets_do_not_become_more_than_there_is_room_for() -> None:
    limits = Limits()
    for number in range(MAX_BUCKETS + 10):
        limits.take("sessions", str(number))
    assert len(limits._buckets) == MAX_BUCKETS


@pytest.mark.parametrize("changed", [{"offer": 1}, {"offers": 0}])
def test_limits_that_are_none(changed: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        Limits(changed)


def test_requests_beyond_the_limit_are_told_when_to_come_back(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        for door, headers in (("webrtc", SDP), ("audio", {})):
            path = session["links"][door]
            assert (await house.error_of("POST", path, data="no SDP", headers=headers))[0] == 400
            async with house.client.post(path, data="no SDP", headers=headers) as refused:
                assert refused.status == 429 and int(refused.headers["Retry-After"]) >= 1
                assert (await refused.json())["error"]["code"] == "too_many"
        async with house.client.post(session["links"]["whep"], data="v=0", headers=SDP) as answer:
            assert answer.status == 429  # the same limit as a caller's
        assert (await house.error_of("POST", "/v1/sessions"))[1] == "too_many"

    visit(scene, limits={"offers": 1, "uploads": 1, "sessions": 1})


def test_websockets_of_a_client_are_bounded_and_come_free_again(visit) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        sockets = [await house.events(session) for _ in range(3)]
        assert (await house.error_of("GET", session["links"]["events"]))[:2] == (429, "too_many")
        await sockets[0].close()
        await asyncio.sleep(0.05)
        await (await house.events(session)).close()
        for socket in sockets:
            await socket.close()

    visit(scene, limits={"sockets": 3})


def test_sessions_that_nobody_connects_to_are_few_a_client(visit) -> None:
    async def scene(house: House) -> None:
        first = await house.create()
        await house.create()
        assert (await house.error_of("POST", "/v1/sessions"))[:2] == (429, "too_many")
        async with house.client.post(first["links"]["whep"], data="v=0", headers=SDP) as answer:
            assert answer.status == 201
        await house.create()

    visit(scene, limits={"unseen": 2})


def test_full_server_lets_a_newcomer_have_the_place_of_a_session_nobody_connected_to(visit, monkeypatch) -> None:
    async def scene(house: House) -> None:
        unseen, seen = await house.create(), await house.create()
        socket = await house.events(seen)
        assert (await house.error_of("POST", "/v1/sessions"))[:2] == (503, "busy")  # it is too young to go
        monkeypatch.setattr("streamer.session.registry.UNSEEN_S", 0.0)
        newcomer = await house.create()
        assert (await house.error_of("GET", f"/v1/sessions/{unseen['id']}"))[0] == 404
        for session in (seen, newcomer):
            async with house.client.get(f"/v1/sessions/{session['id']}") as still:
                assert still.status == 200
        assert house.stage(unseen).events.of("closed")[0]["reason"] == "idle"
        await socket.close()

    visit(scene, max_sessions=2)


def test_bodies_have_a_deadline_and_uploads_a_place_before_they_are_read(visit, monkeypatch) -> None:
    monkeypatch.setattr(requests, "BODY_TIMEOUT_S", 0.05)
    monkeypatch.setattr(requests, "UPLOAD_TIMEOUT_S", 0.3)
    never = asyncio.Event

    async def slow():
        yield b"{"
        await never().wait()

    async def scene(house: House) -> None:
        session = await house.create()
        json = {"Content-Type": "application/json"}
        say = session["links"]["say"]
        assert (await house.error_of("POST", say, data=slow(), headers=json))[:2] == (408, "timeout")
        audio = session["links"]["audio"]
        uploads = [house.error_of("POST", audio, data=slow()) for _ in range(2 * MAX_QUEUED)]
        codes = [code for _, code, _ in await asyncio.gather(*uploads)]
        assert codes.count("timeout") == codes.count("busy") == MAX_QUEUED

    visit(scene, limits={"uploads": 1000})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://["}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost"}, 403),  # another port
        ({"Authorization": "Bearer \udcff"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Cookie": "avatar_token=hunter2"}, 401),
        ({"Authorization": "Bearer hunter2", "Host": "evil.example"}, 403),
        ({"Authorization": "Bearer hunter2", "Host": "["}, 403),
        ({"Authorization": "Bearer hunter2", "X-Forwarded-Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Authorization": "Bearer hunter2", "Content-Encoding": "gzip"}, 415),
        ({"Authorization": "Bearer hunter2", "Content-Encoding": "bogus"}, 415),
    ],
)
def test_odd_headers_are_refused_in_words(visit, headers: dict[str, str], status: int) -> None:
    async def scene(house: House) -> None:
        assert (await house.error_of("POST", "/v1/sessions", data=b"{}", headers=headers))[0] == status

    visit(scene, token="hunter2")


def test_packed_bodies_are_not_unpacked(visit) -> None:
    async def scene(house: House) -> None:
        bomb = zlib.compress(bytes(50_000_000))
        headers = {"Content-Type": "application/json", "Content-Encoding": "deflate"}
        assert (await house.error_of("POST", "/v1/sessions", data=bomb, headers=headers))[0] == 415

    visit(scene)


def test_own_names_are_those_of_the_list(visit) -> None:
    async def scene(house: House) -> None:
        for host in ("avatar.example", "Avatar.Example:8443", "localhost:1", "127.0.0.1", "[::1]:80"):
            origin = {"Host": host, "Origin": f"https://{host}"}
            async with house.client.post("/v1/sessions", headers=origin) as made:
                assert made.status == 201, host
        for path in ("/", "/v1/avatars", "/metrics", "/v1/sessions/x/events"):
            assert (await house.error_of("GET", path, headers={"Host": "rebound.example"}))[:2] == (403, "forbidden")
        async with house.client.get("/healthz", headers={"Host": "container"}) as health:
            assert health.status == 200

    visit(scene, hosts=["avatar.example"], max_sessions=9, limits={"unseen": 9})


def test_a_proxy_is_believed_only_where_there_is_one(visit) -> None:
    forwarded = {"X-Forwarded-For": "198.51.100.1, 2001:db8::7", "X-Forwarded-Host": "avatar.example"}

    async def without(house: House) -> None:
        for _ in range(2):
            await house.create()
        assert (await house.error_of("POST", "/v1/sessions", headers=forwarded))[0] == 429

    async def behind(house: House) -> None:
        for number in range(3):
            headers = forwarded | {"X-Forwarded-For": f"192.0.2.{number}"}
            async with house.client.post("/v1/sessions", headers=headers) as made:
                assert made.status == 201
        same_network = [forwarded, forwarded | {"X-Forwarded-For": "2001:db8::8"}]
        for headers in same_network:
            async with house.client.post("/v1/sessions", headers=headers) as made:
                assert made.status == 201
        assert (await house.error_of("POST", "/v1/sessions", headers=forwarded))[0] == 429
        stranger = forwarded | {"X-Forwarded-Host": "evil.example"}
        assert (await house.error_of("GET", "/v1/avatars", headers=stranger))[0] == 403

    visit(without, limits={"unseen": 2})
    visit(behind, limits={"unseen": 2}, max_sessions=9, hosts=["avatar.example"], is_behind_proxy=True)


def test_wrong_tokens_are_locked_out_and_the_cookie_is_not_the_token(visit) -> None:
    async def scene(house: House) -> None:
        async with house.client.get("/?access_token=hunter2") as page:
            cookie = page.cookies["avatar_token"].value
        assert "hunter2" not in cookie
        async with house.client.get("/v1/avatars") as response:  # with the page's cookie
            assert response.status == 200
        house.client.session.cookie_jar.clear()
        codes = [
            (await house.error_of("GET", "/v1/avatars", headers={"Authorization": f"Bearer {guess}"}))[1]
            for guess in ("a", "b", "c", "hunter2")
        ]
        assert codes == ["unauthorized", "unauthorized", "unauthorized", "too_many"]
        assert (await house.error_of("GET", "/v1/avatars"))[1] == "unauthorized"  # says what is wanted, all the same

    visit(scene, token="hunter2", limits={"tokens": 3})


def test_health_tells_an_engine_that_hangs(visit) -> None:
    async def scene(house: House) -> None:
        house.engine_state = "hanging"
        async with house.client.get("/healthz") as health:
            assert health.status == 503 and (await health.json()) == {"status": "unavailable", "engine": "hanging"}

    visit(scene)


def test_a_refused_request_is_one_line_without_the_clients_bytes(visit, caplog) -> None:
    async def scene(house: House) -> None:
        session = await house.create()
        await house.error_of("POST", session["links"]["say"], data=b"evil", headers={"Content-Type": "text/evil"})
        await house.error_of("PUT", "/evil?evil")
        lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert lines == [
            "refused POST /v1/sessions/{session}/say from 127.0.0.1: unsupported_media",
            "refused a method an unknown address from 127.0.0.1: not_found",
        ]

    visit(scene)


def line_of(name: str, level: int, message: str, error: Exception | None = None) -> str:
    details = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord(name, level, "file.py", 1, message, (), details)
    return OneLine(FORMAT).format(record)


def test_other_libraries_errors_are_one_line_and_ours_show_where() -> None:
    try:
        raise ValueError("evil")
    except ValueError as error:
        theirs = line_of("aiortc.peer", logging.ERROR, "failed\x1b[31m\nforged line", error)
        ours = line_of("streamer.server.app", logging.ERROR, "failed", error)
    assert "\n" not in theirs and "\x1b" not in theirs and theirs.endswith("(ValueError)") and "evil" not in theirs
    assert "Traceback" in ours
    assert len(line_of("aiohttp.server", logging.WARNING, "x" * 10_000)) < 500


def test_lines_of_one_kind_are_counted_instead_of_repeated() -> None:
    now = [0.0]
    calm = Calm(lambda: now[0])

    def shown(message: str) -> str | None:
        record = logging.LogRecord("streamer", logging.WARNING, "file.py", 1, message, ("client",), None)
        return record.getMessage() if calm.filter(record) else None

    assert sum(shown("refused %s") is not None for _ in range(300)) == MAX_LINES
    assert shown("something else %s") is not None
    now[0] += WINDOW_S
    assert shown("refused %s") == "refused client [and 295 like the last of these, before]"


def test_a_websocket_that_never_reads_is_hung_up_on(visit, monkeypatch) -> None:
    monkeypatch.setattr(events, "CLOSE_TIMEOUT_S", 0.1)

    async def scene(house: House) -> None:
        session = await house.create()
        url = house.client.make_url(session["links"]["events"])
        reader, writer = await asyncio.open_connection(url.host, url.port, limit=1)
        key = "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
        writer.write(f"GET {url.path} HTTP/1.1\r\nHost: localhost\r\n{key}{'A' * 22}==\r\n\r\n".encode())
        hub = house.stage(session).session.hub
        async with asyncio.timeout(5):
            while len(hub) < 2:
                await asyncio.sleep(0.01)
            long = ErrorMessage(code="internal", message="x" * 200_000)
            while len(hub) > 1:
                hub.emit(long)
                await asyncio.sleep(0.001)
        writer.transport.abort()

    visit(scene)
