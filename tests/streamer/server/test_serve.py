"""The real server, with the engine's test pattern, and aiortc as its browser."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientSession
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from streamer.errors import AvatarError
from streamer.media.network import Network
from streamer.server.serve import ServeOptions, address_of, listen, start
from tests.streamer.session.fakes import tone

OPTIONS = ServeOptions(port=0, is_test_pattern=True, max_sessions=2)


@asynccontextmanager
async def running(options: ServeOptions = OPTIONS) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        yield (await start(options, stack)).replace("localhost", "127.0.0.1")


class Browser:
    """An aiortc client that keeps what it sees, hears and is told."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.peer.createDataChannel("events")
        self.brightness: list[float] = []
        self.sound: list[np.ndarray] = []
        self.messages: list[dict] = []
        self._readers: list[asyncio.Task] = []
        self.channel.on("message", lambda message: self.messages.append(json.loads(message)))
        self.peer.on("track", lambda track: self._readers.append(asyncio.ensure_future(self._read(track))))

    async def connect(self, http: ClientSession, url: str, direction: str = "recvonly") -> str:
        self.peer.addTransceiver("audio", direction=direction)
        self.peer.addTransceiver("video", direction="recvonly")
        await self.peer.setLocalDescription(await self.peer.createOffer())
        headers = {"Content-Type": "application/sdp"}
        async with http.post(url, data=self.peer.localDescription.sdp, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            sdp = await answer.text()
            location = answer.headers["Location"]
        await self.peer.setRemoteDescription(RTCSessionDescription(sdp, "answer"))
        return location

    async def _read(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.brightness.append(float(frame.to_ndarray(format="gray").mean()))
                else:
                    self.sound.append(frame.to_ndarray().reshape(-1, 2)[:, 0])

    async def until(self, is_true, limit_s: float = 15.0) -> None:
        """Waits for something to be seen, heard or told."""
        async with asyncio.timeout(limit_s):
            while not is_true():
                await asyncio.sleep(0.02)

    def of(self, kind: str) -> list[dict]:
        return [message for message in self.messages if message["type"] == kind]

    async def close(self) -> None:
        await self.peer.close()
        await asyncio.gather(*self._readers)


def test_browser_sees_and_hears_what_is_said_and_interrupts_it() -> None:
    async def scene() -> None:
        async with running() as address, ClientSession(address) as http:
            async with http.post("/v1/sessions", json={}) as made:
                session = await made.json()
            browser, viewer = Browser(), Browser()
            await browser.connect(http, session["links"]["webrtc"])
            await viewer.connect(http, session["links"]["whep"])
            await browser.until(lambda: len(browser.brightness) > 10 and len(viewer.brightness) > 10)
            async with http.ws_connect(session["links"]["events"]) as socket:
                await socket.send_json({"type": "input_audio.start", "sample_rate": 48_000, "id": "tone"})
                for _ in range(8):
                    await socket.send_bytes(tone(1.0).astype("<i2").tobytes())
                await socket.send_json({"type": "input_audio.commit"})
                await browser.until(lambda: browser.of("speaking.started"))
                await browser.until(lambda: max(browser.brightness[-5:]) > 100 and max(viewer.brightness[-5:]) > 100)
                async with http.post(session["links"]["interrupt"]) as interrupted:
                    played = await interrupted.json()
                assert played["utterance"] == "tone" and played["played_ms"] > 0
                await browser.until(lambda: max(browser.brightness[-5:]) < 100 > max(viewer.brightness[-5:]))
            loud = sum(int(np.abs(block).max() > 1000) for block in browser.sound)
            assert abs(20 * loud - played["played_ms"]) <= 60
            await browser.until(lambda: browser.of("metrics"))
            async with http.delete(f"/v1/sessions/{session['id']}") as ended:
                assert ended.status == 204
            await browser.until(lambda: browser.of("closed"))
            assert browser.of("closed") == [{"type": "closed", "reason": "deleted"}]
            await browser.close()
            await viewer.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


def test_killed_engine_is_started_again_and_the_session_goes_on() -> None:
    async def scene() -> None:
        async with running() as address, ClientSession(address) as http:
            async with http.post("/v1/sessions", json={}) as made:
                session = await made.json()
            browser = Browser()
            await browser.connect(http, session["links"]["webrtc"])
            await browser.until(lambda: len(browser.brightness) > 10)
            children = [pid for pid in descendants(os.getpid()) if is_engine(pid)]
            assert len(children) == 1
            os.kill(children[0], signal.SIGKILL)

            async def figures() -> str:
                async with http.get("/metrics") as response:
                    return await response.text()

            async with asyncio.timeout(10):
                while "avatar_engine_restarts 1.0" not in await figures():
                    await asyncio.sleep(0.05)
            async with http.ws_connect(session["links"]["events"]) as socket:
                await socket.send_bytes((tone(1.0)[::3]).astype("<i2").tobytes())
                await socket.send_json({"type": "input_audio.commit"})
                await browser.until(lambda: browser.of("speaking.stopped"))
            assert browser.of("speaking.stopped")[0]["reason"] == "finished"
            assert not browser.of("closed")
            await browser.close()

    asyncio.run(asyncio.wait_for(scene(), 60))


def is_engine(pid: int) -> bool:
    """A spawned child that is neither multiprocessing's tracker nor the voice, which has onnxruntime loaded."""
    with contextlib.suppress(OSError):
        if b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return False
        return "onnxruntime" not in Path(f"/proc/{pid}/maps").read_text()
    return False


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_command_and_leaves_nothing(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "streamer", "serve", "--test-pattern", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "The avatar is at http://localhost:" in process.stdout.readline()
        children = descendants(process.pid)
        assert children
        process.send_signal(number)
        assert process.wait(20) == 0
        assert process.stdout.read() == "" and process.stderr.read() == ""
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def test_what_cannot_be_listened_at_is_one_sentence() -> None:
    with contextlib.closing(listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host, number, words in (
            ("127.0.0.1", port, "in use"),
            ("no.such.host.invalid", 8080, "no host"),
            ("192.0.2.77", 8080, "not an address of this machine"),
        ):
            with pytest.raises(AvatarError, match=words):
                listen(host, number).close()


def test_address_is_one_where_browsers_allow_the_microphone() -> None:
    for host in ("127.0.0.1", "0.0.0.0", "localhost"):
        with contextlib.closing(listen(host, 0)) as listening:
            assert address_of(host, listening) == f"http://localhost:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    "options",
    [
        ServeOptions(port=0, cors_origins=("example.com",)),
        ServeOptions(port=0, preset="nonsense"),
        ServeOptions(port=0, is_test_pattern=True, avatar="Zoe"),
        ServeOptions(port=0, device="toaster"),
        ServeOptions(port=0, is_test_pattern=True, network=Network(addresses=("203.0.113.7",))),
    ],
)
def test_options_that_cannot_be_used_are_said_and_leave_nothing(options: ServeOptions) -> None:
    async def scene() -> None:
        with pytest.raises(AvatarError) as failure:
            async with AsyncExitStack() as stack:
                await start(options, stack)
        assert "\n" not in str(failure.value)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(scene())


def test_media_process_never_loads_torch() -> None:
    probe = (
        "import sys\n"
        "import streamer.server.app, streamer.server.serve, streamer.doctor\n"
        "from models.gallery import list_avatars\n"
        "assert list_avatars() is not None\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_gallery_lies_where_the_weights_do() -> None:
    from models import checkpoints, gallery

    assert gallery.WEIGHTS_ROOT == checkpoints.WEIGHTS_ROOT
