"""Sends broken inputs to the real server beside a bystander who watches another session, and says what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import aiohttp

from benchmarks.browser.live_server import LiveServer, memory_mb
from tests.fuzz import bodies, frames, offers, sounds
from tests.streamer.media.client import Client
from tests.streamer.media.offers import VIEWER

# Per cent; every sound starts a process, which takes longer than all the rest.
SHARES = {"offer": 30, "fragment": 15, "body": 12, "message": 23, "sound": 4, "websocket": 8, "channel": 8}
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
JSON = {"Content-Type": "application/json"}
MEANT = (501, 503)  # no voice, and busy
ANSWER_S = 30.0
# Limits by client would keep most of the inputs out, which all come from one address.
LIMITS = ("sessions", "offers", "candidates", "uploads", "sockets", "unseen")
SERVER = ["--threads", "1", "--max-sessions", "6", *(f"--limit={name}=1000000" for name in LIMITS)]


@dataclass
class Report:
    """What an attack did.

    Attributes:
        outcomes: how often by kind and outcome: an HTTP status, or what became of a socket.
        failures: what must not be, with the input's name for `--only`.
        seconds: it took.
        fps: frames a second that the bystander got.
        memory_mb: of the server after the first tenth, and at the end.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    fps: float = 0.0
    memory_mb: tuple[float, float] = (0.0, 0.0)


def names(count: int) -> list[str]:
    """The inputs of an attack of that length, as `KIND:NUMBER`, kinds mixed."""
    kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
    random.Random(0).shuffle(kinds)
    return [f"{kinds[number % len(kinds)]}:{number}" for number in range(count)]


async def attack(server: LiveServer, seed: int, inputs: list[str]) -> Report:
    """Sends all inputs, one after the other."""
    report = Report()
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(server.url, timeout=timeout) as http, _bystander(http) as bystander:
        attacker = Attacker(http, report)
        started_s, seen, memory = time.monotonic(), len(bystander.pictures), 0.0
        for number, name in enumerate(inputs):
            if number == len(inputs) // 10:
                memory = memory_mb(server.pid)
            kind = name.partition(":")[0]
            try:
                outcome = await getattr(attacker, kind)(random.Random(f"{seed}:{name}"))
            except (aiohttp.ClientError, TimeoutError, AssertionError) as error:
                outcome = f"failed: {error!r:.100}"
                report.failures.append(f"{name}: {error!r:.200}")
            report.outcomes[f"{kind} {outcome}"] += 1
            if re.fullmatch(r"5\d\d", str(outcome)) and int(outcome) not in MEANT:
                report.failures.append(f"{name}: {outcome}")
        report.seconds = time.monotonic() - started_s
        report.fps = (len(bystander.pictures) - seen) / report.seconds
        await attacker.close()
        report.memory_mb = (memory, memory_mb(server.pid))
    _judge(server, report)
    return report


def _judge(server: LiveServer, report: Report) -> None:
    """What is wrong only as a whole."""
    metrics = server.metrics()
    for reason in ("internal", "engine_lost"):
        lost = metrics.get(f'avatar_sessions_ended_total{{reason="{reason}"}}', 0.0)
        if lost:
            report.failures.append(f"{lost:.0f} sessions ended with {reason}")
    said = server.complaints()
    if "Traceback" in said:
        report.failures.append(
            f"{said.count('Traceback')} tracebacks, the first: {said[said.index('Traceback') :][:1500]}"
        )


@contextlib.asynccontextmanager
async def _bystander(http: aiohttp.ClientSession) -> AsyncIterator[Client]:
    """Somebody who watches a session of their own."""
    async with http.post("/v1/sessions") as made:
        session = await made.json()
    client = Client()
    async with http.post(session["links"]["whep"], data=await client.offer(), headers=SDP) as answer:
        assert answer.status == 201, await answer.text()
        await client.accept(await answer.text())
    await client.until(lambda: len(client.pictures) > 5)
    yield client
    async with http.get(f"/v1/sessions/{session['id']}") as shown:
        assert shown.status == 200, "the bystander's session is gone"
    await client.close()
    await http.delete(f"/v1/sessions/{session['id']}")


class Attacker:
    """Sends one input of each kind; every method returns what became of it."""

    def __init__(self, http: aiohttp.ClientSession, report: Report):
        self._http = http
        self._report = report
        self._session: str | None = None
        self._keeper: aiohttp.ClientWebSocketResponse | None = None  # or the session ends for want of company
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._viewer: str | None = None  # a connection that takes candidates
        self._fragments = 0
        self._client: Client | None = None

    async def offer(self, chance: random.Random) -> int:
        offer = offers.offer(chance).encode("utf-8", "surrogatepass")
        session = await self._target()
        door = chance.choice((f"/v1/sessions/{session}/webrtc", f"/v1/whep/{session}", "/v1/whip?session=whipped"))
        async with self._http.post(door, data=offer, headers=SDP) as answer:
            await answer.read()
            place, status = answer.headers.get("Location"), answer.status
        if place is not None:
            await self._http.delete(place if "whip" not in door else "/v1/sessions/whipped")
        return status

    async def fragment(self, chance: random.Random) -> int:
        session = await self._target()
        if self._viewer is None or not self._viewer.startswith(f"/v1/sessions/{session}/") or self._fragments > 90:
            async with self._http.post(f"/v1/whep/{session}", data=VIEWER, headers=SDP) as answer:
                assert answer.status == 201, await answer.text()
                self._viewer, self._fragments = answer.headers["Location"], 0
        self._fragments += 1
        fragment = offers.fragment(chance).encode("utf-8", "surrogatepass")
        async with self._http.patch(self._viewer, data=fragment, headers=FRAGMENT) as answer:
            if answer.status == 404:
                self._viewer = None  # it never connected, and was given up
            return answer.status

    async def body(self, chance: random.Random) -> int:
        path, text = bodies.body(chance)
        below = "/v1/sessions" if not path else f"/v1/sessions/{await self._target()}{path}"
        async with self._http.post(below, data=text.encode("utf-8", "surrogatepass"), headers=JSON) as answer:
            found = await answer.json()
        if answer.status == 201:
            await self._http.delete(f"/v1/sessions/{found['id']}")
        return answer.status

    async def message(self, chance: random.Random) -> str:
        if self._socket is None or self._socket.closed:
            self._socket = await self._http.ws_connect(f"/v1/sessions/{await self._target()}/events", max_msg_size=0)
        raw = bodies.message(chance)
        try:
            if isinstance(raw, bytes):
                await self._socket.send_bytes(raw)
            else:
                await self._socket.send_frame(raw.encode("utf-8", "surrogatepass"), aiohttp.WSMsgType.TEXT)
            await self._socket.send_str('{"type":"ping","id":"after"}')
        except ConnectionResetError:  # the one before was no text
            self._socket = None
            return "closed"
        outcome = "taken"
        async with asyncio.timeout(ANSWER_S):
            while True:
                found = await self._socket.receive()
                if found.type != aiohttp.WSMsgType.TEXT:
                    return "closed"
                told = found.json()
                if told["type"] == "error" and told["code"] != "busy":
                    outcome = told["code"]
                    assert outcome != "internal", told
                if told["type"] == "pong" and told["id"] == "after":
                    return outcome

    async def sound(self, chance: random.Random) -> int:
        session = await self._target()
        async with self._http.post(f"/v1/sessions/{session}/audio", data=sounds.sound(chance)) as answer:
            await answer.read()
        await self._http.post(f"/v1/sessions/{session}/interrupt")
        return answer.status

    async def websocket(self, chance: random.Random) -> str:
        parts = urlsplit(str(self._http._base_url))
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        path = f"/v1/sessions/{await self._target()}/events"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        async with asyncio.timeout(ANSWER_S):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 101 " in head, head
            with contextlib.suppress(ConnectionError):
                writer.write(frames.websocket_bytes(chance))
                await writer.drain()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return "sent"

    async def channel(self, chance: random.Random) -> str:
        client = self._client
        if client is None or client.connection.sctp.state != "connected":
            await self._hang_up()
            client = self._client = Client(channel=True)
            door = f"/v1/whep/{await self._target()}"
            async with self._http.post(door, data=await client.offer(), headers=SDP) as answer:
                assert answer.status == 201, await answer.text()
                await client.accept(await answer.text())
            await client.until(lambda: client.channel.readyState == "open")
        sctp = client.connection.sctp
        packet = frames.sctp_packet(chance, sctp._remote_verification_tag, sctp._local_tsn)
        with contextlib.suppress(ConnectionError):
            await sctp.transport._send_data(packet)
        await asyncio.sleep(0)
        return "sent"

    async def close(self) -> None:
        """Leaves nothing behind."""
        if self._socket is not None:
            await self._socket.close()
        await self._hang_up()
        if self._keeper is not None:
            await self._keeper.close()
            await self._draining
        if self._session is not None:
            await self._http.delete(f"/v1/sessions/{self._session}")

    async def _hang_up(self) -> None:
        if self._client is not None:
            await self._client.connection.close()
            for task in self._client._tasks:
                task.cancel()
            self._client = None

    async def _target(self) -> str:
        """The session that is attacked; a new one where it has ended, which is a failure."""
        if self._session is not None:
            async with self._http.get(f"/v1/sessions/{self._session}") as shown:
                if shown.status == 200:
                    return self._session
            self._report.failures.append("the attacked session was lost")
        async with self._http.post("/v1/sessions") as made:
            self._session = str((await made.json())["id"])
        self._keeper = await self._http.ws_connect(f"/v1/sessions/{self._session}/events", autoping=True)
        self._draining = asyncio.ensure_future(_drain(self._keeper))
        return self._session


async def _drain(socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in socket:
        pass
