"""`python -m tests.fuzz`: the long run, with a summary; exit code 1 if something happened that must not.

python -m tests.fuzz --count 10000 --seed 1
python -m tests.fuzz --seed 1 --only sound:4711
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from benchmarks.browser.live_server import LiveServer
from tests.fuzz.attack import SERVER, Report, attack, names

MEMORY_MB = 64.0  # more than that is not "back"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", metavar="KIND:NUMBER", help="one input of that seed")
    arguments = parser.parse_args()
    with LiveServer(SERVER) as server:
        inputs = names(arguments.count) if arguments.only is None else [arguments.only]
        report = asyncio.run(attack(server, arguments.seed, inputs))
    before, after = report.memory_mb
    if after - before > MEMORY_MB:
        report.failures.append(f"memory grew from {before:.0f} to {after:.0f} MB")
    _print(len(inputs), report)
    return 1 if report.failures else 0


def _print(count: int, report: Report) -> None:
    for outcome, times in sorted(report.outcomes.items()):
        print(f"{times:6} {outcome}")
    before, after = report.memory_mb
    print(
        f"{count} inputs in {report.seconds:.0f} s; bystander {report.fps:.1f} frames/s; {before:.0f} -> {after:.0f} MB"
    )
    for failure in report.failures:
        print(f"FAILURE {failure}")
    print("failures:", len(report.failures))


if __name__ == "__main__":
    sys.exit(main())
