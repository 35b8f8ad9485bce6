"""A picture of one's own on the page, against a fake server."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.browser.steps import by_id, open_page, start, wait_for_text, wait_until
from tests.browser.conftest import FakeServer, PageWatch
from tests.browser.fake_server import GALLERY
from tests.browser.test_page import wait_for_message

pytestmark = pytest.mark.browser

PICTURE = GALLERY / "lin.png"
WARNED = {"name": "mouth", "verdict": "warning", "advice": "The mouth is open."}
REFUSED = {"name": "face", "verdict": "refused", "advice": "No face was found: <b>use</b> another."}
NO_CAMERA = """navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", "NotAllowedError"))"""
GIVE = """([kind, name, type]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([new Uint8Array(9)], name, { type }));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
        : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector("main").dispatchEvent(event);
}"""


def bring(page: Any, picture: Path | dict[str, Any] = PICTURE) -> None:
    """Chooses a picture and sends it."""
    if page.is_hidden(by_id("own")):
        page.click(by_id("own-open"))
    page.set_input_files(by_id("own-file"), picture)
    page.check(by_id("own-consent"))
    page.click(by_id("own-send"))


def step_is(page: Any, step: str) -> None:
    wait_until(page, "step => document.querySelector('#own').dataset.step === step", step)


def bring_and_close(page: Any) -> str:
    """Brings the picture; returns the name that the server gave it."""
    bring(page)
    step_is(page, "ready")
    page.click(by_id("own-send"))
    return chosen(page)


def chosen(page: Any) -> str:
    return page.locator(f"{by_id('gallery')} input:checked").input_value()


def test_a_picture_that_is_brought_is_started(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    name = bring_and_close(page)
    assert name.startswith("own-") and name in page.get_attribute("#poster", "src")
    assert page.evaluate("document.activeElement.dataset.testid") == "own-open"
    (size,) = fake.log("picture")
    assert size == PICTURE.stat().st_size and fake.log("consent") == ["yes"]
    start(page)
    assert fake.log("session")[-1]["avatar"] == name


def test_a_running_session_changes_to_it_and_back_when_it_is_removed(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    name = bring_and_close(page)
    assert wait_for_message(fake, page, "set_avatar")["avatar"] == name
    wait_until(page, "name => avatarStats().avatar === name", name)
    page.click(by_id("own-open"))
    page.click(by_id("own-remove"))
    step_is(page, "empty")
    wait_until(page, "avatarStats().avatar === 'maya'")
    assert ("DELETE", f"/v1/avatars/{name}") in fake.requests()
    assert page.evaluate("sessionStorage.length") == 0 and chosen(page) == "maya"


def test_a_picture_brought_while_it_connects_is_shown_once_it_does(fake: FakeServer, page: Any) -> None:
    page.add_init_script(
        "const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "navigator.mediaDevices.getUserMedia = async (wish) => { await new Promise((go) => (window.go = go));"
        " return open(wish) }"
    )
    open_page(page, fake.url)
    page.click(by_id("start"))
    page.evaluate(GIVE, ["paste", "me.png", "image/png"])
    bring(page)
    step_is(page, "ready")
    page.evaluate("go()")
    wait_until(page, "avatarStats().avatar?.startsWith('own-')")
    assert chosen(page).startswith("own-")


def test_nothing_is_sent_without_consent(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    page.click(by_id("own-open"))
    assert page.is_disabled(by_id("own-send"))
    page.set_input_files(by_id("own-file"), PICTURE)
    page.click(by_id("own-send"))
    page.evaluate("document.querySelector('#own-form').dispatchEvent(new SubmitEvent('submit', { cancelable: true }))")
    page.check(by_id("own-consent"))
    page.set_input_files(by_id("own-file"), PICTURE)  # another picture, another person
    assert not page.is_checked(by_id("own-consent"))
    page.click(by_id("own-send"))
    page.wait_for_timeout(300)
    assert fake.log("picture") == []
    said = page.evaluate(
        "import('/js/avatar.js').then(({ Avatar }) => new Avatar().addPicture(new File([], 'x'), {}))"
        ".then(() => null, (error) => error.code)"
    )
    assert said == "forbidden" and fake.log("picture") == []


def test_what_was_found_is_shown_beside_the_picture_as_it_was_cut(fake: FakeServer, page: Any) -> None:
    fake.plan(checks=[WARNED, {"name": "light", "verdict": "ok", "advice": "The light is even."}])
    open_page(page, fake.url)
    bring(page)
    step_is(page, "ready")
    assert page.inner_text(by_id("own-checks")) == "Warning The mouth is open."
    assert "/v1/avatars/own-" in page.get_attribute(by_id("own-picture"), "src")
    assert "Kept until" in page.inner_text(by_id("own-status"))
    assert page.evaluate("document.activeElement.id") == "own-send"


def test_a_picture_that_is_refused_is_told_in_words_and_another_one_taken(
    fake: FakeServer, page: Any, watch: PageWatch
) -> None:
    watch.allow("422")
    fake.plan(checks=[REFUSED])
    open_page(page, fake.url)
    bring(page)
    step_is(page, "refused")
    assert page.inner_text(by_id("own-checks")) == f"Refused {REFUSED['advice']}"
    assert page.is_disabled(by_id("own-send")) and chosen(page) == "maya"
    fake.plan(checks=[])
    bring(page)
    step_is(page, "ready")
    assert page.inner_text(by_id("own-checks")) == ""


def test_a_server_that_is_away_keeps_the_picture_to_try_again(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    watch.allow("ERR_CONNECTION_REFUSED")
    open_page(page, fake.url)
    fake.kill()
    bring(page)
    wait_for_text(page, "own-error", "cannot be reached")
    assert page.is_enabled(by_id("own-send")) and page.is_checked(by_id("own-consent"))


@pytest.mark.parametrize("kind", ["paste", "drop"])
@pytest.mark.parametrize(("name", "type_"), [("me.jpg", "image/jpeg"), ("IMG_1.HEIC", "")])
def test_a_picture_is_pasted_or_dropped_anywhere(fake: FakeServer, page: Any, kind: str, name: str, type_: str) -> None:
    open_page(page, fake.url)
    page.evaluate(GIVE, [kind, name, type_])
    step_is(page, "chosen")
    assert page.get_attribute(by_id("own-picture"), "alt") == name
    assert fake.log("picture") == []


def test_files_that_are_no_pictures_or_too_large_are_told_in_words(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    page.evaluate(GIVE, ["drop", "talk.wav", "audio/wav"])
    wait_for_text(page, "error", "Press Start first")
    assert page.is_hidden(by_id("own"))
    page.click(by_id("own-open"))
    page.evaluate(GIVE, ["drop", "notes.txt", "text/plain"])
    wait_for_text(page, "own-error", "This is no picture")
    page.set_input_files(by_id("own-file"), {"name": "a.png", "mimeType": "image/png", "buffer": bytes(11 << 20)})
    wait_for_text(page, "own-error", "at most 10 MB")
    assert page.is_disabled(by_id("own-send"))


def test_a_photo_is_taken_and_the_camera_stopped(fake: FakeServer, page: Any) -> None:
    page.add_init_script(
        "const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "navigator.mediaDevices.getUserMedia = async (wish) => (window.camera = await open(wish))"
    )
    open_page(page, fake.url)
    page.click(by_id("own-open"))
    page.click(by_id("own-photo"))
    step_is(page, "camera")
    wait_until(page, "document.querySelector('#own-camera').videoWidth > 0")
    page.click(by_id("own-photo"))
    step_is(page, "chosen")
    assert page.evaluate("camera.getVideoTracks()[0].readyState") == "ended"
    page.check(by_id("own-consent"))
    page.click(by_id("own-send"))
    step_is(page, "ready")
    taken = page.request.get(page.get_attribute(by_id("own-picture"), "src")).body()
    assert Image.open(io.BytesIO(taken)).format == "JPEG"
    page.click(by_id("own-photo"))
    step_is(page, "camera")
    page.keyboard.press("Escape")
    wait_until(page, "camera.getVideoTracks()[0].readyState === 'ended'")
    assert page.is_hidden(by_id("own"))


def test_a_camera_that_is_not_given_is_told_in_words(fake: FakeServer, page: Any) -> None:
    page.add_init_script(NO_CAMERA)
    open_page(page, fake.url)
    page.click(by_id("own-open"))
    page.click(by_id("own-photo"))
    wait_for_text(page, "own-error", "The camera is not allowed for this page.")


def test_what_is_given_up_while_it_is_sent_is_removed_again(fake: FakeServer, page: Any) -> None:
    fake.plan(pictures="slow")
    open_page(page, fake.url)
    bring(page)
    step_is(page, "sending")
    page.keyboard.press("Escape")
    for _ in range(50):
        if any(method == "DELETE" for method, _ in fake.requests()):
            break
        page.wait_for_timeout(100)
    assert ("DELETE", "/v1/avatars/own-") in [(method, path[:16]) for method, path in fake.requests()]
    assert chosen(page) == "maya" and page.evaluate("sessionStorage.length") == 0


def test_another_picture_takes_the_place_of_the_first(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    first, second = bring_and_close(page), bring_and_close(page)
    assert first != second and ("DELETE", f"/v1/avatars/{first}") in fake.requests()
    assert page.locator(f"{by_id('gallery')} input[value^=own-]").count() == 1


def test_it_outlasts_a_reload_and_no_other_tab_knows_it(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    watch.allow("404")
    open_page(page, fake.url)
    name = bring_and_close(page)
    page.reload()
    wait_until(page, "document.querySelector('#gallery input:checked')?.value.startsWith('own-')")
    assert chosen(page) == name
    other = page.context.new_page()
    open_page(other, fake.url)
    assert other.locator(f"{by_id('gallery')} input[value^=own-]").count() == 0
    assert page.evaluate("localStorage.length") == 0 and page.evaluate("document.cookie") == ""
    page.request.delete(f"{fake.url}/v1/avatars/{name}")
    page.reload()
    wait_until(page, "document.querySelector('#gallery input:checked')?.value === 'maya'")
    assert page.evaluate("sessionStorage.length") == 0


def test_a_picture_whose_time_is_over_is_forgotten_at_start(fake: FakeServer, page: Any, watch: PageWatch) -> None:
    watch.allow("404")
    open_page(page, fake.url)
    name = bring_and_close(page)
    page.request.delete(f"{fake.url}/v1/avatars/{name}")
    page.click(by_id("start"))
    wait_for_text(page, "error", "it may have expired")
    assert chosen(page) == "maya" and page.evaluate("sessionStorage.length") == 0
    start(page)


def test_escape_closes_the_dialog_and_interrupts_nobody(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    start(page)
    page.evaluate("avatar.say('x'.repeat(100))")
    wait_until(page, "avatarStats().speaking")
    page.click(by_id("own-open"))
    page.keyboard.press("Escape")
    wait_until(page, "!document.querySelector('#own').open")
    page.wait_for_timeout(200)
    assert not fake.messages("interrupt")


def test_it_works_with_the_keyboard_alone(fake: FakeServer, page: Any) -> None:
    open_page(page, fake.url)
    page.focus(by_id("own-open"))
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "own-file"
    page.set_input_files(by_id("own-file"), PICTURE)
    assert page.evaluate("document.activeElement.id") == "own-consent"
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "own-send"
    page.keyboard.press("Enter")
    step_is(page, "ready")
    page.keyboard.press("Enter")
    assert page.is_hidden(by_id("own"))


@pytest.mark.parametrize("colours", ["light", "dark", "forced"])
def test_axe_finds_nothing_in_any_step(fake: FakeServer, page: Any, watch: PageWatch, colours: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    watch.allow("422")
    if colours == "forced":
        page.emulate_media(forced_colors="active")
    else:
        page.emulate_media(color_scheme=colours)
    open_page(page, fake.url)

    def look(step: str) -> None:
        step_is(page, step)
        found = axe.run(page)
        assert found.violations_count == 0, f"{step}: {found.generate_report()}"
        assert len(found.response["passes"]) > 10

    page.click(by_id("own-open"))
    look("empty")
    page.click(by_id("own-photo"))
    look("camera")
    page.set_input_files(by_id("own-file"), PICTURE)
    look("chosen")
    fake.plan(checks=[REFUSED])
    bring(page)
    look("refused")
    fake.plan(checks=[WARNED])
    bring(page)
    look("ready")
    page.click(by_id("own-send"))
    assert axe.run(page).violations_count == 0


@pytest.mark.parametrize("size", [(320, 568), (390, 844), (844, 390), (667, 375), (1280, 800)])
def test_the_dialog_fits_the_window_with_its_buttons_in_sight(fake: FakeServer, page: Any, size) -> None:
    fake.plan(checks=[WARNED, WARNED])
    page.set_viewport_size({"width": size[0], "height": size[1]})
    open_page(page, fake.url)
    bring(page)
    step_is(page, "ready")
    for name in ("own", "own-remove", "own-send"):
        page.locator(by_id(name)).scroll_into_view_if_needed()
        box = page.locator(by_id(name)).bounding_box()
        assert box["x"] >= 0 and box["y"] >= 0, name
        assert box["x"] + box["width"] <= size[0] and box["y"] + box["height"] <= size[1], name
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    inner = "() => { const own = document.querySelector('#own'); return own.scrollWidth - own.clientWidth }"
    assert page.evaluate(inner) <= 0
