"""The real server as a child process, and what /proc and /metrics say about it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_S = 180.0  # the engine measures its speed before it serves, on a busy machine
STOP_S = 20.0


class LiveServer:
    """`python -m streamer serve` on a free port. Use it as a context manager.

    Args:
        options: more of its command line.
        is_test_pattern: without models: frames that flash with the sound.

    Raises:
        RuntimeError: if it does not come up; with what it wrote.
    """

    def __init__(self, options: Sequence[str] = (), is_test_pattern: bool = True):
        pattern = ["--test-pattern"] if is_test_pattern else []
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamer", "serve", "--port", "0", *pattern, *options],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=ROOT,
        )
        line = self._first_line()
        address = re.search(r"https?://\S+", line)
        if address is None:
            self.stop()
            raise RuntimeError(f"the server did not start: {line}{self.complaints()}")
        self.url = address[0]
        self.pid = self._process.pid

    def _first_line(self) -> str:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_S)
        return self._process.stdout.readline() if ready else "it said nothing. "

    def __enter__(self) -> LiveServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._errors.close()

    def stop(self) -> int:
        """Stops it as Ctrl-C does, in the end as `kill -9` does. Returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            self._process.kill()
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def complaints(self) -> str:
        """What it wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read()

    def metrics(self) -> dict[str, float]:
        """`/metrics` as `{name{labels}: figure}`."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return {name: float(figure) for name, figure in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")}

    def engine_pid(self, timeout_s: float = 10.0) -> int:
        """The engine's process: the child that shares frames. There is one while a session is alive.

        Raises:
            RuntimeError: if there is none.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            for pid in children(self.pid):
                with contextlib.suppress(OSError):
                    if "memfd:avatar" in Path(f"/proc/{pid}/maps").read_text():
                        return pid
            time.sleep(0.1)
        raise RuntimeError("no child of the server shares frames; is a session alive?")


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    text = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(word) for word in text.split()]


def memory_mb(pid: int) -> float:
    """Memory of a process alone: resident, shared parts by their share, MiB."""
    with contextlib.suppress(OSError):
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 1024
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def cpu_s(pid: int) -> float:
    """Processor time a process has used, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def holdings(pid: int) -> dict[str, int]:
    """What a process holds on to: descriptors, those of memory without a name, threads, shared frames, children."""
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "memory_descriptors": sum("memfd:" in target for target in _targets(pid)),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "shared_memory": Path(f"/proc/{pid}/maps").read_text().count("memfd:avatar"),
        "children": len(children(pid)),
    }


def _targets(pid: int) -> list[str]:
    """What a process's descriptors stand for."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            found.append(os.readlink(path))
    return found
