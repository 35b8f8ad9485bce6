"""Time `render` beside programs that want the same cores, by how its threads wait for each other.

    python -m benchmarks.bench_busy [--seconds S] [--settings own spinning …] [--out NAME]

Each row is a `render` of the same noise in a process of its own, beside 0, 1 and 2 processes that do nothing but count,
on two cores. Settings: `own` is what the command does by itself, `spinning` what libgomp does by itself, `passive` is
OMP_WAIT_POLICY=PASSIVE, `one` is --threads 1. The real-time factor is the report's: compute for a second of sound,
without the first chunk. `load` in the results is the machine's at the end: only ratios of a run beside others count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CORES = 2
BUSY = (0, 1, 2)
RATE_HZ = 16_000
COUNT = "while True: pass"


@dataclass(frozen=True)
class Setting:
    """Environment and arguments of a rendering."""

    environment: dict[str, str]
    arguments: tuple[str, ...] = ()


SETTINGS = {
    "own": Setting({}),
    "spinning": Setting({"GOMP_SPINCOUNT": "300000"}),
    "passive": Setting({"OMP_WAIT_POLICY": "PASSIVE"}),
    "one": Setting({}, ("--threads", "1")),
}


@contextmanager
def busy(count: int, nice: int) -> Iterator[None]:
    """So many processes that want a core each."""
    line = ["nice", "-n", str(nice), sys.executable, "-c", COUNT]
    processes = [subprocess.Popen(line) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def render(setting: Setting, sound: Path, nice: int) -> dict[str, Any]:
    """The report of a rendering."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        line = ["nice", "-n", str(nice), sys.executable, "-m", "streamer", "render", "--audio", str(sound)]
        line += ["--out", f"{folder}/out.mp4", "--report", str(report), *setting.arguments]
        subprocess.run(line, check=True, env=environment | setting.environment, stdout=subprocess.DEVNULL)
        return json.loads(report.read_text())  # type: ignore[no-any-return]


def write_noise(path: Path, seconds: float) -> Path:
    """A WAV of a quiet noise."""
    samples = np.random.default_rng(0).normal(0, 3000, round(seconds * RATE_HZ)).clip(-32768, 32767)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description="Time render beside busy programs.")
    parser.add_argument("--seconds", type=float, default=6.0, help="of sound")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--nice", type=int, default=0, help="of rendering and busy processes alike")
    parser.add_argument("--out", metavar="NAME", help="write benchmarks/results/NAME.json")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    rows, machine = [], {}
    with tempfile.TemporaryDirectory() as folder:
        sound = write_noise(Path(folder) / "noise.wav", options.seconds)
        for name in options.settings:
            rtf = []
            for count in BUSY:
                with busy(count, options.nice):
                    report = render(SETTINGS[name], sound, options.nice)
                rtf.append(report["rtf"])
                machine = report["machine"] | report["versions"]
            rows.append({"setting": name, "busy": list(BUSY), "rtf": rtf})
            print(f"{name:9} RTF {rtf}, of the first {[round(r / rtf[0], 2) for r in rtf]}", flush=True)
    if options.out:
        content = {"machine": machine, "when": time.strftime("%Y-%m-%d %H:%M"), "seconds": options.seconds}
        content |= {"nice": options.nice, "load": os.getloadavg(), "rows": rows}
        path = Path(__file__).parent / "results" / f"{options.out}.json"
        path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
