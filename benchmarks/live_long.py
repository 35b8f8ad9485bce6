"""What bench_live.py measures over a long time: memory, lag and lip sync of one session, what many leave behind, and a
session behind a bad network."""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.browser.av_probe import Probe, Readings, latencies, offsets, summary
from benchmarks.browser.live_server import ROOT, holdings, memory_mb
from benchmarks.browser.steps import by_id, start, wait_until
from benchmarks.live_measures import MIC_EVERY_S, SETTLING_S, Run, tell

SAMPLE_S = 10.0
WARM_S = 300.0  # growth counts after this
WARM_CYCLES = 5
LEFT_OVER_S = 5.0  # for what ends by itself, before it is counted


# -- one session -------------------------------------------------------------------------------------------


def measure_soak(run: Run, options: argparse.Namespace) -> None:
    if options.minutes:
        _soak(run, options.minutes)
    if options.cycles:
        _cycle(run, options.cycles)


def _soak(run: Run, minutes: float) -> None:
    """One session that listens to a microphone with speech and silence: memory every 10 s, the rest every minute."""
    with run.page("mic=raw") as page:
        start(page)
        engine = run.server.engine_pid()
        probe = Probe(page)
        probe.start()
        memory, lines = [], []
        began = time.monotonic()
        for sample in range(1, round(60 * minutes / SAMPLE_S) + 1):
            page.wait_for_timeout(max(0, int(1000 * (began + sample * SAMPLE_S - time.monotonic()))))
            probe.drain()
            at_s = time.monotonic() - began
            memory.append({"at_s": at_s, "media_mb": memory_mb(run.server.pid), "engine_mb": memory_mb(engine)})
            if sample % round(60 / SAMPLE_S) == 0:
                lines.append(_minute(run, page, probe.readings, at_s))
                print(_line(lines[-1], memory[-1]), flush=True)
                probe.readings = Readings()
    run.found |= {"memory": memory, "minutes": lines}
    for name in ("media_mb", "engine_mb"):
        _tell_growth(run, name, memory)
    for key, what in (("av", "flash − beep, ms"), ("mic_to_sound", "microphone → sound, ms")):
        _tell_change(run, what, [(line["at_s"], line[key]["median"]) for line in lines])
    _tell_change(run, "A/V as the browser reckons, ms", [(e["at_s"], e["page"]["browserAvOffsetMs"]) for e in lines])
    last = lines[-1]["page"]
    run.row("freezes > 500 ms", last["freezesSettled"], f"longest gap {last['longestGapMs']} ms")


def _minute(run: Run, page: Any, seen: Readings, at_s: float) -> dict[str, Any]:
    metrics = run.server.metrics()
    return {
        "at_s": at_s,
        "av": tell(offsets(seen)),
        "mic_to_sound": summary(latencies(seen.mic_beeps, seen.beeps, MIC_EVERY_S * 1000 - 100)),
        "page": run.figures(page),
        "metrics": {name: value for name, value in metrics.items() if "_bucket" not in name and "_created" not in name},
    }


def _line(line: dict[str, Any], memory: dict[str, float]) -> str:
    page = line["page"]
    return (
        f"minute {line['at_s'] / 60:3.0f}: media {memory['media_mb']:6.1f} MiB, engine {memory['engine_mb']:6.1f} MiB, "
        f"A/V {line['av']['median']} ms, mic → sound {line['mic_to_sound']['median']} ms, "
        f"fps {page['fps']}, rung {page['rungName']}, buffer {page['bufferMs']} ms"
    )


def _settled(at_s: Sequence[float]) -> int:
    """Where the first five minutes are over; 0 if nothing comes after them."""
    return next((index for index, at in enumerate(at_s) if at > WARM_S), 0)


def _tell_growth(run: Run, name: str, memory: list[dict[str, float]]) -> None:
    """The last minute against the first after the warm-up."""
    settled = [entry[name] for entry in memory[_settled([entry["at_s"] for entry in memory]) :]]
    count = max(1, min(round(60 / SAMPLE_S), len(settled) // 2))
    first, last = statistics.mean(settled[:count]), statistics.mean(settled[-count:])
    run.found[f"{name}_growth_percent"] = 100 * (last / first - 1)
    run.row(f"{name[:-3]} process, MiB", f"{last:.0f}", f"{100 * (last / first - 1):+.1f} % after the first 5 minutes")


def _tell_change(run: Run, what: str, minutes: list[tuple[float, float | None]]) -> None:
    known = [(at_s, figure) for at_s, figure in minutes if figure is not None]
    if not known:
        run.row(what, None)
        return
    at_s, first = known[_settled([at for at, _ in known])]
    figures = [figure for _, figure in known]
    run.row(what, known[-1][1], f"{first} after {at_s / 60:.0f} min; {min(figures)} … {max(figures)}")


# -- many sessions -----------------------------------------------------------------------------------------


def _cycle(run: Run, count: int) -> None:
    """Connects and closes; what the processes hold before and after."""
    with run.page("mic=on") as page:

        def once() -> None:
            start(page)
            page.click(by_id("stop"))
            wait_until(page, "avatarStats().state === 'idle'")

        for _ in range(WARM_CYCLES):
            once()
        start(page)
        engine = run.server.engine_pid()
        page.click(by_id("stop"))
        before = _held(run, page, engine)
        memory = {"media": [memory_mb(run.server.pid)], "engine": [memory_mb(engine)]}
        for number in range(count):
            once()
            if number % 10 == 9 or number == count - 1:
                memory["media"].append(memory_mb(run.server.pid))
                memory["engine"].append(memory_mb(engine))
        after = _held(run, page, engine)
    metrics = run.server.metrics()
    run.found["cycles"] = {
        "count": count,
        "before": before,
        "after": after,
        "memory_mb": memory,
        "sessions": metrics["avatar_sessions"],
        "engine_restarts": metrics["avatar_engine_restarts"],
    }
    for holder in before:
        more = {key: after[holder][key] - before[holder][key] for key in before[holder]}
        run.row(f"{holder}: more than before {count} cycles", more, f"now {after[holder]}")
    for process, mb in memory.items():
        run.row(f"{process}: MiB", f"{mb[0]:.0f} → {mb[-1]:.0f}")
    run.row("sessions alive", metrics["avatar_sessions"])


def _held(run: Run, page: Any, engine: int) -> dict[str, dict[str, float]]:
    """What is held when nobody is connected."""
    page.wait_for_timeout(int(1000 * LEFT_OVER_S))
    return {
        "media": {**holdings(run.server.pid), "tasks": run.server.metrics()["avatar_tasks"]},
        "engine": holdings(engine),
        "system": {"in_dev_shm": len(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else 0},
    }


# -- a bad network -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _bad_network(server: str, loss: float, delay_ms: float) -> Iterator[str]:
    """The server's address through it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.browser.bad_network", server, str(loss), str(delay_ms)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def measure_network(run: Run, options: argparse.Namespace) -> None:
    spans: list[dict[str, Any]] = []
    with (
        _bad_network(run.server.url, options.loss / 100, options.rtt / 2) as url,
        run.page("mic=raw", url) as page,
    ):
        start(page)
        page.wait_for_timeout(int(SETTLING_S * 1000))
        probe = Probe(page)
        probe.start()
        before, began = run.figures(page), time.monotonic()
        for span in range(1, round(60 * options.minutes / SAMPLE_S) + 1):
            page.wait_for_timeout(max(0, int(1000 * (began + span * SAMPLE_S - time.monotonic()))))
            seen = probe.drain()
            now, at_s = run.figures(page), time.monotonic() - began
            passed_s = at_s - (spans[-1]["at_s"] if spans else 0.0)
            received = now["framesReceived"] - (spans[-1]["page"] if spans else before)["framesReceived"]
            spans.append({"at_s": at_s, "fps": received / passed_s, "longest_gap_ms": seen.longest_gap_ms, "page": now})
        found = probe.readings
    longest_ms = MIC_EVERY_S * 1000 - 100
    half_ms = (found.mic_beeps[0] + found.mic_beeps[-1]) / 2 if found.mic_beeps else 0.0
    lags = [
        summary(latencies([at for at in found.mic_beeps if (at >= half_ms) == is_late], found.flashes, longest_ms))
        for is_late in (False, True)
    ]
    heard = sum(lag["count"] or 0 for lag in lags)
    last = spans[-1]["page"]
    run.found = {
        "spans": spans,
        "mic_to_frame_ms_by_half": lags,
        "mic_beeps": {"captured": len(found.mic_beeps), "shown": heard},
        "av": tell(offsets(found)),
    }
    fps = [span["fps"] for span in spans]
    received = (last["framesReceived"] - before["framesReceived"]) / spans[-1]["at_s"]
    run.row("frames received a second", f"{received:.1f}", f"{min(fps):.1f} … {max(fps):.1f} over 10 s; at least 20")
    run.row("packets lost at the browser", last["packetsLost"], f"round trip {last['rttMs']} ms")
    run.row("microphone → frame, median ms", lags[1]["median"], f"{lags[0]['median']} in the first half")
    run.row("microphone's beeps shown", heard, f"of {len(found.mic_beeps)}")
    run.row(
        "flash − beep, median ms", run.found["av"]["median"], f"{run.found['av']['min']} … {run.found['av']['max']}"
    )
    run.row("freezes > 500 ms", last["freezes"] - before["freezes"], f"longest gap {found.longest_gap_ms:.0f} ms")
