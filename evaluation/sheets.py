"""Contact sheets: rows of the same moments in several videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from evaluation.takes import FPS, runs

_LABEL_HEIGHT, _LABEL_WIDTH = 16, 64


def even_moments(count: int, columns: int) -> np.ndarray:
    """Indices of `columns` frames spread evenly over `count`, the middles of equal parts."""
    return ((np.arange(columns) + 0.5) * count / columns).astype(int)


def telling_moments(aperture: np.ndarray, closure: np.ndarray, columns: int) -> np.ndarray:
    """Frames at which lips show most: by turns the middle of a closure and the widest opening, in order of time.

    Args:
        aperture: [T] of the truth. closure: [T]. columns: number of frames wanted.
    """
    shut = [(start + stop) // 2 for start, stop in runs(closure > 0.5)]
    shut = [shut[i] for i in even_moments(len(shut), min(len(shut), columns // 2))] if shut else []
    parts = np.array_split(np.arange(len(aperture)), columns - len(shut))
    wide = [int(part[aperture[part].argmax()]) for part in parts if len(part)]
    return np.array(sorted({*shut, *wide}))


def contact_sheet(path: Path, rows: dict[str, np.ndarray], moments: np.ndarray, side: int = 160) -> None:
    """Write a picture with one row a video and one column a moment.

    Args:
        path: JPEG or PNG to write.
        rows: frames uint8 [T, H, W, 3] by label; sizes may differ.
        moments: indices of frames, below every T.
        side: height of a cell in pixels.
    """
    strips = [_time_strip(rows, moments, side)]
    for label, frames in rows.items():
        cells = [_cell(frames[moment], side) for moment in moments]
        strips.append(np.concatenate([_label(label, side), *cells], axis=1))
    Image.fromarray(np.concatenate(strips, axis=0)).save(path, quality=90)


def _cell(frame: np.ndarray, side: int) -> np.ndarray:
    width = _cell_width(frame, side)
    shrinks = frame.shape[0] >= side
    return cv2.resize(frame, (width, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)


def _cell_width(frame: np.ndarray, side: int) -> int:
    return round(frame.shape[1] * side / frame.shape[0])


def _time_strip(rows: dict[str, np.ndarray], moments: np.ndarray, side: int) -> np.ndarray:
    width = _cell_width(next(iter(rows.values()))[0], side)
    strip = np.full((_LABEL_HEIGHT, _LABEL_WIDTH + width * len(moments), 3), 255, np.uint8)
    for column, moment in enumerate(moments):
        _write(strip, f"{moment / FPS:.2f} s", (_LABEL_WIDTH + column * width + 4, 12))
    return strip


def _label(text: str, side: int) -> np.ndarray:
    label = np.full((side, _LABEL_WIDTH, 3), 255, np.uint8)
    _write(label, text, (4, side // 2))
    return label


def _write(picture: np.ndarray, text: str, place: tuple[int, int]) -> None:
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
