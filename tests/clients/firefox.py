"""Firefox, driven by WebDriver BiDi: JSON over a WebSocket that it opens itself, without geckodriver."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

START_S = 60.0
ANSWER_S = 30.0
PREFERENCES = {
    "media.navigator.streams.fake": "true",  # a microphone that plays a tone
    "media.navigator.permission.disabled": "true",
    "media.autoplay.default": "0",
    "datareporting.policy.dataSubmissionEnabled": "false",
    "app.normandy.enabled": "false",
    "app.update.enabled": "false",
    "browser.shell.checkDefaultBrowser": "false",
    "network.captive-portal-service.enabled": "false",
    "network.connectivity-service.enabled": "false",
}


def firefox_path() -> str | None:
    return shutil.which("firefox-esr") or shutil.which("firefox")


class Page:
    """The first tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket = socket
        self._numbers = itertools.count(1)
        self._context = ""

    async def open(self, url: str) -> None:
        if not self._context:
            await self._ask("session.new", {"capabilities": {}})
            self._context = (await self._ask("browsingContext.getTree", {}))["contexts"][0]["context"]
        await self._ask("browsingContext.navigate", {"context": self._context, "url": url, "wait": "complete"})

    async def evaluate(self, expression: str) -> Any:
        """What a script gives: a string, number, boolean or None."""
        parameters = {"expression": expression, "target": {"context": self._context}, "awaitPromise": True}
        parameters["userActivation"] = True
        found = await self._ask("script.evaluate", parameters)
        assert found["type"] == "success", found
        return found["result"].get("value")

    async def until(self, expression: str, limit_s: float = 40.0) -> None:
        """Waits for a script to be true."""
        async with asyncio.timeout(limit_s):
            while not await self.evaluate(expression):
                await asyncio.sleep(0.1)

    async def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(ANSWER_S):
            while True:
                message = await self._socket.receive_json()
                if message.get("id") == number:
                    assert message["type"] == "success", message
                    return message["result"]


@contextlib.asynccontextmanager
async def firefox(profile: Path) -> AsyncIterator[Page]:
    """A headless Firefox with a profile of its own and a fake microphone."""
    lines = [f'user_pref("{name}", {value});' for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    path = firefox_path()
    assert path is not None
    process = await asyncio.create_subprocess_exec(
        *(path, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env={"HOME": str(profile), "PATH": "/usr/bin:/bin", "MOZ_DISABLE_CONTENT_SANDBOX": "1"},
    )
    try:
        address = await _address(process)
        async with aiohttp.ClientSession() as http, http.ws_connect(f"{address}/session", max_msg_size=0) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.communicate(), 10)
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(START_S):
        while line := (await process.stderr.readline()).decode(errors="replace"):
            found = re.search(r"WebDriver BiDi listening on (ws://\S+)", line)
            if found:
                return found[1]
    raise AssertionError("Firefox ended before it could be driven")
