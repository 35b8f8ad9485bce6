"""Firefox drives the page: it starts a session, watches it, has it say a text and interrupts it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.browser.live_server import LiveServer
from tests.clients.firefox import firefox, firefox_path

pytestmark = pytest.mark.browser
CLICK = """document.querySelector('[data-testid="{}"]').click()"""
TYPE = """{{ const field = document.querySelector('[data-testid="{}"]'); field.value = "{}";
          field.dispatchEvent(new Event("input", {{ bubbles: true }})); }}"""


@pytest.mark.skipif(firefox_path() is None, reason="there is no Firefox: apt-get install firefox-esr")
def test_firefox_starts_watches_says_and_interrupts(server: LiveServer, tmp_path: Path) -> None:
    async def scene() -> None:
        async with firefox(tmp_path) as page:
            await page.open(server.url)
            await page.until("""document.querySelector('[data-testid="gallery"] img') !== null""")
            await page.evaluate(CLICK.format("start"))
            await page.until("avatarStats().state === 'live' && avatarStats().framesShown > 50")
            await page.evaluate(TYPE.format("say-text", "Good morning, and welcome to this rather long sentence."))
            await page.evaluate(CLICK.format("say"))
            await page.until("avatarStats().speaking")
            await page.evaluate(CLICK.format("interrupt"))
            await page.until("!avatarStats().speaking")
            shown = await page.evaluate("avatarStats().framesShown")
            await page.until(f"avatarStats().framesShown > {shown} + 25")

    asyncio.run(scene())
