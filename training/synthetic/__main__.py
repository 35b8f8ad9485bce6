"""Render takes of synthetic presenters.

    python -m training.synthetic --out DIR --speech DIR --assets DIR --presenters maya,tom --minutes 20

Finished takes are skipped, so a run that was stopped goes on where it was; the same seed gives the same takes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.synthetic.production import plan, render, write_sheet
from training.synthetic.takes import FRAMINGS
from training.synthetic.visemes import FPS


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(prog="python -m training.synthetic", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--speech", type=Path, required=True, help="corpus of python -m training.synthetic.speech")
    parser.add_argument("--assets", type=Path, help="folder of the MakeHuman assets; a bare look without")
    parser.add_argument("--presenters", default="maya,tom", help="gallery names, or p<seed> for a random person")
    parser.add_argument("--minutes", type=float, default=1.0, help="of video, all presenters together")
    parser.add_argument("--take-seconds", type=float, default=20.0)
    parser.add_argument("--framing", choices=FRAMINGS, default="head")
    parser.add_argument("--heldout", action="store_true", help="speech that training never hears, unvaried")
    parser.add_argument("--voices", default="", help="voices the takes of a presenter use in turn; default any")
    parser.add_argument("--size", type=int, default=256, help="of the picture, pixels")
    parser.add_argument("--keypoints-only", action="store_true", help="no pictures: ten times as fast")
    parser.add_argument("--first-take", type=int, default=0, help="number of the first take of each presenter")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet, a row a take, at most 12")
    parsed = parser.parse_args(arguments)
    if parsed.minutes <= 0 or parsed.take_seconds <= 0 or parsed.workers < 1 or parsed.first_take < 0:
        parser.error("--minutes and --take-seconds must be above 0, --workers at least 1, --first-take at least 0")
    if parsed.keypoints_only and parsed.sheet:
        parser.error("--keypoints-only makes no pictures for a --sheet")
    return parsed


def main() -> None:
    """Entry of `python -m training.synthetic`."""
    arguments = parse_arguments()
    specs = plan(
        [name for name in arguments.presenters.split(",") if name],
        round(arguments.minutes * 60 * FPS),
        round(arguments.take_seconds * FPS),
        "heldout" if arguments.heldout else "train",
        arguments.framing,
        arguments.seed,
        arguments.voices.split(","),
        arguments.first_take,
    )
    try:
        render(
            arguments.out,
            specs,
            arguments.speech,
            arguments.assets,
            arguments.size,
            arguments.workers,
            with_pictures=not arguments.keypoints_only,
        )
    except RuntimeError as error:
        sys.exit(str(error))
    if arguments.sheet:
        write_sheet(arguments.out, [spec.name for spec in specs][:12], arguments.sheet)


if __name__ == "__main__":
    main()
