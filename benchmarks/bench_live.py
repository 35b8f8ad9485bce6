"""Measure the live server with a real Chromium on the same machine.

    python -m benchmarks.bench_live start    click → first frame; frames, freezes and rungs for a minute
    python -m benchmarks.bench_live av       picture against sound, after minutes, and after a stall of the engine
    python -m benchmarks.bench_live mic      microphone → matching frame
    python -m benchmarks.bench_live say      request → first sound; interrupt → still; played_ms against the browser
    python -m benchmarks.bench_live soak     memory, lag and lip sync over time; what connect/close cycles leave
    python -m benchmarks.bench_live viewers  what five viewers cost
    python -m benchmarks.bench_live network  picture, voice and lag where packets are lost and late

`start`, `say`, `soak` and `viewers` run the shipped models, `av`, `mic` and `network` the test pattern, whose frames
flash where the sound is loud; `--pipeline` says otherwise. The server is started on a free port with the options
after `--`:

    python -m benchmarks.bench_live mic --beeps 60 -- --threads 1

Every command prints a table and, with `--out NAME`, writes benchmarks/results/NAME.json with the machine, its load,
and all single figures. Flashes and beeps are timed in the page, by its own clock: benchmarks/browser/av_probe.js says
how, and how exactly. What a screen and a loudspeaker add is in none of the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import live_long as long_measures
from benchmarks import live_measures as measures
from benchmarks.browser.av_probe import write_beeps
from benchmarks.browser.chromium import launch, why_no_browser
from benchmarks.browser.live_server import LiveServer

RESULTS = Path(__file__).with_name("results")

MEASURES: dict[str, Callable[[measures.Run, argparse.Namespace], None]] = {
    "start": measures.measure_start,
    "av": measures.measure_av,
    "mic": measures.measure_mic,
    "say": measures.measure_say,
    "soak": long_measures.measure_soak,
    "viewers": measures.measure_viewers,
    "network": long_measures.measure_network,
}
NEEDS_FLASHES = ("av", "mic", "network")
SPEAKS = ("mic", "soak", "network")  # the fake microphone does


def machine() -> dict[str, Any]:
    """What it ran on, and how busy that was."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"model name\s*:\s*(.+)", file.read())
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "when": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def print_table(title: str, rows: Sequence[tuple[str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    print(f"\n{title}")
    for what, figure, remark in rows:
        print(f"  {what:<{widths[0]}}  {figure:<{widths[1]}}  {remark}".rstrip())


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    given = list(sys.argv[1:] if arguments is None else arguments)
    server_options: list[str] = []
    if "--" in given:
        cut = given.index("--")
        given, server_options = given[:cut], given[cut + 1 :]
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--pipeline", choices=("avatar", "test-pattern"), help="what makes the frames")
    shared.add_argument("--out", metavar="NAME", help="writes benchmarks/results/NAME.json")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_live",
        description="Measures the live server with a real Chromium. Options after -- go to `infinity-avatar serve`.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    made = commands.add_parser("start", parents=[shared], help="click → first frame, frames and freezes")
    made.add_argument("--starts", type=int, default=5)
    made.add_argument("--seconds", type=float, default=60)
    made.add_argument("--no-microphone", action="store_true", help="do not ask for one when timing the starts")
    made = commands.add_parser("av", parents=[shared], help="picture against sound")
    made.add_argument("--minutes", type=float, default=10)
    made.add_argument("--stall", type=float, default=2.0, help="seconds the engine is stopped at the end")
    made = commands.add_parser("mic", parents=[shared], help="microphone → matching frame")
    made.add_argument("--beeps", type=int, default=60)
    made = commands.add_parser("say", parents=[shared], help="request → first sound, interrupt → still")
    made.add_argument("--times", type=int, default=10)
    made = commands.add_parser(
        "soak", parents=[shared], help="memory, lag and lip sync over time, and what cycles leave"
    )
    made.add_argument("--minutes", type=float, default=30)
    made.add_argument("--cycles", type=int, default=100)
    made = commands.add_parser("viewers", parents=[shared], help="what viewers cost")
    made.add_argument("--viewers", type=int, default=5)
    made.add_argument("--seconds", type=float, default=30)
    made = commands.add_parser("network", parents=[shared], help="a session behind a bad network")
    made.add_argument("--minutes", type=float, default=5)
    made.add_argument("--loss", type=float, default=5.0, help="percent, each way")
    made.add_argument("--rtt", type=float, default=100.0, help="milliseconds")
    options = parser.parse_args(given)
    options.server_options = server_options
    if options.pipeline is None:
        options.pipeline = "test-pattern" if options.command in NEEDS_FLASHES else "avatar"
    return options


def microphone_for(command: str, path: Path) -> None:
    """What the fake microphone plays over and over: silence, or vowels, which are speech to a speech detector."""
    if command in SPEAKS:
        quiet = {"quiet_every_s": 30.0, "quiet_s": 12.0} if command == "soak" else {}
        write_beeps(path, seconds=60 * measures.MIC_EVERY_S, every_s=measures.MIC_EVERY_S, voiced=True, **quiet)
    else:
        write_beeps(path, seconds=60, lead_s=100.0)


def main(arguments: Sequence[str] | None = None) -> int:
    from playwright.sync_api import sync_playwright

    options = parse(arguments)
    reason = why_no_browser()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that server and browser are taken down too
    before = machine()
    is_pattern = options.pipeline == "test-pattern"
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        wav = Path(name) / "microphone.wav"
        microphone_for(options.command, wav)
        with LiveServer(options.server_options, is_test_pattern=is_pattern) as server:
            browser = launch(playwright, wav)
            try:
                run = measures.Run(server, browser, Path(name))
                MEASURES[options.command](run, options)
            finally:
                browser.close()
            version = browser.version
    title = f"{options.command} ({options.pipeline}), load {before['load'][0]:.1f} → {os.getloadavg()[0]:.1f}"
    print_table(title, run.rows)
    if options.out:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{options.out}.json"
        given = {key: value for key, value in vars(options).items() if key != "out"}
        whole = {
            "options": given,
            "machine": before | {"load_after": os.getloadavg(), "chromium": version},
            **run.found,
        }
        path.write_text(json.dumps(whole, indent=1) + "\n")
        print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
