"""`make demo`: the first presenter of the gallery says a real recorded sentence.

The recording is one of Debian's package asterisk-core-sounds-en-g722 (CC BY-SA 3.0, spoken by Allison Smith);
it is taken from the system if it is installed, else fetched by apt into the demo's folder without installing
anything. Where apt is not to be had, the built-in voice speaks instead.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from streamer import cli

PACKAGE = "asterisk-core-sounds-en-g722"
SENTENCE = "dir-intro.g722"  # training never heard it
SOUNDS = Path("usr/share/asterisk/sounds")
CREDIT = f"sound: {SENTENCE} of {PACKAGE}, spoken by Allison Smith, CC BY-SA 3.0"
TEXT = (
    "Hello. I am not a real person: my picture and my voice are made by a program, while you listen. "
    "Maybe we will become better before Monday."
)
APT_TIMEOUT_S = 120


def find_sentence(root: Path) -> Path | None:
    """The recording below a file system root, wherever the package keeps its voice; None without it."""
    return next(iter(sorted((root / SOUNDS).glob(f"*/{SENTENCE}"))), None)


def fetch_sentence(folder: Path) -> Path | None:
    """Fetches the Debian package into a folder and unpacks it there; None if apt or dpkg will not."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _run(["apt-get", "download", PACKAGE], folder):
        # a fresh machine has no package lists yet
        _run(["apt-get", "update"], folder)
        if not _run(["apt-get", "download", PACKAGE], folder):
            return None
    for archive in sorted(folder.glob(f"{PACKAGE}_*.deb")):
        if _run(["dpkg", "-x", archive.name, "."], folder):
            return find_sentence(folder)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Renders the demo and prints where it is; returns the exit code of the command line."""
    parser = argparse.ArgumentParser(prog="python -m streamer.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/demo"), help="where everything is put")
    folder: Path = parser.parse_args(argv).folder
    fetched = folder / "sound"
    sentence = find_sentence(Path("/")) or find_sentence(fetched) or fetch_sentence(fetched)
    clip = folder / "demo.mp4"
    outputs = ["--out", clip, "--sheet", folder / "demo.png", "--report", folder / "demo.json"]
    if sentence is None:
        print("no recorded sentence from apt: the built-in voice speaks")
        command = ["say", TEXT, *outputs]
    else:
        print(CREDIT)
        command = ["render", "--audio", sentence, *outputs]
    code = cli.main([str(part) for part in command])
    if code == 0:
        print(f"the clip is {clip.resolve()}")
    return code


def _run(command: list[str], folder: Path) -> bool:
    """Runs a command quietly in a folder; false if it fails, hangs, or does not exist."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, timeout=APT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
