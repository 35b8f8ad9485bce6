"""The page and the server on a machine that has no network but loopback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.browser.chromium import why_no_browser
from tests.browser.conftest import ROOT

pytestmark = pytest.mark.browser


def come_to(microphone_wav: Path, *flags: str) -> dict[str, Any]:
    if reason := why_no_browser():
        pytest.skip(reason)
    alone = ["unshare", "--net"]
    if subprocess.run([*alone, "ip", "link"], capture_output=True).returncode:
        pytest.skip("making a machine without a network takes root's rights, unshare and ip")
    line = [*alone, sys.executable, "-m", "tests.browser.loopback", str(microphone_wav), *flags]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def test_a_browser_that_sees_no_network_is_said_to_and_at_once(microphone_wav: Path) -> None:
    found = come_to(microphone_wav)
    assert found["frames"] == 0 and "finds no network" in found["error"]
    assert found["took_s"] < 12.0  # and not the 15 s after which nothing else is known


def test_a_browser_that_uses_loopback_is_served(microphone_wav: Path) -> None:
    found = come_to(microphone_wav, "--allow-loopback-in-peer-connection")
    assert found["frames"] > 5 and found["error"] == ""
