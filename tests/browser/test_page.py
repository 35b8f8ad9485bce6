"""What the page does by itself, against a fake server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser.av_probe import Probe, write_beeps
from benchmarks.browser.steps import by_id, open_page, start, wait_for_text, wait_until
from tests.browser.conftest import ROOT, FakeServer, PageWatch

pytestmark = pytest.mark.browser

FIGURES = {
    "state", "fps", "framesReceived", "framesDropped", "freezes", "latencyMs", "avOffsetMs", "rung", "rungName",
    "bitrateKbps", "packetsLost", "rttMs", "sessionId", "connectionState", "speaking",
}  # fmt: skip
NO_MICROPHONE = (
    """navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"))"""
)


def wait_for_message(fake: FakeServer, page: Any, kind: str) -> dict[str, Any]:
    for _ in range(100):
        if found := fake.messages(kind):
            return found[-1]
        page.wait_for_timeout(50)
    raise AssertionError(f"the page sent no {kind}")


def test_a_click_starts_picture_and_sound(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    open_page(page, fake.url)
    assert page.inner_text(by_id("status")) == "Ready"
    start(page)
    shown = page.evaluate("avatarStats().framesShown")
    wait_until(page, "shown => avatarStats().framesShown > shown + 10", shown)
    figures = page.evaluate("avatarStats()")
    assert figures.keys() >= FIGURES
    assert figures["connectionState"] == "connected" and figures["sessionId"]
    assert not page.is_disabled(by_id("say")) and not page.is_disabled(by_id("interrupt"))
    wait_for_text(page, "stats", "Full")
    assert watch.hosts <= {fake.url.split("/")[2], ""}, "the page asked somebody else for something"


def test_offer_has_microphone_picture_and_channel_and_trickles(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    (offer,) = fake.log("offer")
    audio, video, channel = offer.split("\nm=")[1:]
    assert audio.startswith("audio") and "a=sendrecv" in audio
    assert video.startswith("video") and "a=recvonly" in video
    assert channel.startswith("application")
    assert "a=candidate" not in offer
    wait_until(page, "avatar.connection.peer.iceGatheringState === 'complete'")
    page.wait_for_timeout(300)
    fragments = fake.log("fragment")
    ufrag = re.search("a=ice-ufrag:(.+)", offer)
    assert ufrag and all(f"a=ice-ufrag:{ufrag[1].strip()}\r\n" in fragment for fragment in fragments)
    assert all("a=ice-pwd:" in fragment and "a=mid:" in fragment for fragment in fragments)
    assert "a=candidate:" in "".join(fragments)
    assert "".join(fragments).count("a=end-of-candidates") == 1


def test_ice_servers_come_from_the_link_header(fake: FakeServer, page: Any) -> None:
    fake.plan(link=True)
    open_page(page, fake.url)
    start(page)
    (server,) = page.evaluate("avatar.connection.peer.getConfiguration().iceServers")
    assert server["urls"] in ("turn:127.0.0.1:9?transport=udp", ["turn:127.0.0.1:9?transport=udp"])
    assert (server["username"], server["credential"]) == ("u,1", "a;b")


def test_several_links_are_told_apart(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    header = (
        '<stun:a>; rel="ice-server", <https://b>; rel="next", <turn:c>; rel=ice-server; username="x"; credential="y"'
    )
    found = page.evaluate(
        "async header => (await import('/js/api.js')).iceServersOf({ headers: new Headers({ Link: header }) })", header
    )
    assert found == [{"urls": "stun:a"}, {"urls": "turn:c", "username": "x", "credential": "y"}]


def test_a_token_goes_with_every_request(fake: FakeServer, page: Any) -> None:
    page.goto(f"{fake.url}/embed.html")
    found: list[tuple[str, str, str | None]] = []
    page.on("request", lambda r: found.append((r.method, r.url, r.headers.get("authorization"))))
    page.evaluate(
        """async () => {
            const { Avatar } = await import("/js/avatar.js");
            const avatar = new Avatar({ token: "secret" });
            await avatar.list();
            await avatar.start({ isReceiveOnly: true });
            await avatar.stop();
        }"""
    )
    asked = [each for each in found if "/v1/" in each[1]]
    assert {method for method, _, _ in asked} >= {"GET", "POST", "DELETE"}
    assert all(token == "Bearer secret" for _, _, token in asked), asked


def test_say_is_spoken_and_heard(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    probe = Probe(page)
    assert probe.start()["hasSound"]
    page.fill(by_id("say-text"), "Good morning, and welcome to all of you.")
    page.press(by_id("say-text"), "Enter")
    wait_until(page, "avatarStats().speaking")
    wait_for_text(page, "status", "Speaking")
    assert page.input_value(by_id("say-text")) == ""
    wait_until(page, "!avatarStats().speaking")
    page.wait_for_timeout(700)
    readings = probe.drain()
    assert readings.energy > 100
    assert readings.beeps and readings.flashes
    assert wait_for_message(fake, page, "say")["text"] == "Good morning, and welcome to all of you."


def test_shift_enter_makes_a_line_and_says_nothing(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    page.fill(by_id("say-text"), "One")
    page.press(by_id("say-text"), "Shift+Enter")
    assert page.input_value(by_id("say-text")) == "One\n"
    assert fake.messages("say") == []


def test_interrupt_stops_and_says_after_how_long(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    page.evaluate("avatar.say('x'.repeat(400))")
    wait_until(page, "avatarStats().speaking")
    page.click(by_id("interrupt"))
    wait_until(page, "!avatarStats().speaking")
    wait_for_text(page, "status", "Interrupted after")


def test_mute_silences_the_video_and_back(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    page.click(by_id("mute"))
    assert page.evaluate("document.querySelector('video').muted")
    page.wait_for_selector(f"{by_id('mute')}[aria-pressed=true]")
    assert page.inner_text(by_id("mute")) == "Unmute"
    page.click(by_id("mute"))
    page.wait_for_selector(f"{by_id('mute')}[aria-pressed=false]")


def test_stop_ends_everything(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    page.evaluate("window.track = avatar.connection.audioSender.track")
    session = page.evaluate("avatarStats().sessionId")
    page.click(by_id("stop"))
    wait_for_text(page, "status", "Ready")
    page.wait_for_timeout(200)
    assert [path for method, path in fake.requests() if method == "DELETE"] == [f"/v1/sessions/{session}"]
    assert page.evaluate("track.readyState") == "ended"
    assert page.evaluate("avatarStats().connectionState") == "closed"
    assert page.evaluate("document.activeElement.dataset.testid") == "start"
    assert page.is_disabled(by_id("say"))


def test_leaving_the_page_ends_the_session(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    session = page.evaluate("avatarStats().sessionId")
    page.goto("about:blank")
    page.wait_for_timeout(300)
    assert ("DELETE", f"/v1/sessions/{session}") in fake.requests()


def test_a_full_server_is_told_in_words(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    watch.allow("503")
    fake.plan(busy=7)
    open_page(page, fake.url)
    page.click(by_id("start"))
    wait_for_text(page, "error", "All places are taken. Try again in 7 seconds.")
    assert page.inner_text(by_id("status")) == "Not connected"
    wait_until(page, "getComputedStyle(document.querySelector('#level')).getPropertyValue('--level') <= 0")
    fake.plan(busy=0)
    start(page)
    assert page.is_hidden(by_id("error"))


def test_a_server_that_is_away_is_told_in_words(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    watch.allow("ERR_CONNECTION_REFUSED")
    open_page(page, fake.url)
    fake.kill()
    page.click(by_id("start"))
    wait_for_text(page, "error", "cannot be reached")
    assert page.is_visible(by_id("start"))


def test_a_server_that_dies_is_noticed_and_start_offered(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    watch.allow("ERR_CONNECTION_REFUSED")
    open_page(page, fake.url)
    start(page)
    fake.kill()
    wait_for_text(page, "error", "Press Start to begin again.")
    assert page.evaluate("avatarStats().state") == "lost"
    assert page.is_visible(by_id("start"))


def test_a_session_ended_by_the_server_says_why_and_starts_again(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    fake.plan(close="server_stopping")
    wait_for_text(page, "error", "The server is shutting down. Press Start to begin again.")
    start(page)
    assert page.is_hidden(by_id("error"))


def test_a_restart_of_the_engine_is_a_note(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    fake.plan(send={"type": "error", "code": "engine_lost", "message": "The engine restarts."})
    wait_for_text(page, "note", "The session goes on.")
    assert page.evaluate("avatarStats().state") == "live"
    assert page.is_hidden(by_id("error"))


def test_an_error_event_is_shown_as_the_server_words_it(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    fake.plan(send={"type": "error", "code": "bad_text", "message": "There is <b>nothing</b> to say."})
    wait_for_text(page, "error", "There is <b>nothing</b> to say.")
    page.click("#error-close")
    assert page.is_hidden(by_id("error"))


def test_messages_it_does_not_know_do_no_harm(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    for message in ({"type": "tomorrow"}, {"nothing": 1}, {"type": 7}, {"type": "interrupted"}, {"type": "metrics"}):
        fake.plan(send=message)
    shown = page.evaluate("avatarStats().framesShown")
    wait_until(page, "shown => avatarStats().framesShown > shown + 10", shown)
    assert page.evaluate("avatarStats().state") == "live"


def test_without_permission_it_goes_on_without_microphone(fake: FakeServer, page: Any) -> None:
    page.add_init_script(NO_MICROPHONE)
    open_page(page, fake.url)
    start(page)
    wait_for_text(page, "note", "The microphone is not allowed for this page. It goes on without")
    (offer,) = fake.log("offer")
    assert "a=recvonly" in offer.split("\nm=")[1]
    assert page.get_attribute(by_id("mic"), "aria-pressed") == "false"


def test_a_microphone_can_be_switched_on_later(fake: FakeServer, page: Any) -> None:
    open_page(page, f"{fake.url}/?mic=off")
    start(page)
    assert page.evaluate("avatar.connection.audioSender.track") is None
    page.click(by_id("mic"))
    assert wait_for_message(fake, page, "microphone")["enabled"] is True
    assert page.evaluate("avatar.connection.audioSender.track.readyState") == "live"
    page.click(by_id("mic"))
    page.wait_for_selector(f"{by_id('mic')}[aria-pressed=false]")
    assert page.evaluate("avatar.connection.audioSender.track.enabled") is False


def test_the_meter_follows_the_microphone(fake: FakeServer, page: Any) -> None:
    open_page(page, f"{fake.url}/?mic=raw")
    start(page)
    wait_until(page, "getComputedStyle(document.querySelector('#level')).getPropertyValue('--level') > 0.5")


def test_a_sound_file_is_played(fake: FakeServer, page: Any, tmp_path: Path) -> None:
    write_beeps(tmp_path / "talk.wav", seconds=2)
    open_page(page, fake.url)
    assert page.is_disabled(by_id("file"))
    start(page)
    page.set_input_files(by_id("file"), tmp_path / "talk.wav")
    wait_until(page, "document.querySelector('#file-text').textContent === 'Playing talk.wav'")
    wait_until(page, "avatarStats().speaking")
    wait_until(page, "document.querySelector('#file-text').textContent.startsWith('Play a sound file')")


def test_a_dropped_file_that_is_no_sound_is_told_in_words(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    watch.allow("415")
    open_page(page, fake.url)
    start(page)
    page.evaluate(
        "() => { const transfer = new DataTransfer(); transfer.items.add(new File(['x'], 'notes.txt'));"
        " document.querySelector('#drop').dispatchEvent(new DragEvent('drop', { dataTransfer: transfer })) }"
    )
    wait_for_text(page, "error", "This is not a sound file that can be read.")
    assert "Play a sound file" in page.inner_text("#file-text")


def test_a_presenter_is_chosen_before_and_during_a_session(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    page.check(f"{by_id('gallery')} input[value=tom]", force=True)
    assert "tom.png" in page.get_attribute("#poster", "src")
    start(page)
    assert fake.log("session")[-1]["avatar"] == "tom"
    page.focus(f"{by_id('gallery')} input[value=tom]")
    page.keyboard.press("ArrowRight")
    assert wait_for_message(fake, page, "set_avatar")["avatar"] == "lin"
    wait_until(page, "avatarStats().avatar === 'lin'")


def test_direction_is_sent_at_once_and_kept_for_the_next_start(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    page.check(f"{by_id('emotion')} input[value=happy]", force=True)
    assert wait_for_message(fake, page, "set_prompt")["emotion"] == "happy"
    page.focus(by_id("gestures"))
    page.keyboard.press("End")
    page.wait_for_timeout(200)
    assert fake.messages("set_prompt")[-1] == {"type": "set_prompt", "gestures": 2}
    assert page.inner_text("#gestures-text") == "lively"
    page.click(by_id("stop"))
    start(page)
    page.wait_for_timeout(300)
    assert fake.messages("set_prompt")[-1] == {"type": "set_prompt", "emotion": "happy", "gestures": 2}


def test_barge_in_is_asked_for_when_the_session_is_made(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    page.check(by_id("barge-in"))
    start(page)
    assert fake.log("session")[-1]["barge_in"] is True


@pytest.mark.parametrize("colours", ["light", "dark", "forced"])
def test_axe_finds_nothing_on_any_page(fake: FakeServer, page: Any, watch: PageWatch, colours: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    watch.allow("503")
    if colours == "forced":
        page.emulate_media(forced_colors="active")
    else:
        page.emulate_media(color_scheme=colours)
    for path in ("/", "/viewer.html", "/embed.html"):
        page.goto(fake.url + path)
        page.wait_for_load_state("networkidle")
        found = axe.run(page)
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
        assert len(found.response["passes"]) > 10


@pytest.mark.parametrize("size", [(844, 390), (932, 430), (667, 375)])
def test_on_a_phone_on_its_side_start_and_all_controls_are_in_sight(fake: FakeServer, page: Any, size) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    open_page(page, fake.url)
    for name in ("start", "stop", "mic", "interrupt", "mute", "fullscreen"):
        box = page.locator(by_id(name)).bounding_box()
        assert box["y"] >= 0 and box["y"] + box["height"] <= size[1] and box["x"] + box["width"] <= size[0], name


@pytest.mark.parametrize("size", [(320, 844), (390, 844), (932, 430), (844, 390), (1280, 800)])
def test_no_words_of_the_controls_are_cut_off(fake: FakeServer, page: Any, size) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    open_page(page, fake.url)
    cut = "[...document.querySelectorAll('.tool span')].filter(s => s.offsetWidth + 2 > s.parentElement.clientWidth)"
    assert page.evaluate(f"{cut}.map(s => s.textContent)") == []


def test_the_chosen_presenter_is_marked_in_forced_colours(fake: FakeServer, page: Any) -> None:
    page.emulate_media(forced_colors="active")
    open_page(page, fake.url)
    outlines = "i => [...document.querySelectorAll('.presenter')].map(p => [p.querySelector('input').checked,"
    outlines += " getComputedStyle(p.querySelector('img')).outlineStyle])"
    marks = page.evaluate(outlines, None)
    assert len(marks) > 1 and all((style == "solid") == is_chosen for is_chosen, style in marks)


def test_escape_interrupts(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    page.keyboard.press("Escape")
    page.fill(by_id("say-text"), "Something long enough to be interrupted, word for word.")
    page.keyboard.press("Enter")
    wait_until(page, "avatarStats().speaking")
    assert not fake.messages("interrupt")  # nothing was said at the first press
    page.keyboard.press("Escape")
    wait_for_message(fake, page, "interrupt")
    wait_until(page, "!avatarStats().speaking")


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(fake: FakeServer, page: Any, watch: PageWatch, width: int) -> None:
    watch.allow("503")
    page.set_viewport_size({"width": width, "height": 844})
    for path in ("/", "/viewer.html", "/embed.html"):
        page.goto(fake.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    open_page(page, fake.url)
    start(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click(by_id("stop"))
    fake.plan(busy=7)
    page.click(by_id("start"))
    wait_for_text(page, "error", "All places")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    start_box, error_box = page.locator(by_id("start")).bounding_box(), page.locator(by_id("error")).bounding_box()
    assert error_box["y"] + error_box["height"] <= start_box["y"], "the error covers Start"


def test_everything_can_be_reached_with_the_keyboard_and_has_a_name(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('button, input, textarea, a, video')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))"
        ".map((e) => e.outerHTML)"
    )
    assert unnamed == []
    page.focus(by_id("start"))
    page.keyboard.press("Enter")
    wait_until(page, "avatarStats().state === 'live'")
    reached = set()
    for _ in range(30):
        reached.add(page.evaluate("document.activeElement.dataset.testid ?? document.activeElement.name ?? ''"))
        page.keyboard.press("Tab")
    wanted = {"stop", "mic", "interrupt", "mute", "fullscreen", "presenter", "say-text", "say", "file", "gestures"}
    assert wanted <= reached, wanted - reached


def test_status_is_announced_and_generation_is_stated(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    assert page.get_attribute(by_id("status"), "aria-live") == "polite"
    assert page.get_attribute(by_id("error"), "role") == "alert"
    for path in ("/", "/viewer.html", "/embed.html"):
        page.goto(fake.url + path)
        assert page.get_by_text("AI-generated").first.is_visible(), path


def test_reduced_motion_is_respected(fake: FakeServer, page: Any) -> None:
    page.emulate_media(reduced_motion="reduce")
    open_page(page, fake.url)
    start(page)
    page.evaluate("avatar.say('x'.repeat(100))")
    wait_until(page, "avatarStats().speaking")
    moving = "document.getAnimations().filter((each) => each.playState === 'running').length"
    assert page.evaluate(moving) == 0


def test_full_screen_shows_the_presenter_alone(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    page.click(by_id("fullscreen"))
    wait_until(page, "document.fullscreenElement?.id === 'screen'")


def test_a_viewer_watches_the_same_session(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    session = page.evaluate("avatarStats().sessionId")
    viewer = page.context.new_page()
    viewer.goto(f"{fake.url}/viewer.html?session={session}")
    viewer.click(by_id("start"))
    wait_until(viewer, "avatarStats().framesShown > 10")
    offer = fake.log("offer")[-1]
    assert fake.log("door") == ["webrtc", "whep"]
    assert "m=application" not in offer and "a=sendrecv" not in offer
    page.bring_to_front()
    page.click(by_id("stop"))
    viewer.bring_to_front()
    wait_for_text(viewer, "error", "The session has ended.")


def test_a_viewer_of_no_session_is_told(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    watch.allow("404")
    page.goto(f"{fake.url}/viewer.html")
    page.click(by_id("start"))
    wait_for_text(page, "error", "Which session?")
    page.fill(by_id("session"), "none")
    page.click(by_id("start"))
    wait_for_text(page, "error", "There is no such session")


def test_the_embedded_avatar_speaks(fake: FakeServer, page: Any) -> None:
    page.goto(f"{fake.url}/embed.html")
    page.click(by_id("start"))
    wait_until(page, "document.querySelector('video').videoWidth > 0")
    page.click(by_id("say"))
    wait_for_text(page, "status", "Speaking")
    wait_for_text(page, "status", "Spoke for")


def test_the_embedding_page_is_short_and_the_documentation_shows_its_code() -> None:
    source = (ROOT / "client_demo" / "embed.html").read_text()
    assert len(source.splitlines()) < 100
    lines = {line.strip() for line in source.splitlines()}
    shown = re.findall(r"```(?:html|js)\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text(), re.S)
    assert shown
    quoted = [line.strip() for line in shown[0].splitlines() if line.strip()]
    missing = [line for line in quoted if line not in lines]
    assert len(quoted) > 8 and not missing, missing
