"""Debian's Chromium as tests and benchmarks start it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
)


def chromium_path() -> Path:
    return Path(shutil.which("chromium") or "/usr/bin/chromium")


def why_no_browser() -> str | None:
    """Why no browser can be driven here, or None."""
    if not chromium_path().exists():
        return f"there is no Chromium at {chromium_path()}; `make install-dev` installs it"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed; `make install-dev` installs it"
    return None


def launch(playwright: Playwright, microphone_wav: Path, more_flags: Sequence[str] = ()) -> Browser:
    """Headless, with a microphone that plays this file over and over and is given without a question."""
    flags = [*FLAGS, *more_flags, f"--use-file-for-fake-audio-capture={microphone_wav}"]
    return playwright.chromium.launch(executable_path=chromium_path(), args=flags)
