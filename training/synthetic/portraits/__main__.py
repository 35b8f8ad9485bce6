"""Draw portraits of random people.

    python -m training.synthetic.portraits --out data/portraits --assets DIR --first 0 --people 2000

Finished shards are skipped, so a run that was stopped goes on where it was; a person's pictures depend on the seed
alone. People from seed 900000 on are for tests.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from training.synthetic.portraits.looks import sample_look
from training.synthetic.portraits.people import sample_person
from training.synthetic.portraits.shards import write_shard
from training.synthetic.portraits.sitter import Portrait, Sitter, Studio

PEOPLE_A_SHARD = 20


def draw_person(studio: Studio, seed: int, looks: int, assets: Path | None) -> list[Portrait]:
    """The pictures of one person."""
    sitter = Sitter(studio, sample_person(seed), assets)
    rng = np.random.default_rng([seed, 0x100C])
    try:
        return [sitter.shoot(sample_look(rng)) for _ in range(looks)]
    finally:
        sitter.release()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.synthetic.portraits", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--assets", type=Path, help="folder of the MakeHuman assets; a bare look without")
    parser.add_argument("--first", type=int, default=0, help="seed of the first person, a multiple of 20")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--looks", type=int, default=8, help="pictures of each person")
    parser.add_argument("--size", type=int, default=256, help="of the pictures, pixels")
    parsed = parser.parse_args()
    if parsed.first % PEOPLE_A_SHARD or min(parsed.people, parsed.looks) < 1:
        parser.error(f"--first must be a multiple of {PEOPLE_A_SHARD}, --people and --looks at least 1")
    return parsed


def main() -> None:
    """Entry of `python -m training.synthetic.portraits`."""
    arguments = parse_arguments()
    studio = Studio(arguments.size, arguments.size // 2)
    last = arguments.first + arguments.people
    for first in range(arguments.first, last, PEOPLE_A_SHARD):
        folder = arguments.out / f"{first:07d}"
        if folder.exists():
            continue
        start = time.monotonic()
        people = range(first, min(first + PEOPLE_A_SHARD, last))
        portraits = [draw_person(studio, seed, arguments.looks, arguments.assets) for seed in people]
        seeds = [seed for seed, drawn in zip(people, portraits, strict=True) for _ in drawn]
        write_shard(folder, [portrait for drawn in portraits for portrait in drawn], seeds)
        print(f"{folder}: {len(seeds)} pictures, {(time.monotonic() - start) / len(people):.2f} s a person", flush=True)
    studio.release()


if __name__ == "__main__":
    main()
