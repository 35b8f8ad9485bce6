"""A real Chromium, a fake server for what the page does alone, and the real one with its test pattern.

A playwright of the sync kind keeps an event loop running in its thread, so it lives only as long as a module: tests
that call `asyncio.run` come after it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser.av_probe import write_beeps
from benchmarks.browser.chromium import launch, why_no_browser
from benchmarks.browser.steps import WAIT_MS

ROOT = Path(__file__).resolve().parents[2]


class FakeServer:
    """The other end of tests/browser/fake_server.py."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the fake server did not start"
        self.url = json.loads(line)["url"]

    def log(self, key: str) -> list[Any]:
        """Everything the page sent under this key, oldest first."""
        with urllib.request.urlopen(f"{self.url}/_test/log", timeout=10) as response:
            return [entry[key] for entry in json.load(response) if key in entry]

    def requests(self) -> list[tuple[str, str]]:
        with urllib.request.urlopen(f"{self.url}/_test/log", timeout=10) as response:
            return [(entry["method"], entry["path"]) for entry in json.load(response) if "method" in entry]

    def messages(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.log("message") if message["type"] == kind]

    def plan(self, **plan: Any) -> None:
        body = json.dumps(plan).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/_test/plan", body, headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            response.read()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process.stdout.close()


@pytest.fixture(scope="module")
def microphone_wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fake microphone hears, over and over: a vowel every two seconds."""
    path = tmp_path_factory.mktemp("microphone") / "microphone.wav"
    write_beeps(path, seconds=20, every_s=2.0, voiced=True)
    return path


@pytest.fixture(scope="module")
def browser(microphone_wav: Path) -> Iterator[Any]:
    reason = why_no_browser()
    if reason:
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = launch(playwright, microphone_wav)
        yield chromium
        chromium.close()


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.browser.fake_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    server = FakeServer(process)
    yield server
    server.close()


class PageWatch:
    """Everything the console of a page complains about. `allow` says which complaints a test expects."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.allowed: list[str] = []
        self.hosts: set[str] = set()

    def allow(self, part: str) -> None:
        self.allowed.append(part)

    def unexpected(self) -> list[str]:
        return [text for text in self.complaints if not any(part in text for part in self.allowed)]


@pytest.fixture
def watch() -> PageWatch:
    return PageWatch()


@pytest.fixture
def page(browser: Any, watch: PageWatch) -> Iterator[Any]:
    """A desktop page. Anything on its console that a test did not allow fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.on("console", lambda m: watch.complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: watch.complaints.append(str(error)))
    page.on("request", lambda request: watch.hosts.add(request.url.split("/")[2]) if "//" in request.url else None)
    yield page
    context.close()
    assert not watch.unexpected(), "\n".join(watch.unexpected())
