"""The page and the real server together, with the test pattern: frames that flash with the sound.

Nothing here measures speed; bounds in milliseconds only tell right from grossly wrong. benchmarks/bench_live.py
measures.
"""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.browser.av_probe import Probe, latencies, offsets, write_beeps
from benchmarks.browser.chromium import why_no_browser
from benchmarks.browser.live_server import LiveServer
from benchmarks.browser.steps import WAIT_MS, by_id, open_page, start, wait_for_text, wait_until
from models.gallery import list_avatars
from tests.browser.conftest import PageWatch

pytestmark = pytest.mark.browser

GROSS_MS = 250.0


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    reason = why_no_browser()
    if reason:
        pytest.skip(reason)
    with LiveServer(["--threads", "1", "--max-sessions", "2"]) as server:
        yield server


@pytest.fixture
def strict_page(browser: Any, watch: PageWatch) -> Iterator[Any]:
    """A page that obeys the server's content security policy, as a visitor's does."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    page.on("console", lambda m: watch.complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: watch.complaints.append(str(error)))
    yield page
    context.close()
    assert not watch.unexpected(), "\n".join(watch.unexpected())


def wait_for_readings(page: Any, probe: Probe, name: str, count: int) -> None:
    """Until the probe has seen so many of something."""
    for _ in range(WAIT_MS // 250):
        probe.drain()
        if len(getattr(probe.readings, name)) >= count:
            return
        page.wait_for_timeout(250)
    raise AssertionError(f"{len(getattr(probe.readings, name))} {name} instead of {count}")


def test_start_shows_the_presenter_and_the_server_s_figures(live: LiveServer, strict_page: Any) -> None:
    open_page(strict_page, live.url)
    assert strict_page.locator(f"{by_id('gallery')} img").count() >= 4
    start(strict_page)
    shown = strict_page.evaluate("avatarStats().framesShown")
    wait_until(strict_page, "shown => avatarStats().framesShown > shown + 50", shown)
    wait_until(strict_page, "avatarStats().rungName !== null && avatarStats().latencyMs > 0")
    wait_until(strict_page, "avatarStats().bitrateKbps > 0")


def test_text_is_spoken_with_moving_picture(live: LiveServer, page: Any) -> None:
    open_page(page, f"{live.url}/?mic=off")
    start(page)
    probe = Probe(page)
    probe.start()
    page.fill(by_id("say-text"), "Good morning, and welcome to the show.")
    page.click(by_id("say"))
    wait_until(page, "avatarStats().speaking")
    wait_for_text(page, "status", "Speaking")
    wait_for_readings(page, probe, "beeps", 1)
    wait_until(page, "!avatarStats().speaking")
    probe.drain()
    assert probe.readings.energy > 10
    assert probe.readings.flashes, "the picture showed nothing of the sound"


def test_sound_and_picture_of_a_file_stay_together(live: LiveServer, page: Any, tmp_path: Path) -> None:
    write_beeps(tmp_path / "beeps.wav", seconds=8)
    open_page(page, f"{live.url}/?mic=off")
    start(page)
    probe = Probe(page)
    probe.start()
    page.set_input_files(by_id("file"), tmp_path / "beeps.wav")
    wait_for_readings(page, probe, "flash_ends", 6)
    probe.drain()
    found = [offset for _, offset in offsets(probe.readings)]
    assert len(found) >= 3
    assert abs(sorted(found)[len(found) // 2]) < GROSS_MS


def test_a_new_way_to_the_server_is_taken_while_the_session_goes_on(live: LiveServer, page: Any) -> None:
    open_page(page, live.url)
    start(page)
    way = """async () => {
        const stats = await avatar.connection.peer.getStats();
        const transport = [...stats.values()].find(({ type }) => type === "transport");
        const pair = stats.get(transport.selectedCandidatePairId);
        return `${stats.get(pair.localCandidateId).port} ${stats.get(pair.remoteCandidateId).port}`;
    }"""
    session, former = page.evaluate("avatar.session.id"), page.evaluate(way)
    closed = 'avatar_connections_lost_total{reason="closed"}'
    lost = live.metrics().get(closed, 0.0)  # by the tests before this one
    page.evaluate("avatar.connection.restart()")
    for _ in range(WAIT_MS // 250):
        if page.evaluate(way).split()[1] != former.split()[1]:
            break
        page.wait_for_timeout(250)
    else:
        raise AssertionError("the way stayed the same")
    shown = page.evaluate("avatarStats().framesShown")
    wait_until(page, "shown => avatarStats().framesShown > shown + 50", shown)
    assert page.evaluate("[avatar.session.id, avatarStats().connectionState]") == [session, "connected"]
    assert live.metrics().get(closed, 0.0) == lost


def test_the_presenter_says_what_the_microphone_hears(live: LiveServer, page: Any) -> None:
    open_page(page, f"{live.url}/?mic=raw")
    start(page)
    probe = Probe(page)
    probe.start()
    found: list[float] = []
    for _ in range(WAIT_MS // 500):  # a vowel every two seconds; a busy browser may lose one
        page.wait_for_timeout(500)
        probe.drain()
        found = latencies(probe.readings.mic_beeps, probe.readings.flashes, longest_ms=1900)
        if len(found) >= 2:
            return
    raise AssertionError(f"{found} of {probe.readings}")


def test_a_muted_microphone_is_not_said(live: LiveServer, page: Any) -> None:
    open_page(page, f"{live.url}/?mic=raw")
    start(page)
    page.click(by_id("mic"))
    page.wait_for_timeout(2500)  # what was said before is over
    probe = Probe(page)
    probe.start()
    page.wait_for_timeout(4500)  # two vowels of the fake microphone
    probe.drain()
    assert probe.readings.frames > 20
    assert probe.readings.beeps == [] and probe.readings.flashes == []


def test_interrupt_ends_sound_and_picture(live: LiveServer, page: Any, tmp_path: Path) -> None:
    write_beeps(tmp_path / "beeps.wav", seconds=20)
    open_page(page, f"{live.url}/?mic=off")
    start(page)
    page.evaluate("avatar.addEventListener('interrupted', ({ detail }) => (window.told = detail))")
    probe = Probe(page)
    probe.start()
    page.set_input_files(by_id("file"), tmp_path / "beeps.wav")
    wait_for_readings(page, probe, "beeps", 2)
    page.click(by_id("interrupt"))
    wait_until(page, "window.told")
    wait_for_text(page, "status", "Interrupted after")
    page.wait_for_timeout(1500)
    probe.drain()
    page.wait_for_timeout(2000)  # two more beeps would have been heard
    late = probe.drain()
    assert late.frames > 10
    assert late.beeps == [] and late.flashes == []
    assert 0 < page.evaluate("told.played_ms") < 12_000


def test_stop_ends_the_session_at_the_server(live: LiveServer, strict_page: Any) -> None:
    open_page(strict_page, live.url)
    start(strict_page)
    session = strict_page.evaluate("avatarStats().sessionId")
    strict_page.click(by_id("stop"))
    wait_for_text(strict_page, "status", "Ready")
    strict_page.wait_for_timeout(500)
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(f"{live.url}/v1/sessions/{session}", timeout=10)
    refused.value.close()


def test_a_presenter_can_be_changed_and_directed(live: LiveServer, page: Any) -> None:
    open_page(page, f"{live.url}/?mic=off")
    start(page)
    page.check(f"{by_id('emotion')} input[value=happy]", force=True)
    page.check(f"{by_id('gallery')} input[value=kofi]", force=True)
    wait_until(page, "avatarStats().avatar === 'kofi'")
    assert page.is_hidden(by_id("error"))


def test_a_picture_of_one_s_own_is_looked_at_shown_and_removed(
    live: LiveServer, strict_page: Any, watch: PageWatch, tmp_path: Path
) -> None:
    watch.allow("422")
    page = strict_page
    open_page(page, f"{live.url}/?mic=off")
    start(page)
    wall, person = tmp_path / "wall.png", list_avatars()[1].picture
    Image.effect_noise((400, 300), 40).save(wall)
    page.click(by_id("own-open"))
    for picture, words in ((wall, "No avatar can be made"), (person, "This is how it was cut")):
        page.set_input_files(by_id("own-file"), picture)
        page.check(by_id("own-consent"))
        page.click(by_id("own-send"))
        wait_for_text(page, "own-status", words)
    wait_until(page, "avatarStats().avatar.startsWith('own-')")
    shown = page.evaluate("avatarStats().framesShown")
    wait_until(page, "shown => avatarStats().framesShown > shown + 25", shown)
    address = page.get_attribute(by_id("own-picture"), "src")
    assert page.request.get(address).ok
    page.click(by_id("own-remove"))
    wait_until(page, "!avatarStats().avatar.startsWith('own-')")
    assert page.request.get(address).status == 404
    assert page.is_hidden(by_id("error")) and page.is_hidden(by_id("own-error"))


def test_the_camera_is_given_under_the_server_s_policy(live: LiveServer, strict_page: Any) -> None:
    open_page(strict_page, live.url)
    strict_page.click(by_id("own-open"))
    strict_page.click(by_id("own-photo"))
    wait_until(strict_page, "document.querySelector('#own-camera').videoWidth > 0")
    strict_page.click(by_id("own-photo"))
    wait_until(strict_page, "document.querySelector('#own-picture').naturalWidth > 0")


def test_a_viewer_sees_the_session_and_its_end(live: LiveServer, strict_page: Any) -> None:
    page = strict_page
    open_page(page, f"{live.url}/?mic=off")
    start(page)
    viewer = page.context.new_page()
    viewer.goto(f"{live.url}/viewer.html?session={page.evaluate('avatarStats().sessionId')}")
    viewer.click(by_id("start"))
    wait_until(viewer, "avatarStats().framesShown > 20")
    page.bring_to_front()
    page.click(by_id("stop"))
    viewer.bring_to_front()
    wait_for_text(viewer, "error", "The session has ended.")


def test_too_many_sessions_are_refused_in_words(live: LiveServer, page: Any, watch: PageWatch) -> None:
    watch.allow("503")
    body = b"{}"
    for _ in range(2):
        request = urllib.request.Request(f"{live.url}/v1/sessions", body, {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=20).close()
    open_page(page, f"{live.url}/?mic=off")
    page.click(by_id("start"))
    wait_until(page, "!document.querySelector('#error').hidden")
    assert "Try again in" in page.inner_text(by_id("error"))
    wait_until(page, "avatarStats().state === 'idle'")


def test_the_embedding_page_works_under_the_server_s_policy(strict_page: Any) -> None:
    with LiveServer(["--threads", "1"]) as server:
        strict_page.goto(f"{server.url}/embed.html")
        strict_page.click(by_id("start"))
        wait_until(strict_page, "document.querySelector('video').videoWidth > 0")
        wait_for_text(strict_page, "status", "Ready to talk.")
        strict_page.click(by_id("say"))
        wait_for_text(strict_page, "status", "Speaking")
        strict_page.click(by_id("stop"))


def test_engine_and_server_that_end_are_noticed(page: Any, watch: PageWatch) -> None:
    watch.allow("ERR_CONNECTION_REFUSED")
    with LiveServer(["--threads", "1"]) as server:
        open_page(page, f"{server.url}/?mic=off")
        start(page)
        engine = server.engine_pid()
        os.kill(engine, signal.SIGKILL)
        page.wait_for_timeout(1000)
        assert server.engine_pid() != engine
        shown = page.evaluate("avatarStats().framesShown")
        wait_until(page, "shown => avatarStats().framesShown > shown + 50", shown)
        assert page.evaluate("avatarStats().state") == "live"
        assert server.stop() == 0
        wait_for_text(page, "error", "Press Start to begin again.")
        assert "Traceback" not in server.complaints()
