"""`infinity-avatar avatars check` and `make`: what the doctor says of a picture, and presenters in files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from streamer.errors import InputError, OutputError, PictureError
from streamer.picture import MOST_SIDE_PIXELS, read_rgb

if TYPE_CHECKING:
    import numpy as np

    from models.portrait.doctor import Check
    from models.presenter import Presenter

SUFFIX = ".safetensors"


def check_picture(path: Path, is_json: bool, stream: TextIO) -> int:
    """Prints the checks of a picture, a line or {name, verdict, advice} each; 0 if a presenter can be made, else 2.

    Raises:
        InputError: if there is no picture that can be read, or the weights are missing.
    """
    from models.portrait.doctor import is_refused

    _, checks = _examine(path)
    if is_json:
        print(json.dumps([asdict(check) for check in checks], indent=2), file=stream)
    else:
        _print_checks(checks, stream)
    return 2 if is_refused(checks) else 0


def make_presenter(path: Path, out: Path, size: tuple[int, int], stream: TextIO) -> None:
    """Makes a presenter of a picture and says what could be better about it.

    Args:
        size: height and width of its canvas.

    Raises:
        InputError: if the picture cannot be read or is refused, or the weights are missing.
        OutputError: if the file cannot be written.
    """
    from models.presenter import Presenter
    from streamer.video_out import check_writable

    check_writable(out, SUFFIX)
    picture, checks = _examine(path)
    for check in checks:
        if check.verdict == "refused":
            raise PictureError(check.advice)
    try:
        presenter = Presenter.from_picture(picture, size)
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        presenter.save(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    _print_checks([check for check in checks if check.verdict != "ok"], stream)
    print(f"{out}: {size[1]}x{size[0]}", file=stream)


def read_presenter(path: Path) -> Presenter:
    """What `make_presenter` wrote.

    Raises:
        PictureError: if the file is missing, broken, or holds something else.
    """
    from models.presenter import Presenter

    try:
        return Presenter.load(path)
    except ValueError as error:
        raise PictureError(str(error)) from error


def _examine(path: Path) -> tuple[np.ndarray, list[Check]]:
    from models.portrait.doctor import examine
    from models.portrait.landmarks import find_faces

    picture = read_rgb(path, MOST_SIDE_PIXELS)
    try:
        return picture, examine(picture, find_faces(picture))
    except ValueError as error:  # the weights are missing
        raise InputError(str(error)) from error


def _print_checks(checks: Sequence[Check], stream: TextIO) -> None:
    for check in checks:
        print(f"{check.verdict:<7}  {check.name:<7}  {check.advice}", file=stream)
