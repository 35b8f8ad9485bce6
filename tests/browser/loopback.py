"""What the page comes to on a machine that has loopback only: run with `unshare --net`, see `test_loopback`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.browser import chromium
from benchmarks.browser.live_server import LiveServer
from benchmarks.browser.steps import by_id, open_page, wait_until


def main(microphone_wav: Path, *flags: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with LiveServer(["--threads", "1"]) as server, sync_playwright() as playwright:
        browser = chromium.launch(playwright, microphone_wav, flags)
        page = browser.new_page()
        open_page(page, server.url)
        page.click(by_id("start"))
        started_s = time.monotonic()
        wait_until(page, "avatarStats().framesShown > 5 || !document.querySelector('#error').hidden")
        took_s = time.monotonic() - started_s
        frames, text = page.evaluate("avatarStats().framesShown"), page.text_content("#error-text")
        print(json.dumps({"frames": frames, "error": text, "took_s": took_s}))
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
