"""FFmpeg speaks into a session by WHIP, at one address, and a WHEP viewer sees the session say it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from benchmarks.browser.av_probe import write_beeps
from benchmarks.browser.live_server import LiveServer
from tests.streamer.media.client import Client

WHITE = 150  # luma; between flashes the pattern is dark
SPOKEN_S = 15.0


def ffmpeg() -> str:
    """A binary with the WHIP muxer, which Debian's does not have."""
    package = pytest.importorskip("imageio_ffmpeg", reason="no FFmpeg with WHIP: pip install imageio-ffmpeg")
    return package.get_ffmpeg_exe()


SOUND = ["-c:a", "libopus", "-ar", "48000", "-ac", "2"]
VIDEO = ["-c:v", "libx264", "-profile:v", "baseline", "-pix_fmt", "yuv420p", "-tune", "zerolatency"]


async def pushing(url: str, speech: Path, has_picture: bool) -> asyncio.subprocess.Process:
    picture = ["-f", "lavfi", "-i", f"testsrc=s=64x64:r=10:d={SPOKEN_S}"] if has_picture else []
    line = ["-hide_banner", "-loglevel", "error", "-re", "-i", str(speech), *picture]
    line += [*SOUND, *(VIDEO if has_picture else []), "-f", "whip", url]
    return await asyncio.create_subprocess_exec(ffmpeg(), *line, stderr=asyncio.subprocess.PIPE)


@pytest.mark.parametrize("has_picture", [False, True])
def test_ffmpeg_speaks_and_a_viewer_watches(server: LiveServer, tmp_path: Path, has_picture: bool) -> None:
    speech = tmp_path / "speech.wav"
    write_beeps(speech, seconds=SPOKEN_S, every_s=2.0, beep_s=0.6, voiced=True)

    async def scene() -> None:
        name = f"studio-{has_picture}"
        push = await pushing(f"{server.url}/v1/whip?session={name}", speech, has_picture)
        async with aiohttp.ClientSession(server.url) as http:
            client = await watching(http, name)
            await client.until(lambda: flashes(client) >= 3 and loud_blocks(client) >= 20)
            dark = sum(luma(frame) < WHITE for frame in client.pictures)
            assert dark > len(client.pictures) / 3  # it is not white all the time
            said = (await push.communicate())[1].decode()
            assert push.returncode == 0, said
            await client.close()
            async with http.delete(f"/v1/sessions/{name}") as ended:
                assert ended.status == 204

    asyncio.run(scene())


async def watching(http: aiohttp.ClientSession, name: str) -> Client:
    """A viewer of the session, as soon as it is there."""
    client = Client()
    offer = await client.offer()
    async with asyncio.timeout(20):
        while True:
            kind = {"Content-Type": "application/sdp"}
            async with http.post(f"/v1/whep/{name}", data=offer, headers=kind) as answer:
                if answer.status == 201:
                    await client.accept(await answer.text())
                    return client
                assert answer.status == 404
            await asyncio.sleep(0.2)


def luma(frame) -> float:  # type: ignore[no-untyped-def]
    return float(np.frombuffer(frame.planes[0], np.uint8).mean())


def flashes(client: Client) -> int:
    """Times the picture turned white."""
    white = [luma(frame) > WHITE for frame in client.pictures]
    return sum(after and not before for before, after in zip(white, white[1:], strict=False))


def loud_blocks(client: Client) -> int:
    return sum(int(np.abs(block.to_ndarray()).max()) > 2000 for block in client.blocks)
