"""GStreamer's `webrtcbin` watches a session by WHEP: RSA certificate, rare reports, no data channel."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest

from benchmarks.browser.live_server import LiveServer

SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's bindings are for Debian's Python
VIEWER = Path(__file__).with_name("gstreamer_viewer.py")
NEEDED = "gi.require_version('GstWebRTC', '1.0'); from gi.repository import Gst, GstWebRTC; Gst.init(None)"
ELEMENTS = ("webrtcbin", "nicesrc", "rtpvp8depay", "rtph264depay", "rtpopusdepay", "dtlsdec")
WATCH_S = float(os.environ.get("GSTREAMER_WATCH_S", "20"))  # longer than a viewer may be quiet


def why_not() -> str:
    """What is missing; empty if nothing is."""
    if not Path(SYSTEM_PYTHON).exists():
        return f"no {SYSTEM_PYTHON}"
    probe = f"import gi; {NEEDED}; print(*(name for name in {ELEMENTS!r} if not Gst.ElementFactory.find(name)))"
    found = subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True, text=True, timeout=60)
    if found.returncode or found.stdout.strip():
        return "no GStreamer with webrtcbin: gstreamer1.0-plugins-bad gstreamer1.0-nice gir1.2-gst-plugins-bad-1.0"
    return ""


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_webrtcbin_watches_without_being_dropped(server: LiveServer, codec: str) -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    request = urllib.request.Request(f"{server.url}/v1/sessions", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        session = json.load(response)
    line = [SYSTEM_PYTHON, str(VIEWER), f"{server.url}/v1/whep/{session['id']}", str(WATCH_S + 3), codec]
    watched = subprocess.run(line, capture_output=True, text=True, timeout=WATCH_S + 60)
    assert watched.returncode == 0, watched.stderr
    seen = json.loads(watched.stdout.splitlines()[-1])
    assert seen["last_s"] is not None and seen["last_s"] > WATCH_S, (seen, watched.stderr, server.complaints())
    assert seen["video"] > 20 * WATCH_S and seen["audio"] > 40 * WATCH_S, seen
    print(f"{codec}: {seen}")
